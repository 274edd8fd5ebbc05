"""Heads whose scenes are fields: where they start, what they cover, that they learn."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lgs_jax import settings
from lgs_jax.core import cameras as cameras_lib
from lgs_jax.core import rotations
from lgs_jax.models.scene_heads import gaussians, kinds
from lgs_jax.rendering.api import render

FIELDS = ("voxels", "triplane", "image_planes")
SMALL = {
    "near": 0.8,
    "far": 8.0,
    "initial_depth": 2.0,
    "samples": 8,
    "features": 4,
    "hidden": 8,
    "resolution": 6,
}
HEIGHT, WIDTH, VIEWS = 4, 5, 2


class Scope(nn.Module):
    """A head with nothing around it."""

    kind: str

    @nn.compact
    def __call__(self, maps, cameras, view_mask=None):
        return kinds.build({"kind": self.kind, **SMALL})(maps, cameras, view_mask)


def _cameras(batch=2):
    angles = jnp.linspace(-0.4, 0.4, VIEWS) + 0.1 * jnp.arange(batch)[:, None]
    centers = 2 * jnp.stack([jnp.sin(angles), 0.1 * angles, -jnp.cos(angles)], axis=-1)
    poses = cameras_lib.look_at(centers, jnp.zeros(3), jnp.array([0.0, -1.0, 0.0]))
    intrinsics = jnp.array([5.0, 5.0, 2.5, 2.0])
    return cameras_lib.Cameras(poses, jnp.broadcast_to(intrinsics, (batch, VIEWS, 4)))


def _maps(kind, scale=1.0):
    channels = kinds.build({"kind": kind, **SMALL}).channels
    shape = (2, VIEWS, HEIGHT, WIDTH, channels)
    return jnp.asarray(scale * np.random.default_rng(0).standard_normal(shape), jnp.float32)


def _parameters(kind, scale=0.0):
    """Those of the start, plus noise."""
    shapes = jax.eval_shape(Scope(kind).init, jax.random.key(0), _maps(kind), _cameras())
    assert shapes["params"].keys() >= {"scene_head", "scene_head_depth"}
    params = jax.jit(Scope(kind).init)(jax.random.key(0), _maps(kind), _cameras())
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: x + scale * rng.standard_normal(x.shape, "f4"), params)


def _drawer(kind):
    """(params, maps, cameras, mask) -> (scene, rendering at the cameras), compiled."""

    def draw(params, maps, cameras, mask=None):
        scene = Scope(kind).apply(params, maps, cameras, mask).check()
        return scene, render(scene, cameras, height=HEIGHT, width=WIDTH)

    return jax.jit(draw)


@pytest.fixture(scope="module", params=FIELDS)
def head(request):
    kind = request.param
    return kind, _parameters(kind, 0.3), _drawer(kind)


def test_zero_maps_give_a_grey_fog(head):
    kind, _, draw = head
    scene, rendering = draw(_parameters(kind), 0 * _maps(kind), _cameras())
    assert scene.batch_shape == (2,)
    np.testing.assert_allclose(rendering.rgb, 0.5 * rendering.alpha * jnp.ones(3), atol=1e-3)
    # The fog of density 0.5 per 2 units goes on to the far end, but what no view sees is empty.
    assert 0.3 < float(rendering.alpha.min()) <= float(rendering.alpha.max()) < 0.9


def test_moving_the_cameras_rigidly_moves_the_scene(head):
    kind, params, draw = head
    turn = rotations.matrix_from_quats(jnp.array([0.3, -0.5, 0.7, 0.2]))
    b_from_a = rotations.affine_from_parts(turn, jnp.array([0.5, -2.0, 1.0]))
    _, expected = draw(params, _maps(kind), _cameras())
    _, got = draw(params, _maps(kind), cameras_lib.transform(_cameras(), b_from_a[None, None]))
    np.testing.assert_allclose(got.rgb, expected.rgb, atol=2e-4)
    np.testing.assert_allclose(got.depth, expected.depth, rtol=1e-3)


def test_views_left_out_do_not_matter(head):
    kind, params, draw = head
    mask = jnp.array([[True, False], [True, True]])
    changed = _maps(kind).at[0, 1].set(7.0)
    same, other = (draw(params, maps, _cameras(), mask)[1] for maps in (_maps(kind), changed))
    np.testing.assert_allclose(same.rgb, other.rgb, atol=1e-6)
    everything = draw(params, changed, _cameras(), jnp.ones((2, 2), bool))[1]
    assert float(jnp.abs(everything.rgb[0] - other.rgb[0]).max()) > 1e-2
    np.testing.assert_allclose(everything.rgb[1], other.rgb[1], atol=1e-6)


def test_a_few_steps_of_training_lower_the_loss_and_reach_every_parameter(head):
    kind, params, _ = head
    # Colours that run from side to side and from top to bottom, the same in every view.
    y, x = jnp.meshgrid(jnp.linspace(0, 1, HEIGHT), jnp.linspace(0, 1, WIDTH), indexing="ij")
    truth = jnp.broadcast_to(jnp.stack([x, y, 0.2 + 0 * x], -1), (2, VIEWS, HEIGHT, WIDTH, 3))
    optimizer = optax.adam(0.05)
    variables = (params, _maps(kind, 0.1))

    @jax.jit
    def step(variables, state):
        def loss(variables):
            scene = Scope(kind).apply(*variables, _cameras())
            images = render(scene, _cameras(), height=HEIGHT, width=WIDTH).rgb
            return jnp.mean((images - truth) ** 2)

        value, slope = jax.value_and_grad(loss)(variables)
        updates, state = optimizer.update(slope, state)
        return value, slope, optax.apply_updates(variables, updates), state

    state, losses = optimizer.init(variables), []
    for _ in range(20):
        value, slope, variables, state = step(variables, state)
        losses.append(float(value))
    assert losses[-1] < 0.4 * losses[0]
    for path, leaf in jax.tree_util.tree_leaves_with_path(slope):
        assert bool(jnp.isfinite(leaf).all())
        assert float(jnp.abs(leaf).max()) > 0, jax.tree_util.keystr(path)


def test_extreme_maps_in_half_precision_give_finite_float32(head):
    kind, params, draw = head
    scene, rendering = draw(params, _maps(kind, 50.0).astype(jnp.bfloat16), _cameras())
    for leaf in jax.tree.leaves((scene, rendering.rgb)):
        assert leaf.dtype == jnp.float32
        assert bool(jnp.isfinite(leaf).all())


def test_gaussians_are_the_default_and_one_configuration_serves_all_kinds():
    shared = {"near": 0.5, "far": 50.0, "initial_depth": 3.0, "max_scale": 4.0, "resolution": 16}
    head = kinds.build(shared)
    assert head == gaussians.GaussianHead(near=0.5, far=50.0, initial_depth=3.0, max_scale=4.0)
    assert kinds.build(None) == gaussians.GaussianHead()
    for kind, cls in kinds.SCENE_HEADS.items():
        head = kinds.build({"kind": kind, **shared})
        assert type(head) is cls
        assert (head.near, head.far, head.initial_depth) == (0.5, 50.0, 3.0)
        if "resolution" in [field.name for field in dataclasses.fields(head)]:
            assert head.resolution == 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "mesh"}, r"scene_head.kind='mesh' must be one of gaussians, voxels"),
        ({"kind": "voxels", "resolutoin": 8}, "did you mean 'resolution'"),
        ({"kind": "voxels", "near": 9.0, "far": 3.0}, r"near=9.0 must be smaller than far=3.0"),
        ({"kind": "voxels", "resolution": 0}, "resolution=0 must be positive"),
        ({"kind": "triplane", "combination": "mean"}, "combination='mean'"),
        ({"kind": "image_planes", "spacing": "log"}, "spacing='log'"),
        ({"kind": "image_planes", "initial_depth": 0.1}, "initial_depth=0.1 must lie between"),
        ({"kind": "image_planes", "samples": 8.5}, "samples must be an int"),
    ],
)
def test_settings_that_do_not_fit_are_named(arguments, message):
    with pytest.raises(settings.SettingsError, match=message):
        kinds.build(arguments)
