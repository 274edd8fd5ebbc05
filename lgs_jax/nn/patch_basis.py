"""A fixed linear code of image patches: the low frequencies of a cosine transform (DCT-II).

Letters: f side of a patch, c components.
"""

import numpy as np

# Differences of colour matter less to an image than brightness does at the same frequency.
_COLOR_COST = 1.5
# Fine detail has less variance than the mean brightness; so much more gain makes them alike.
_DETAIL_GAIN = 3.0


def patch_basis(factor: int, components: int) -> np.ndarray:
    """Orthogonal columns [f * f * 3, c] that span the lowest frequencies of RGB patches.

    Rows are ordered (row, column, colour), as `blocks.space_to_depth` does. Patches with values in
    [-1, 1] get components with standard deviations near one. Components beyond f * f * 3 are zero.
    """
    cosines, colors = _dct(factor), _dct(3)
    frequencies = [
        (u + v + _COLOR_COST * (k > 0), u, v, k)
        for u in range(factor)
        for v in range(factor)
        for k in range(3)
    ]
    basis = np.zeros((factor**2 * 3, components), np.float32)
    gain = 2.0 / (factor * np.sqrt(3.0))
    for i, (_, u, v, k) in enumerate(sorted(frequencies)[:components]):
        wave = np.einsum("i,j,k->ijk", cosines[u], cosines[v], colors[k]).reshape(-1)
        basis[:, i] = wave * gain * (_DETAIL_GAIN if i else 1.0)
    return basis


def _dct(size: int) -> np.ndarray:
    """Orthonormal rows of the DCT-II [size, size]."""
    angles = np.pi * np.outer(np.arange(size), np.arange(size) + 0.5) / size
    scale = np.full((size, 1), np.sqrt(2.0 / size))
    scale[0] = np.sqrt(1.0 / size)
    return scale * np.cos(angles)
