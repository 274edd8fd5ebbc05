"""Small random scenes of every kind of field, and cameras that look at them."""

import jax
import jax.numpy as jnp
import numpy as np

from lgs_jax.core import cameras as cameras_lib
from lgs_jax.core import rotations
from lgs_jax.rendering.volume import image_planes, radiance, region, triplane, voxels
from lgs_jax.rendering.volume.integrate import Samples

KINDS = ("voxels", "triplane", "image_planes")


def cameras(lead=(), views=3, size=(4, 5), dtype=np.float32):
    """Cameras [..., V] on an arc of radius 2 around the origin, each scene's a little elsewhere."""
    angles = np.linspace(-0.5, 0.5, views) + 0.05 * np.arange(max(lead, default=1))[:, None]
    centers = 2 * np.stack([np.sin(angles), 0.2 * angles, -np.cos(angles)], -1)
    poses = cameras_lib.look_at(centers, np.zeros(3), np.array([0.0, -1.0, 0.0]))
    height, width = size
    intrinsics = np.broadcast_to([width, 1.1 * height, width / 2, height / 2], (*angles.shape, 4))
    both = cameras_lib.Cameras(jnp.asarray(poses, dtype), jnp.asarray(intrinsics, dtype))
    return both if lead else both[0]


def make(kind, lead=(), dtype=np.float32, contracted=True):
    """A scene with leading dimensions `lead`, none or one."""
    rng = np.random.default_rng(0)

    def array(*shape, low=-1.0, high=1.0):
        return jnp.asarray(rng.uniform(low, high, (*lead, *shape)), dtype)

    samples = Samples(
        jnp.full(lead, 0.8, dtype), jnp.full(lead, 6.0, dtype), count=6, spacing="disparity"
    )
    turn = rotations.matrix_from_quats(array(4))
    cube = region.Region(rotations.affine_from_parts(0.8 * turn, array(3)), contracted)
    mlp = radiance.RadianceMlp(
        kernel_in=array(5, 4),
        bias_in=array(4),
        kernel_out=array(4, 4),
        bias_out=array(4),
        unit=array(low=0.5, high=1.0),
    )
    if kind == "voxels":
        density, colors = array(3, 4, 5, low=0.0, high=2.0), array(3, 4, 5, 3, low=0.0)
        return voxels.VoxelGrid(density, colors, cube, samples)
    if kind == "triplane":
        return triplane.TriPlane(array(3, 4, 4, 5), mlp, cube, samples)
    views = cameras(lead, views=2, size=(6, 7), dtype=dtype)
    kernel = array(image_planes.DEPTH_FEATURES, 2)
    weights = array(2, low=0.5)
    return image_planes.ImagePlanes(array(2, 6, 7, 5), weights, views, kernel, mlp, samples)


def similarity(scale=1.7, dtype=np.float32):
    """A turn, a shift and a scale [4, 4]."""
    turn = rotations.matrix_from_quats(jnp.array([0.3, -0.5, 0.7, 0.2], dtype))
    return rotations.affine_from_parts(scale * turn, jnp.array([0.5, -2.0, 1.0], dtype))


def points(num=40, dtype=np.float32):
    """Points around the origin, some of them far away or behind the cameras."""
    rng = np.random.default_rng(3)
    return jnp.asarray(rng.normal(size=(num, 3)) * rng.uniform(0.2, 4, (num, 1)), dtype)


def float64(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)
