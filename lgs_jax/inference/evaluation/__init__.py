"""Scores of a trained model by a protocol: `run` is the entry.

`protocols` says what the model is shown, `options` what else is asked for, `scenes` of which scenes
and in which views, `scoring` renders and compares, `records` keeps what is done on disk, `summary`
and `distances` make figures of it, `nearest` looks for copies, `versions` says what software that
was, and `report` writes tables and pictures. Modules may import their siblings.
"""
