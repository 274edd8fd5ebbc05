"""Stage 2: the loss is what it says, conditions do not leak, samples follow the denoiser."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_autoencoder as tiny

from lgs_jax import settings
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.metrics.mean import Mean
from lgs_jax.rendering.api import render
from lgs_jax.tasks import denoising, diffusion, diffusion_settings, make_task, scene_visuals, views

LATENTS = (tiny.VIEWS, 4, 4, 2)


def make_config(**groups) -> dict:
    config = {
        "task": "diffusion",
        "data": tiny.CONFIG["data"],
        "model": {
            "latent_channels": 2,
            "compression": 4,
            "num_classes": 2,
            "embedding_size": 8,
            "widths": (8,),
            "blocks_per_level": 1,
            "middle_blocks": 0,
            "attention_levels": (),
            "num_heads": 1,
        },
        "diffusion": {},
        "sampler": {"steps": 3},
    }
    return config | {name: config[name] | changes for name, changes in groups.items()}


def make(frozen, **groups):
    return make_task("diffusion", make_config(**groups), frozen)


@pytest.fixture(scope="module")
def frozen():
    return tiny.make()


@pytest.fixture(scope="module")
def task(frozen):
    return make(frozen)


@pytest.fixture(scope="module")
def params(task):
    return tiny.invent(jax.eval_shape(task.init, jax.random.key(0)))


@pytest.fixture(scope="module")
def posterior(frozen):
    """Of the batch's latents, by the scenes and views."""
    images, cameras = tiny.make_views(6)
    images = jnp.floor(images * 255) / 255
    return jax.jit(lambda frozen: frozen.encode(images, cameras))(frozen)


def stub(monkeypatch, task, output):
    """Replaces the network by a function (z, log_snr, condition) -> output."""
    monkeypatch.setattr(task, "raw", lambda _, z, log_snr, condition: output(z, log_snr, condition))


def test_loss_of_a_network_that_knows_the_answer(frozen, posterior, monkeypatch):
    task = make(frozen, diffusion={"kind": "x", "weighting": "uniform"})
    batch, variance = tiny.make_batch(6), np.exp(posterior.log_var)

    @jax.jit
    def loss(knowledge):
        stub(monkeypatch, task, lambda *_: knowledge * posterior.mean)
        return task.loss({}, batch, jax.random.key(0), frozen)

    total, terms = loss(1.0)
    assert total == terms["x_mse"]
    # What is left is the posterior's own noise: the mean of 384 squares varies by 7 %, and their
    # unequal variances make it more.
    assert 0.6 < total / variance.mean() < 1.4
    zero, terms = loss(0.0)
    expected = (np.square(posterior.mean) + variance).mean()
    assert 0.8 < zero / expected < 1.2
    assert 0 <= terms["known_views"] <= tiny.VIEWS


@pytest.mark.parametrize("process", ["vp", "flow"])
def test_noisy_latents_have_their_level_and_their_weight(process, frozen, posterior, monkeypatch):
    options = {"process": process, "kind": "eps", "weighting": "min_snr", "gamma": 2.0}
    task = make(frozen, diffusion=options | {"schedule": "flow"})

    @jax.jit
    def loss(batch):
        seen = {}

        def record(z, log_snr, condition):
            seen.update(z=z, log_snr=log_snr)
            return jnp.zeros_like(z)

        stub(monkeypatch, task, record)
        return *task.loss({}, batch, jax.random.key(3), frozen), seen

    total, terms, seen = loss(tiny.make_batch(6))
    log_snr = np.asarray(seen["log_snr"], np.float64)
    alpha = np.exp(log_snr / 2) / (1 + np.exp(log_snr / 2))
    sigma = 1 - alpha
    if process == "vp":
        alpha, sigma = (1 / np.sqrt(1 + np.exp(-s * log_snr)) for s in (1, -1))
    second_moment = (np.square(posterior.mean) + np.exp(posterior.log_var)).mean((1, 2, 3, 4))
    # Per scene means of 64 squares of noise, which vary by 18 %, and a mixed term.
    ratios = np.square(seen["z"]).mean((1, 2, 3, 4)) / (alpha**2 * second_moment + sigma**2)
    np.testing.assert_allclose(ratios, 1.0, atol=0.7)
    np.testing.assert_allclose(ratios.mean(), 1.0, atol=0.25)
    # The errors are those of eps, about 1; min(snr, 2) on the error of x is min(1, 2 / snr) on it.
    weight = np.minimum(1.0, 2.0 * np.exp(-log_snr))
    assert 0.5 < total / weight.mean() < 1.5
    assert 0.8 < terms["eps_mse"] < 1.2
    assert np.ptp(log_snr) > 5  # stratified: from nearly data to nearly noise


