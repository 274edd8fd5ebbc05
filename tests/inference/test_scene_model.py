"""What goes in and comes out of a loaded model: frames, known views, keys, refusals."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_autoencoder as tiny

from lgs_jax import settings, tasks
from lgs_jax.core import cameras as cameras_lib
from lgs_jax.core import gaussians
from lgs_jax.inference import load, scene_model
from lgs_jax.rendering import api

DENOISER = {
    "latent_channels": 2,
    "compression": 4,
    "num_classes": 2,
    "embedding_size": 8,
    "widths": (8,),
    "blocks_per_level": 1,
    "middle_blocks": 0,
    "attention_levels": (),
    "num_heads": 1,
}


def make_model(frozen=None, **diffusion):
    frozen = frozen or tiny.make()
    config = {
        "task": "diffusion",
        "data": tiny.CONFIG["data"],
        "model": DENOISER,
        "diffusion": diffusion,
    }
    task = tasks.make_task("diffusion", config, frozen)
    params = tiny.invent(jax.eval_shape(task.init, jax.random.key(0)))
    return scene_model.SceneModel(frozen, task, params)


@pytest.fixture(scope="module")
def model():
    return make_model(max_known=1)


@pytest.fixture(scope="module")
def given():
    """Photographs and cameras in a world that is not the scene's."""
    images, cameras = tiny.make_views(1)
    world = jnp.diag(jnp.array([3.0, 3.0, 3.0, 1.0])).at[:3, 3].set(jnp.array([5.0, -2.0, 1.0]))
    return np.asarray(images[0]), cameras_lib.transform(cameras[0], world)


def assert_close(a, b, tolerance=1e-4):
    for name in vars(a):
        x, y = np.asarray(getattr(a, name)), np.asarray(getattr(b, name))
        np.testing.assert_allclose(x, y, atol=tolerance * max(1.0, np.abs(y).max()), err_msg=name)


def test_reconstruction_moves_and_scales_with_the_world(model, given):
    images, cameras = given
    scene = model.reconstruct(images, cameras)
    assert scene.num_gaussians == len(images) * np.prod(model.image_size)
    turn = cameras_lib.look_at(
        jnp.array([1.0, 2.0, 3.0]), jnp.zeros(3), jnp.array([0.0, -1.0, 0.0])
    )
    move = turn @ jnp.diag(jnp.array([2.0, 2.0, 2.0, 1.0]))
    moved = model.reconstruct(images, cameras_lib.transform(cameras, move))
    wanted = gaussians.transform(scene, move)
    assert_close(
        dataclasses.replace(moved, quats=moved.quats**2),  # q and -q are one rotation
        dataclasses.replace(wanted, quats=wanted.quats**2),
        2e-4,
    )


@pytest.mark.parametrize("kind", ["voxels", "triplane", "image_planes"])
def test_fields_come_out_in_the_world_of_the_cameras(given, kind):
    images, cameras = given
    model = make_model(tiny.make(kind), max_known=1)
    scene = model.reconstruct(images, cameras)
    sampled = model.sample(
        jax.random.key(0), cameras[1:], images=images[:1], context_cameras=cameras[:1], steps=2
    )
    assert sampled.batch_shape == (1,)
    height, width = model.image_size
    inside = model._to_scene(cameras)
    latents = model.encode(images, cameras)
    local = model.frozen.decode(latents[None], inside.cameras[None])
    wanted = api.render(local, inside.cameras[None], height=height, width=width)
    got = api.render(scene, cameras, height=height, width=width)
    np.testing.assert_allclose(got.rgb, wanted.rgb[0], atol=1e-3)
    assert np.ptp(np.asarray(got.rgb)) > 0.01


def test_splats_lie_on_the_rays_of_their_cameras(model, given):
    images, cameras = given
    scene = model.reconstruct(images, cameras)
    height, width = model.image_size
    means = np.asarray(scene.means).reshape(len(images), height, width, 3)
    local = np.einsum(
        "vij,vhwj->vhwi",
        np.asarray(cameras.cam_from_world)[:, :3, :3],
        means - np.asarray(cameras.centers)[:, None, None],
    )
    fx, fy, cx, cy = np.asarray(cameras.intrinsics)[:, :, None, None].transpose(1, 0, 2, 3)
    u = fx * local[..., 0] / local[..., 2] + cx
    v = fy * local[..., 1] / local[..., 2] + cy
    np.testing.assert_allclose(u, np.broadcast_to(np.arange(width) + 0.5, u.shape), atol=1e-2)
    rows = (np.arange(height) + 0.5)[:, None]
    np.testing.assert_allclose(v, np.broadcast_to(rows, v.shape), atol=1e-2)


