"""LPIPS of small images, by the settings of metrics and loss."""

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from lgs_jax import settings
from lgs_jax.tasks import make_task, view_metrics
from lgs_jax.vision import lpips, trunks

RNG = np.random.default_rng(0)
IMAGES, TRUTH = jnp.asarray(RNG.random((2, 1, 2, 16, 16, 3), "f4"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "alex.safetensors"
    flat = {
        name: np.abs(RNG.normal(size=shape)).astype(np.float32) * np.prod(shape[:-1]) ** -0.5
        for name, shape in trunks.weight_shapes("alex").items()
    }
    safetensors.numpy.save_file(flat, path)
    return str(path)


def test_the_metric_enlarges_where_it_is_told_to(weights):
    def measure(**options):
        settings = view_metrics.MetricSettings(lpips="alex", lpips_weights=weights, **options)
        metrics = view_metrics.ViewMetrics(settings)
        return metrics.of_images("some", IMAGES, TRUTH, jnp.ones(1))["some_lpips"].compute()

    expected = lpips.load("alex", weights, resize_to=40)(IMAGES, TRUTH).mean()
    np.testing.assert_allclose(measure(lpips_resize_to=40), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="resize_to"):
        measure()


def test_the_loss_enlarges_where_it_is_told_to(weights):
    data = {"height": 16, "width": 16, "context_views": 2}
    model = {"compression": 4, "patch_size": 4, "widths": (8,), "attention_levels": ()}
    loss = {"perceptual": "lpips_alex", "perceptual_weights": weights, "perceptual_resize_to": 40}
    config = {"task": "vae", "data": data, "model": model, "loss": loss, "metrics": {}}
    task = make_task("vae", config)
    expected = lpips.load("alex", weights, resize_to=40, precision=None)(IMAGES, TRUTH)
    np.testing.assert_allclose(task.perceptual(IMAGES, TRUTH), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"metrics": {"lpips": "vgg16"}}, r"config\.metrics\.lpips must be one of 'none', 'alex'"),
        ({"loss": {"perceptual": "vgg"}}, r"config\.loss\.perceptual must be one of 'lpips_vgg'"),
    ],
)
def test_networks_that_are_unknown_are_named_by_their_key(groups, message):
    data = {"height": 16, "width": 16, "context_views": 2}
    with pytest.raises(settings.SettingsError, match=message):
        make_task("vae", {"task": "vae", "data": data, "model": {}} | groups)
