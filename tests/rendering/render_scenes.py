"""Random scenes of splats, and cameras that look at them."""

import jax.numpy as jnp
import numpy as np

from lgs_jax.core import cameras as camera_lib
from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians


def make_scene(seed, *, lead=(), num=60, channels=3, scale=0.15, opacity=(0.1, 0.9), z=(2.0, 5.0)):
    rng = np.random.default_rng(seed)
    depth = rng.uniform(*z, (*lead, num, 1))
    means = np.concatenate([rng.uniform(-0.6, 0.6, (*lead, num, 2)) * np.abs(depth), depth], -1)
    arrays = (
        means,
        rng.normal(size=(*lead, num, 4)),
        scale * np.exp(0.5 * rng.normal(size=(*lead, num, 3))),
        rng.uniform(*opacity, (*lead, num)),
        rng.uniform(size=(*lead, num, channels)),
    )
    return Gaussians(*(jnp.asarray(a, jnp.float32) for a in arrays))


def make_cameras(height, width, lead=(), seed=0):
    rng = np.random.default_rng(seed)
    center = jnp.asarray(0.2 * rng.normal(size=(*lead, 3)), jnp.float32)
    pose = camera_lib.look_at(center, jnp.array([0.0, 0.1, 4.0]), jnp.array([0.0, -1.0, 0.0]))
    focal = 0.9 * width
    k = jnp.array([focal, 1.1 * focal, 0.48 * width, 0.53 * height])
    return Cameras(pose, jnp.broadcast_to(k, (*lead, 4)))
