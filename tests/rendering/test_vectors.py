"""Images and gradients against vectors that another implementation produced in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgs_jax.core import rotations
from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.rendering.api import render
from lgs_jax.rendering.splat import projection

PARAMETERS = ("means", "quats", "scales", "opacities", "colors", "viewmat", "background")
# The dense reference is offered the small scenes only: its cost is N x H x W.
CASES = [
    ("rand2k_72x56", "xla"),
    ("pix4608_64x64", "xla"),
    ("aa_depth_1k_64x64", "xla"),
    ("aa_depth_1k_64x64", "reference"),
    ("rand2k_72x56", "pallas_gpu"),
    ("rand2k_72x56", "pallas_tpu"),
    ("aa_depth_1k_64x64", "pallas_gpu"),
    ("aa_depth_1k_64x64", "pallas_tpu"),
    ("pix4608_64x64", "pallas_gpu"),
    ("pix4608_64x64", "pallas_tpu"),
]


def _load(shared, name):
    path = shared / "vectors" / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"no vector at {path}")
    with np.load(path) as vector:
        return dict(vector)


def _setup(vector):
    k = vector["in_K"]
    intrinsics = jnp.array([k[0, 0], k[1, 1], k[0, 2], k[1, 2]])
    parameters = {name: jnp.asarray(vector[f"in_{name}"]) for name in PARAMETERS}
    return parameters, intrinsics


def _scene(p, intrinsics):
    gaussians = Gaussians(p["means"], p["quats"], p["scales"], p["opacities"], p["colors"])
    return gaussians, Cameras(rotations.affine_inverse(p["viewmat"]), intrinsics)


@pytest.mark.parametrize(("name", "implementation"), CASES)
def test_image_and_every_gradient(shared, name, implementation):
    vector = _load(shared, name)
    parameters, intrinsics = _setup(vector)
    width, height = (int(v) for v in vector["in_wh"])
    with_depth = bool(vector["in_depth"])

    def run(p):
        scene, cameras = _scene(p, intrinsics)
        out = render(
            scene,
            cameras,
            height=height,
            width=width,
            background=p["background"],
            antialiased=bool(vector["in_antialiased"]),
            depth_mode="accumulated" if with_depth else None,
            implementation=implementation,
        )
        image = jnp.concatenate([out.rgb, out.depth], axis=-1) if with_depth else out.rgb
        loss = jnp.sum(image * vector["cot_render"]) + jnp.sum(out.alpha * vector["cot_alpha"])
        return loss, (image, out.alpha)

    (_, (image, alpha)), gradients = jax.jit(jax.value_and_grad(run, has_aux=True))(parameters)
    np.testing.assert_allclose(image, vector["f64_render"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(alpha, vector["f64_alpha"], rtol=0, atol=1e-5)
    for parameter in PARAMETERS:
        expected = vector[f"f64_v_{parameter}"]
        error = np.linalg.norm(gradients[parameter] - expected) / np.linalg.norm(expected)
        assert error <= 2e-5, parameter


def test_orthographic_projection(shared):
    vector = _load(shared, "proj_ortho_256")
    width, height = (int(v) for v in vector["in_wh"])
    k = vector["in_K"]
    intrinsics = jnp.array([k[0, 0], k[1, 1], k[0, 2], k[1, 2]])
    names = ("means", "quats", "scales", "viewmat")
    colors, opacities = vector["in_colors"], vector["in_opacities"]
    on_screen = (vector["radii"] > 0).all(axis=-1)

    def run(p):
        scene, cameras = _scene({**p, "colors": colors, "opacities": opacities}, intrinsics)
        s = projection.project(
            scene,
            cameras,
            height=height,
            width=width,
            near=0.01,
            far=1e10,
            camera_model="orthographic",
        )
        xy = s.sharp_x * s.shear
        return {
            "means2d": jnp.stack([s.x, s.y], axis=-1),
            "conics": jnp.stack([s.sharp_x, xy, s.sharp_y + xy * s.shear], axis=-1),
            "depths": s.depths,
            "compensations": s.compensation,
        }

    outputs, pullback = jax.vjp(run, {name: jnp.asarray(vector[f"in_{name}"]) for name in names})
    for name, value in outputs.items():
        np.testing.assert_allclose(
            value[on_screen], vector[name][on_screen], rtol=1e-4, atol=1e-4, err_msg=name
        )
    cotangents = {n: _masked(vector[f"cot_{n}"], on_screen) for n in outputs}
    (gradients,) = pullback(cotangents)
    for name in names:
        expected = vector[f"v_{name}"]
        error = np.linalg.norm(gradients[name] - expected) / np.linalg.norm(expected)
        assert error <= 2e-5, (name, error)


def _masked(array, rows):
    return jnp.asarray(np.where(rows.reshape(-1, *(1,) * (array.ndim - 1)), array, 0))
