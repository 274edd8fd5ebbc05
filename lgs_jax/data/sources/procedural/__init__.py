"""Rooms and objects ray traced in NumPy from a seed: a source that needs no files.

The world is in metres with z up and the floor at z = 0. `source` is the entry; below it
`layout` and `subjects` lay out scenes of `furniture` and objects made of `solids`, `trajectories`
moves the camera, `patterns` holds the textures, and `tracing` and `shading` make the pictures.
"""

from lgs_jax.data.sources.procedural.source import ProceduralSource

__all__ = ["ProceduralSource"]