def test_larger_photographs_are_cropped_and_resized(model, given):
    images, cameras = given
    large = np.repeat(np.repeat(np.rint(images * 255).astype(np.uint8), 2, axis=1), 2, axis=2)
    bars = np.pad(large, ((0, 0), (0, 0), (6, 6), (0, 0)))
    shifted = cameras_lib.resize(cameras, scale_x=2.0, scale_y=2.0)
    shifted = cameras_lib.crop(shifted, left=-6.0, top=0.0)
    _, fitted = model._prepare(bars, shifted)
    np.testing.assert_allclose(fitted.intrinsics, cameras.intrinsics, rtol=1e-5)
    assert model.encode(bars, shifted).shape == (len(images), *model.frozen.latent_shape)


def test_sample_i_depends_on_the_key_and_i_alone(model, given):
    _, cameras = given
    key = jax.random.key(3)
    three = model.sample(key, cameras, steps=3, num_samples=3)
    one = model.sample(key, cameras, steps=3)
    assert three.batch_shape == (3,)
    assert_close(one[0], three[0])
    assert np.abs(np.asarray(three.colors[0] - three.colors[1])).max() > 1e-3
    other = model.sample(jax.random.key(4), cameras, steps=3)
    assert np.abs(np.asarray(other.colors[0] - one.colors[0])).max() > 1e-3


def test_classes_by_name_by_number_and_for_each_sample(model, given, monkeypatch):
    monkeypatch.setattr(model, "class_names", ("cat", "dog"))
    sample = functools.partial(model.sample, jax.random.key(1), given[1], steps=2, num_samples=2)
    by_name, by_number, mixed, other = (
        np.asarray(sample(class_label=label).means)
        for label in ("dog", np.array(1), ["cat", "dog"], jnp.zeros(2, jnp.int32))
    )
    np.testing.assert_array_equal(by_name, by_number)
    np.testing.assert_array_equal(mixed[1], by_name[1])
    np.testing.assert_array_equal(mixed[0], other[0])
    assert np.abs(other[1] - by_name[1]).max() > 1e-4
    with pytest.raises(ValueError, match=r"class_label='cow' .* knows 0 to 1 \(cat, dog\)"):
        sample(class_label="cow")
    with pytest.raises(ValueError, match="3 class labels for num_samples=2"):
        sample(class_label=[0, 1, 0])


def test_known_views_reach_the_denoiser_clean_and_the_others_not(model, given, monkeypatch):
    """The sampler is replaced by one that returns what it was told."""
    images, cameras = given

    def told(params, condition, keys, sampler, guidance_scale, autoguidance, guide):
        assert autoguidance is guide is None
        known = jnp.where(condition.known_mask[:, :, None, None, None], condition.known, 0.0)
        return known + 0.25 * condition.class_label + sampler.steps + guidance_scale

    monkeypatch.setattr(model.task, "sample", told)
    scene = scene_model.SceneModel(model.frozen, model.task, model.params).sample(
        jax.random.key(0),
        cameras[1:],
        images=images[:1],
        context_cameras=cameras[:1],
        class_label=1,
        steps=2,
        guidance_scale=0.5,
    )
    frame = model._to_scene(cameras)
    mask = jnp.arange(len(images)) == 0
    blank = jnp.asarray(images).at[1:].set(0.7)  # the encoder must not look at these
    known = model._encode(model.frozen, blank[None], frame.cameras[None], mask[None])
    latents = jnp.where(mask[None, :, None, None, None], known, 0.0) + 2.75
    wanted = model._decode(model.frozen, latents, frame.cameras[None])
    assert_close(scene, gaussians.transform(wanted, frame.world_from_scene))


