"""How good images are, and means over many of them. Modules may import their siblings."""
