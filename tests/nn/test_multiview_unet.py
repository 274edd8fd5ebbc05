import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgs_jax import settings
from lgs_jax.core import cameras as cameras_lib
from lgs_jax.core import rays
from lgs_jax.models import denoiser
from lgs_jax.nn import multiview_unet
from lgs_jax.training import planning_targets

SIZE = (16, 24)
SMALL = {"widths": (8, 12, 16), "blocks_per_level": 1, "middle_blocks": 1, "num_heads": 2}


def _cameras(batch, views):
    angles = jnp.linspace(-0.4, 0.4, views) + 0.1 * jnp.arange(batch)[:, None]
    centers = 2 * jnp.stack([jnp.sin(angles), 0.1 * angles, -jnp.cos(angles)], axis=-1)
    poses = cameras_lib.look_at(centers, jnp.zeros(3), jnp.array([0.0, -1.0, 0.0]))
    intrinsics = jnp.broadcast_to(jnp.array([20.0, 20.0, 12.0, 8.0]), (batch, views, 4))
    return cameras_lib.Cameras(poses, intrinsics)


def _apply(unet, *args):
    """The U-Net, with none of its parameters zero, as a compiled function of its inputs."""
    x, cameras, *rest = args
    shapes = jax.eval_shape(lambda: unet.init(jax.random.key(0), x, cameras, SIZE, *rest))
    leaves, treedef = jax.tree.flatten(shapes)
    rng = np.random.default_rng(0)
    variables = treedef.unflatten([0.2 * rng.standard_normal(s.shape, "f4") for s in leaves])
    compiled = jax.jit(lambda v, x, c, *rest: unet.apply(v, x, c, SIZE, *rest))
    return lambda x, cameras, *rest: compiled(variables, x, cameras, *rest)


def _random_maps(level, views=3, channels=5):
    height, width = (length >> level for length in SIZE)
    return jax.random.normal(jax.random.key(0), (2, views, height, width, channels))


@pytest.mark.parametrize(
    ("in_level", "out_level"), [(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (1, 1), (2, 2)]
)
def test_enters_and_leaves_at_the_levels_asked_for(in_level, out_level):
    unet = multiview_unet.MultiViewUNet(
        3, in_level=in_level, out_level=out_level, attention_levels=(2,), **SMALL
    )
    x = _random_maps(in_level)
    shapes = jax.eval_shape(
        lambda: unet.init_with_output(jax.random.key(0), x, _cameras(2, 3), SIZE)
    )
    height, width = (length >> out_level for length in SIZE)
    assert shapes[0].shape == (2, 3, height, width, 3)
    names = set(shapes[1]["params"])
    # Skips double the input of a block on the way up where the way down has the level too.
    for level in range(out_level, 3):
        kernel = shapes[1]["params"][f"up_{level}_block_0"]["residual"]["conv_in"]["kernel"]
        assert kernel.shape[2] == SMALL["widths"][level] * (1 + (level >= in_level))
    assert {f"down_{level}_rays" for level in range(in_level, 3)} <= names


@pytest.mark.parametrize("mode", ["resnet", ("attention", "full")])
def test_permutes_with_the_views_and_ignores_views_left_out(mode):
    settings = {**SMALL, "widths": (8, 12), "attention_levels": (1,)}
    unet = multiview_unet.MultiViewUNet(3, in_level=1, cross_view=mode, **settings)
    x, cameras = _random_maps(1), _cameras(2, 3)
    apply = _apply(unet, x, cameras)
    got = apply(x, cameras)
    order = jnp.array([2, 0, 1])
    permuted = apply(x[:, order], cameras[:, order])
    scale = float(jnp.abs(got).max())
    np.testing.assert_allclose(permuted, got[:, order], atol=1e-5 * scale)

    mask = jnp.array([[True, False, True]] * 2)
    kept, alone = apply(x, cameras, mask), apply(x[:, ::2], cameras[:, ::2])
    np.testing.assert_allclose(kept[:, ::2], alone, atol=1e-5 * scale)
    assert float(jnp.abs(kept - got)[:, ::2].max()) > 1e-3 * scale
    # Whatever the views left out hold, not one bit of the others changes.
    changed = apply(x.at[:, 1].mul(-3.0), cameras, mask)
    np.testing.assert_array_equal(changed[:, ::2], kept[:, ::2])


def test_what_is_computed_again_changes_memory_and_no_gradient():
    x, cameras = _random_maps(2), _cameras(2, 3)
    settings = {"widths": (8,), "blocks_per_level": 1, "middle_blocks": 0, "num_heads": 2}
    # On accelerators XLA computes again what the program says; here it has to be told to.
    simulated = planning_targets.open_target("1", memory=1.0).compiler_options
    gradients, convolutions, products, temporaries = [], [], [], []
    for remat in multiview_unet.REMATS:
        unet = multiview_unet.MultiViewUNet(3, attention_levels=(0,), remat=remat, **settings)
        loss = lambda v, u=unet: jnp.sum(u.apply(v, x, cameras, SIZE) ** 2)  # noqa: E731
        shapes = jax.eval_shape(lambda u=unet: u.init(jax.random.key(0), x, cameras, SIZE))
        rng = np.random.default_rng(0)
        variables = jax.tree.map(lambda s: 0.2 * rng.standard_normal(s.shape, "f4"), shapes)  # noqa: B023
        traced = jax.jit(jax.grad(loss)).trace(variables)
        program = str(traced.jaxpr)
        assert ("remat" in program) == (remat != "none")
        convolutions.append(program.count("conv_general_dilated["))
        products.append(program.count("dot_general["))
        compiled = traced.lower().compile(dict(simulated))
        temporaries.append(compiled.memory_analysis().temp_size_in_bytes)
        gradients.append(compiled(variables))
    for counted in (convolutions, products):
        none, dots, full = counted
        assert none == dots < full
    none, dots, full = temporaries
    assert none > dots > full
    scale = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradients))
    # The same operations in another order of fusion: rounding only.
    for others in gradients[1:]:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6 * scale),
            gradients[0],
            others,
        )


