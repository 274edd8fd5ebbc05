"""Network blocks in Flax Linen: residual blocks, attention, cross-view blocks, multi-view U-Net.

Modules may import their siblings and `core`. Everything is permutation-equivariant over views.
"""
