"""A scene that every format can hold, and comparisons of what comes back."""

import numpy as np

from lgs_jax.core.gaussians import Gaussians


def make(count=50, seed=0) -> Gaussians:
    rng = np.random.default_rng(seed)
    return Gaussians(
        means=rng.normal(size=(count, 3)).astype(np.float32) * 10,
        quats=rng.normal(size=(count, 4)).astype(np.float32),
        scales=np.exp(rng.uniform(-6, 2, size=(count, 3))).astype(np.float32),
        opacities=rng.uniform(0.001, 0.999, size=count).astype(np.float32),
        colors=rng.uniform(-0.2, 1.3, size=(count, 3)).astype(np.float32),
    )


def angles(a, b) -> np.ndarray:
    """Angles in radians between rotations, quaternions wxyz [N, 4] of any length and sign."""
    a, b = (np.asarray(q, np.float64) for q in (a, b))
    a, b = (q / np.linalg.norm(q, axis=-1, keepdims=True) for q in (a, b))
    apart = np.minimum(np.linalg.norm(a - b, axis=-1), np.linalg.norm(a + b, axis=-1))
    return 4 * np.arcsin(apart / 2)
