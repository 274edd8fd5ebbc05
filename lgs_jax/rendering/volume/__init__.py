"""Volume rendering of radiance fields: voxels, three planes, image-based planes.

A scene is a field that gives density (per unit of length) and colour at any point, and says where
along the rays to look. Modules may import their siblings and `core`.
"""
