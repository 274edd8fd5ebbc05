"""Is a data set what it claims to be? Tests of posed photographs, for `check-data`.

`features` finds what frames have in common, `conventions` asks under which reading of the poses it
fits, `photometry` looks at the pictures alone, `scene` turns all of it into findings, `pictures`
draws them; `breaking` breaks good scenes, to see whether it is found. Modules of this package
import each other.
"""
