"""Pure maths on arrays: cameras, rays, rotations, Gaussians, random streams.

No Flax, no files, no configuration. Modules may import their siblings.
"""