@pytest.mark.parametrize("schedule", ["cosine", "linear", "flow"])
def test_the_sigmoid_loss_does_not_depend_on_the_schedule(schedule):
    """Draws uniform in log-SNR with the published weight give the same mean, by another formula."""
    options = diffusion_settings.DiffusionSettings(
        kind="eps",
        weighting="sigmoid",
        bias=1.0,
        schedule=schedule,
        log_snr_min=-8.0,
        log_snr_max=6.0,
    )
    drawn = options.make_schedule()((np.arange(20_000) + 0.5) / 20_000)
    uniform = -8.0 + 14.0 * (np.arange(20_000) + 0.5) / 20_000

    def error(log_snr):
        return 1 + np.sin(log_snr)

    wanted = np.mean(error(uniform) / (1 + np.exp(uniform - 1.0)))
    found = np.mean(options.weight(drawn) * error(drawn))
    np.testing.assert_allclose(found, wanted, rtol=1e-3)  # midpoint rule, steep at the ends


def test_gradients_are_finite_and_reach_every_parameter(task, params, frozen):
    batch = tiny.make_batch() | {"class_label": np.int32([0, 1])}
    gradient = jax.jit(jax.grad(lambda p, key: task.loss(p, batch, key, frozen)[0]))
    total = jax.tree.map(jnp.zeros_like, params)
    for seed in range(4):  # rows of the class embedding and the mask take turns
        total = jax.tree.map(
            lambda a, b: a + jnp.abs(b), total, gradient(params, jax.random.key(seed))
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(total):
        assert np.isfinite(leaf).all(), path
        assert leaf.max() > 0, path


def test_a_condition_knows_nothing_of_other_views(task, frozen):
    images, cameras = tiny.make_views()
    encode = jax.jit(task.encode_known)
    changed = images.at[:, 1].set(1 - images[:, 1])
    label = jnp.zeros(2, jnp.int32)

    def known(images, mask):
        return encode(frozen, views.Views(images, cameras), jnp.array([mask] * 2), label).known

    alone = known(images, [True, False])
    np.testing.assert_array_equal(known(changed, [True, False])[:, 0], alone[:, 0])
    together = known(images, [True, True])
    assert np.abs(known(changed, [True, True])[:, 0] - together[:, 0]).max() > 1e-3
    assert np.abs(together[:, 0] - alone[:, 0]).max() > 1e-3
    assert np.isfinite(known(images, [False, False])).all()


def test_evaluation_of_a_network_of_zeros(frozen, posterior, monkeypatch):
    task = make(frozen, sampler={"eval_scenes": 0})
    stub(monkeypatch, task, lambda z, *_: jnp.zeros_like(z))
    means = jax.jit(lambda b, f: task.evaluate({}, b, None, f))(tiny.make_batch(6), frozen)
    values = {name: float(mean.compute()) for name, mean in means.items()}
    second_moment = float((np.square(posterior.mean) + np.exp(posterior.log_var)).mean())
    for level in denoising.EVALUATION_LEVELS:
        alpha2, sigma2 = 1 / (1 + np.exp(-level)), 1 / (1 + np.exp(level))
        # v = 0 says x = alpha z, which errs by sigma (sigma x - alpha eps).
        expected = sigma2 * (sigma2 * second_moment + alpha2)
        assert values[f"x_mse_snr_{level:g}"] == pytest.approx(expected, rel=0.2)
        assert values[f"x_mse_snr_{level:g}_one_view"] == values[f"x_mse_snr_{level:g}"]
        # min(snr, 5) on the error of x.
        weighted = expected * min(np.exp(level), 5.0)
        assert values[f"loss_snr_{level:g}"] == pytest.approx(weighted, rel=0.2)
    each = [values[f"x_mse_snr_{level:g}"] for level in denoising.EVALUATION_LEVELS]
    assert values["x_mse"] == pytest.approx(np.mean(each), rel=1e-5)


def test_evaluation_depends_on_the_scene_alone(params, frozen):
    task = make(frozen, sampler={"eval_scenes": 0})  # which takes the first scenes alone
    evaluate = jax.jit(lambda p, b, key, f: task.evaluate(p, b, key, f))
    batch = tiny.make_batch()
    padded = batch | {"weight": np.float32([0, 1])}
    padded["context"] = jax.tree.map(lambda x: x.copy(), batch["context"])
    padded["context"]["images"][0] = 7
    swapped = jax.tree.map(lambda x: x[::-1], padded)
    one = evaluate(params, padded, jax.random.key(0), frozen)
    again = evaluate(params, swapped, jax.random.key(1), frozen)
    whole = evaluate(params, batch, jax.random.key(0), frozen)
    for name, mean in one.items():
        assert isinstance(mean, Mean)
        # The same numbers in another place of the batch.
        np.testing.assert_allclose(again[name].compute(), mean.compute(), rtol=1e-4)
        assert whole[name].compute() != mean.compute()
    assert one["x_mse"].compute() != one["x_mse_one_view"].compute()


@pytest.mark.parametrize(
    "sampler",
    [
        {"name": "ddim"},
        {"name": "ddpm", "grid": "log_snr_uniform", "steps": 8},
        {"name": "heun", "guidance": 1.5},
        {"name": "dpm_solver_pp_2m", "guidance": 3.0, "guidance_interval": (-20.0, 20.0)},
        {"name": "ddim", "clip": 0.5},
    ],
)
@pytest.mark.parametrize("process", ["vp", "flow"])
def test_samples_end_where_the_denoiser_points(sampler, process, task, frozen, monkeypatch):
    """A network that always answers x = 0.8 with a known view and 0.2 without."""
    task = make(frozen, diffusion={"kind": "x", "process": process}, sampler=sampler)

    def answer(z, log_snr, condition):
        told = condition.known_mask.any(1)[:, None, None, None, None]
        return jnp.where(told, 0.8, 0.2) * jnp.ones_like(z)

    stub(monkeypatch, task, answer)
    condition = make_condition(task, tiny.make_views()[1])
    guided = 0.2 + sampler.get("guidance", 1.0) * 0.6
    expected = min(guided, sampler.get("clip", np.inf))
    latents = jax.jit(lambda c, k: task.sample({}, c, k))(condition, jax.random.key(0))
    assert latents.shape == (2, *LATENTS)
    np.testing.assert_allclose(latents, expected, rtol=1e-4)
    empty = jax.jit(lambda c, k: task.sample({}, c, k))(condition.dropped(), jax.random.key(0))
    np.testing.assert_allclose(empty, 0.2, rtol=1e-4)


def test_scenes_with_a_known_view_may_be_guided_otherwise(frozen, monkeypatch):
    """A network that answers x = 0.8 to whom a view or a class is told, and 0.2 to others."""
    task = make(frozen, diffusion={"kind": "x"}, sampler={"guidance": 3.0, "guidance_known": 1.5})

    def answer(z, log_snr, condition):
        told = condition.known_mask.any(1) | (condition.class_label >= 0)
        return jnp.where(told[:, None, None, None, None], 0.8, 0.2) * jnp.ones_like(z)

    stub(monkeypatch, task, answer)
    condition = make_condition(task, tiny.make_views()[1])
    mask = condition.known_mask.at[1].set(False)
    condition = dataclasses.replace(condition, known_mask=mask, class_label=jnp.int32([-1, 1]))
    latents = jax.jit(lambda c, k: task.sample({}, c, k))(condition, jax.random.key(0))
    np.testing.assert_allclose(latents[0], 0.2 + 1.5 * 0.6, rtol=1e-4)
    np.testing.assert_allclose(latents[1], 0.2 + 3.0 * 0.6, rtol=1e-4)


def test_sampling_ends_at_the_level_that_is_asked_for(frozen, monkeypatch):
    """With what the network predicts there, here a tenth of the log-SNR."""
    for stop, expected in ((1.5, 0.15), (None, 1.2)):
        task = make(frozen, diffusion={"kind": "x"}, sampler={"steps": 4, "stop": stop})
        stub(
            monkeypatch,
            task,
            lambda z, log_snr, _: 0.1 * log_snr[:, None, None, None, None] * jnp.ones_like(z),
        )
        latents = task.sample({}, make_condition(task, tiny.make_views()[1]), jax.random.key(0))
        np.testing.assert_allclose(latents, expected, rtol=1e-5)


def make_condition(task, cameras):
    known = jnp.asarray(np.random.default_rng(0).standard_normal((2, *LATENTS), "f4"))
    return diffusion.Conditioning(cameras, known, task.shared.one_view(2), jnp.int32([0, 1]))


def test_a_scene_alone_is_the_scene_in_a_batch(task, params):
    sample = jax.jit(task.sample)
    condition = make_condition(task, tiny.make_views()[1])
    keys = jax.random.split(jax.random.key(0), 2)
    both = sample(params, condition, keys)
    alone = sample(params, jax.tree.map(lambda x: x[1:], condition), keys[1:])
    # Float32 rounding of other batch shapes, over some steps.
    np.testing.assert_allclose(alone[0], both[1], rtol=1e-3, atol=1e-3)
    assert np.abs(both[0] - both[1]).max() > 0.1
    other = sample(params, dataclasses.replace(condition, class_label=jnp.int32([0, 0])), keys)
    np.testing.assert_array_equal(other[0], both[0])
    assert np.abs(other[1] - both[1]).max() > 1e-3


def test_measures_of_samples(task, params, frozen, monkeypatch):
    """Against samples drawn, decoded and rendered one by one, and by what the names promise."""
    batch = tiny.make_batch(3) | {"weight": np.float32([1, 0, 1])}
    batch["scene_index"] = np.int32([4, 9, 6])
    measured = jax.jit(lambda b: task.evaluate(params, b, None, frozen))(batch)
    found = {k: float(m.compute()) for k, m in measured.items() if k.startswith("sample_")}
    names = {"psnr_known", "psnr_unknown", "psnr_target", "spread", "overflow"}
    assert set(found) == {f"sample_{name}" for name in names}
    # `eval_scenes` is 2 and the second scene only pads the batch: what is left is scene 4 alone.
    context, target = (views.from_batch(batch[group]) for group in ("context", "target"))
    encode = jax.jit(task.encode_known)
    condition = encode(frozen, context, task.shared.one_view(3), batch["class_label"])
    condition = jax.tree.map(lambda x: x[:1], condition)
    seen = views.concatenate(context, target).cameras[:1]

    @jax.jit
    def draw(key):
        latents = task.sample(params, condition, key[None])
        scene = frozen.decode(latents, condition.cameras)
        return render(scene, seen, height=16, width=16).rgb[0]

    images = []
    for number in range(2):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(1), 4), number)
        images.append(np.asarray(draw(key)))
    truth = np.concatenate([context.images[0], target.images[0]])

    def psnr(view):
        errors = [np.mean((np.clip(x[view], 0, 1) - truth[view]) ** 2) for x in images]
        return np.mean(-10 * np.log10(errors))

    # Float32 over three steps, a decoder and the rasterizer.
    assert found["sample_psnr_known"] == pytest.approx(psnr(0), abs=0.02)
    assert found["sample_psnr_unknown"] == pytest.approx(psnr(1), abs=0.02)
    assert found["sample_psnr_target"] == pytest.approx(psnr(2), abs=0.02)
    spread = np.abs(np.clip(images[0][1], 0, 1) - np.clip(images[1][1], 0, 1)).mean() / 2
    assert found["sample_spread"] == pytest.approx(spread, rel=0.02)
    assert spread > 1e-3
    assert found["sample_overflow"] == 0