@pytest.mark.parametrize("unknown", ["dts", True, "True"])
def test_an_unknown_choice_of_what_is_computed_again_is_refused(unknown):
    message = f"remat={unknown!r} must be one of ('none', 'dots', 'full')"
    with pytest.raises(ValueError, match=re.escape(message)):
        multiview_unet.MultiViewUNet(3, remat=unknown)
    with pytest.raises(settings.SettingsError, match="'none', 'dots', 'full', got"):
        settings.build(denoiser.Denoiser, {"remat": unknown}, "config.model")


def test_embedding_per_scene_equals_the_same_embedding_for_every_view():
    settings = {**SMALL, "widths": (8, 12), "attention_levels": (), "cross_view": "none"}
    unet = multiview_unet.MultiViewUNet(3, **settings)
    x, cameras = _random_maps(0), _cameras(2, 3)
    embedding = jax.random.normal(jax.random.key(3), (2, 6))
    apply = _apply(unet, x, cameras, None, embedding)
    got = apply(x, cameras, None, embedding)
    per_view = jnp.repeat(embedding[:, None], 3, axis=1)
    np.testing.assert_allclose(apply(x, cameras, None, per_view), got, atol=1e-5)
    change = jnp.abs(apply(x, cameras, None, per_view.at[0, 1].add(1.0)) - got)
    assert float(change[0, 1].max()) > 1e-3
    assert float(change.at[0, 1].set(0.0).max()) == 0.0


def test_rays_of_a_coarse_map_pass_through_the_centres_of_its_pixels():
    cameras = _cameras(1, 2)
    coarse = multiview_unet._rays_of_map(cameras, SIZE, (8, 12))
    # The centre of a coarse pixel is the corner of four fine ones: sample the image twice as fine.
    fine = rays.plucker(cameras_lib.resize(cameras, scale_x=1.5, scale_y=1.5), 24, 36)
    np.testing.assert_allclose(coarse, fine[:, :, 1::3, 1::3], atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"in_level": 3}, "in_level=3 .*widths"),
        ({"widths": (8, 10, 16)}, "10 must be a positive multiple of 4"),
        ({"num_heads": 3, "attention_levels": (2,)}, "num_heads=3 .*width 16 of level 2"),
        ({"attention_levels": (4,)}, "attention_levels"),
        ({"cross_view": "mean"}, "cross_view='mean'"),
        ({"cross_view": ("resnet",)}, "each of the 3 levels"),
        ({"dtype": "float16"}, "dtype='float16'"),
        ({"blocks_per_level": 0}, "blocks_per_level=0"),
        ({"middle_blocks": -1}, "middle_blocks=-1"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        multiview_unet.MultiViewUNet(3, **{**SMALL, "attention_levels": (), **settings})


def test_maps_that_cannot_be_halved_are_named():
    unet = multiview_unet.MultiViewUNet(3, attention_levels=(), **SMALL)
    with pytest.raises(ValueError, match="6 x 8 cannot be halved 2 times"):
        unet.init(jax.random.key(0), jnp.zeros((1, 1, 6, 8, 3)), _cameras(1, 1), (6, 8))