def test_another_guidance_scale_does_not_compile_again(model, given):
    sample = functools.partial(model.sample, jax.random.key(2), given[1], class_label=1, steps=2)
    three, five = (np.asarray(sample(guidance_scale=scale).colors) for scale in (3.0, 5.0))
    assert np.abs(three - five).max() > 1e-4
    compiled = model._sample._cache_size()
    sample(guidance_scale=4.0)
    assert model._sample._cache_size() == compiled


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cameras": None}, "cameras must be lgs_jax.Cameras"),
        ({"count": 1}, "give 2 cameras"),
        ({"images": True}, "images without context_cameras"),
        ({"context": True}, "context_cameras without images"),
        ({"known": 2}, "2 known views are more than the 1"),
        ({"class_label": 2}, "class_label=2 .*0 to 1"),
        ({"num_samples": 0}, "num_samples=0"),
        ({"steps": "a"}, "steps='a' must be a whole number"),
        ({"class_label": 0.5}, r"class_label=0\.5 is not a class of this model"),
        ({"num_samples": "two"}, "num_samples='two' must be a whole number"),
        ({"guidance_scale": -1.0}, "guidance_scale=-1.0 must be a number, finite and"),
        ({"guidance_scale": np.nan}, "guidance_scale=nan must be a number, finite and"),
        ({"guidance_scale": "a"}, "guidance_scale='a' must be a number"),
        ({"num_samples": True}, "num_samples=True must be a whole number"),
        ({"class_label": True}, "class_label=True is not a class of this model"),
        ({"pose": np.nan}, "world_from_cam holds values that are not finite"),
        ({"pose": np.diag([1, -1, 1, 1])}, r"world_from_cam\[0\]: the pose mirrors"),
        ({"pose": np.diag([2, 2, 2, 1])}, r"world_from_cam\[0\]: the pose is no rigid motion"),
        ({"focal": 0}, "positive focal lengths; the smallest is 0"),
    ],
)
def test_refusals(model, given, change, message):
    images, cameras = given
    own = ("class_label", "num_samples", "guidance_scale", "steps")
    options = {name: value for name, value in change.items() if name in own}
    where = cameras
    if "cameras" in change:
        where = None
    if "count" in change:
        where = cameras[:1]
    if "pose" in change:
        moved = np.asarray(cameras.world_from_cam) @ (change["pose"] * np.ones((4, 4)))
        where = dataclasses.replace(cameras, world_from_cam=moved)
    if "focal" in change:
        where = dataclasses.replace(cameras, intrinsics=cameras.intrinsics * change["focal"])
    if "images" in change:
        options["images"] = images[:1]
    if "context" in change:
        options["context_cameras"] = cameras[:1]
    if "known" in change:
        options |= {"images": images, "context_cameras": cameras}
        where = cameras[:0]
    with pytest.raises(ValueError, match=message):
        model.sample(jax.random.key(0), where, **options)


def test_guidance_needs_a_model_trained_for_it(given):
    images, cameras = given
    always_shown = make_model(unconditional=0.0)
    with pytest.raises(ValueError, match="unconditional > 0"):
        always_shown.sample(
            jax.random.key(0),
            cameras[1:],
            images=images[:1],
            context_cameras=cameras[:1],
            guidance_scale=2.0,
        )
    with pytest.raises(ValueError, match=r"always been shown a view .* give images and context"):
        always_shown.sample(jax.random.key(0), cameras, guidance_scale=1.0)
    always_told = make_model(class_drop=0.0)
    with pytest.raises(ValueError, match="always been told the class"):
        always_told.sample(jax.random.key(0), cameras, class_label=[0, None], num_samples=2)


def test_samples_that_are_not_finite_are_refused(model, given):
    broken = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), model.params)
    diverged = scene_model.SceneModel(model.frozen, model.task, broken)
    with pytest.raises(ValueError, match="latents hold values that are not finite"):
        diverged.sample(jax.random.key(0), given[1], steps=3)


def test_an_autoencoder_alone_does_not_sample(given):
    with pytest.raises(ValueError, match=r"configs/diffusion\.py"):
        scene_model.SceneModel(tiny.make()).sample(jax.random.key(0), given[1])


def test_latents_and_images_are_checked(model, given):
    images, cameras = given
    with pytest.raises(ValueError, match="latents have shape"):
        model.decode(jnp.zeros((3, 4, 4, 2)), cameras)
    with pytest.raises(ValueError, match="latents holds values"):
        model.decode(jnp.full((len(images), *model.frozen.latent_shape), jnp.nan), cameras)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        model.encode(images * 255, cameras)
    with pytest.raises(ValueError, match="images have shape"):
        model.encode(images[:1], cameras)
    with pytest.raises(settings.SettingsError, match="max_known=9"):
        make_model(max_known=9)


def test_images_of_half_precision_are_taken(model, given):
    images, cameras = given
    half = jnp.asarray(images, jnp.bfloat16)
    expected = model.encode(np.asarray(half, np.float32), cameras)
    np.testing.assert_array_equal(model.encode(half, cameras), expected)


def test_a_run_opens_with_its_own_autoencoder_only(tmp_path, monkeypatch):
    """The step of the autoencoder and the statistics of its latents must be those of the run."""
    saved = load.SavedAutoencoder(
        folder=tmp_path, step=tiny.STATS.step, config=tiny.CONFIG, plain=tiny.make()
    )
    monkeypatch.setattr(load, "open_autoencoder", lambda source: saved)
    frozen = load.autoencoder_of_run("somewhere", tiny.STATS)
    np.testing.assert_allclose(frozen.std, tiny.STATS.std)
    with pytest.raises(settings.SettingsError, match=r"\(step 3\) is not the one .*\(step 4"):
        load.autoencoder_of_run("somewhere", dataclasses.replace(tiny.STATS, step=4))
    kept = dataclasses.replace(tiny.STATS, mean=(0.5, 1.0))
    (tmp_path / "latent_stats.json").write_text(json.dumps(kept.to_json()))
    with pytest.raises(settings.SettingsError, match="is not the one"):
        load.autoencoder_of_run("somewhere", tiny.STATS)
