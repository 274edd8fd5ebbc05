"""How good images are, how sets of them compare, and means over many.

Modules may import their siblings.
"""