def test_visuals(task, params, frozen, monkeypatch):
    # As many frames as views in the grid: one compilation of the rasterizer for both.
    monkeypatch.setattr(scene_visuals, "TURNTABLE_FRAMES", tiny.VIEWS + tiny.TARGETS)
    batch = tiny.make_batch() | {"weight": np.float32([1, 0])}
    visuals = task.visualize(params, batch, jax.random.key(0), frozen)
    assert set(visuals) == {"samples_0", "splats_0", "turntable", "turntable_one_view"}
    height, width, channels = visuals["samples_0"].shape
    # Photographs, reconstruction, two samples each from one view and from none.
    assert (height > 6 * tiny.SIZE, channels) == (True, 3)
    assert width > (tiny.VIEWS + tiny.TARGETS) * tiny.SIZE
    assert visuals["turntable"].dtype == np.uint8
    assert visuals["turntable"].shape[1:] == (tiny.SIZE, tiny.SIZE, 3)
    assert isinstance(visuals["splats_0"], Gaussians)
    assert visuals["splats_0"].means.shape == (tiny.VIEWS * tiny.SIZE**2, 3)
    again = task.visualize(params, batch, jax.random.key(9), frozen)
    np.testing.assert_array_equal(again["samples_0"], visuals["samples_0"])


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"diffusion": {"unconditional": 1.5}}, r"config\.diffusion: unconditional=1\.5"),
        ({"diffusion": {"max_known": 3}}, "max_known=3 is more than the 2 views"),
        ({"diffusion": {"log_snr_min": 20.0}}, "finite with min < max, got min=20"),
        ({"diffusion": {"gamma": 0.0}}, r"config\.diffusion: gamma=0\.0 must be > 0"),
        ({"diffusion": {"kind": "y"}}, r"config\.diffusion\.kind must be one of 'x', 'eps', 'v'"),
        ({"diffusion": {"wieghting": "snr"}}, "did you mean 'weighting'"),
        ({"sampler": {"steps": 0}}, r"config\.sampler: steps=0"),
        ({"sampler": {"guidance_interval": (2.0, 1.0)}}, "low < high"),
        (
            {"sampler": {"stop": 13.0}},
            r"sampler\.stop=13\.0 must lie above -12\.0 and at most at 12",
        ),
        (
            {"sampler": {"guidance_known": 2.0}, "diffusion": {"unconditional": 0.0}},
            r"config\.sampler\.guidance=2 needs .* \(config\.diffusion\.unconditional > 0\)",
        ),
        (
            {"sampler": {"guidance": 3.0}, "diffusion": {"class_drop": 0.0}},
            r"config\.sampler\.guidance=3 needs .* \(config\.diffusion\.class_drop > 0\)",
        ),
        ({"model": {"latent_channels": 6}}, r"latent_channels=6, but the autoencoder's is 2"),
        ({"model": {"compression": 8}}, r"compression=8, but the autoencoder's is 4"),
        ({"model": {"widths": (8,) * 4}}, r"config\.data\.height=16 must be a multiple of 32"),
        ({"data": {"height": 32}}, r"config\.data\.height=32, but the autoencoder's is 16"),
        ({"data": {"context_views": 3}}, r"context_views=3, but the autoencoder's is 2"),
    ],
)
def test_what_does_not_fit_is_named(frozen, groups, message):
    with pytest.raises(settings.SettingsError, match=message):
        make(frozen, **groups)


def test_groups_that_the_task_does_not_read_are_refused(frozen):
    config = make_config() | {"loss": {"l1": 1.0}}
    with pytest.raises(settings.SettingsError, match=r"unknown key config\.loss"):
        make_task("diffusion", config, frozen)


def test_a_network_without_classes_was_never_told_one(frozen):
    with pytest.raises(settings.SettingsError, match="always been told the class"):
        make(frozen, diffusion={"class_drop": 0.0}).check_request(1, 1.0, class_told=False)
    classless = make(frozen, diffusion={"class_drop": 0.0}, model={"num_classes": 0})
    classless.check_request(1, 1.0, class_told=False)
