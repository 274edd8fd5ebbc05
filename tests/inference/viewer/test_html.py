"""The page is complete in itself, holds the scene, and shows the image that `render` defines."""

import base64
import json
import re
import subprocess

import jax.numpy as jnp
import numpy as np
import pytest

from lgs_jax.core import rotations
from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.inference.viewer import framing, html
from lgs_jax.rendering.api import render

SIZE = (48, 64)
BACKGROUND = (0.2, 0.4, 0.6)


def read(path):
    """Settings and arrays of a page."""
    text = path.read_text()
    found = re.search(r'id="settings">(.*?)</script>', text, re.DOTALL)
    payloads = re.findall(r'id="scene-\d+">([^<]*)</script>', text)
    return json.loads(found[1]), [base64.b64decode(payload) for payload in payloads]


def psnr(picture, expected):
    error = picture / 255.0 - np.clip(np.asarray(expected), 0, 1)
    return -10 * np.log10(np.mean(error**2))


@pytest.fixture(scope="module")
def page(scene, cameras, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "scene.html"
    pixels = np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)
    return html.write_html(
        path,
        {"first </script> 100": scene[:100], "all": scene},
        cameras,
        SIZE,
        title="Two <b>scenes</b>",
        images=[pixels, None],
        background=BACKGROUND,
    )


def test_nothing_is_fetched(page):
    text = re.sub(r"data:image/[^\"]+", "", page.read_text())
    assert not re.findall(r"https?:|//[a-z]+\.|@import|url\(|\bimport\b|<link|fetch\(", text)
    assert not re.findall(r"<(?:script|img|iframe)[^>]*\bsrc=", text)
    assert "default-src 'none'" in text
    assert "Two &lt;b&gt;scenes" in text
    assert "{{" not in text
    assert text.count("<script") == text.count("</script>") == 4


def test_payload_round_trip(page, scene, cameras):
    settings, payloads = read(page)
    assert [s["name"] for s in settings["scenes"]] == ["first </script> 100", "all"]
    for entry, payload, original in zip(settings["scenes"], payloads, (scene[:100], scene)):
        n = entry["count"]
        assert n == original.num_gaussians
        assert len(payload) == 34 * n
        parts = np.split(np.frombuffer(payload, np.uint8), np.array([12, 20, 26]) * n)
        means, quats, logs, half = (
            part.view(kind).reshape(n, -1)
            for part, kind in zip(parts, ("<f4", "<i2", "<u2", "<f2"))
        )
        np.testing.assert_array_equal(means, original.means)
        unit = rotations.normalize_quats(original.quats)
        np.testing.assert_allclose(quats / 32767, unit, atol=2e-5)
        scales = np.exp(entry["lowestLogScale"] + entry["logScaleStep"] * logs)
        np.testing.assert_allclose(scales, original.scales, rtol=1e-4)
        np.testing.assert_allclose(half[:, :3], original.colors, atol=5e-4)
        np.testing.assert_allclose(half[:, 3], original.opacities, atol=3e-4)
    (only,) = settings["cameraSets"]
    for i, camera in enumerate(only["cameras"]):
        pose = np.reshape(camera["pose"], (3, 4))
        np.testing.assert_allclose(pose, cameras.world_from_cam[i, :3], atol=1e-6)
        np.testing.assert_allclose(camera["intrinsics"], cameras.intrinsics[i])
        assert (camera["height"], camera["width"]) == SIZE
        assert bool(camera["image"]) == (i == 0)
    up = -np.asarray(cameras.world_from_cam)[:, :3, 1].mean(0)
    np.testing.assert_allclose(only["up"], up / np.linalg.norm(up), atol=1e-6)


def test_pictures_are_those_of_render(page, scene, cameras, photograph):
    pictures = photograph(page, "scene=1&camera=0,1")
    height, width = SIZE
    background = jnp.array(BACKGROUND)
    expected = render(
        scene, cameras, height=height, width=width, background=background, depth_mode=None
    ).rgb
    assert len(pictures) == 2
    for picture, truth in zip(pictures, np.asarray(expected)):
        assert picture.shape == (*SIZE, 3)
        assert psnr(picture, truth) > 50


def test_cameras_are_made_up_where_there_are_none(scene, tmp_path):
    path = html.write_html(tmp_path / "a.html", scene)
    settings, _ = read(path)
    (only,) = settings["cameraSets"]
    assert not only["given"]
    assert only["up"] == [0.0, -1.0, 0.0]
    for up in ((0.0, -1.0, 0.0), (0.0, 0.0, 2.0), (1.0, 0.0, 0.0)):
        cameras, (height, width) = framing.around(scene, up)
        center, radius = framing.extent(scene)
        local = np.linalg.inv(cameras.world_from_cam) @ [*center, 1.0]
        np.testing.assert_allclose(local[:, :2], 0, atol=1e-4)  # in the middle
        assert np.all(local[:, 2] > radius)  # from outside
        turned = np.asarray(cameras.world_from_cam)
        np.testing.assert_allclose(turned[:, :3, 0] @ np.array(up), 0, atol=1e-5)  # level
        assert np.all(turned[:, :3, 1] @ np.array(up) < -0.5)  # upright
        assert np.all(2 * np.asarray(cameras.intrinsics)[:, 2:] == [width, height])


@pytest.mark.parametrize(("width", "hidden"), [(500, True), (900, False)])
def test_controls_do_not_cover_a_narrow_screen(scene, browser, tmp_path, width, hidden):
    page = html.write_html(tmp_path / "a.html", scene)
    command = [*browser, f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},700"]
    done = subprocess.run(
        [*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=240
    )
    (panel,) = re.findall(r'<aside id="panel"[^>]*>', done.stdout)
    assert (' hidden=""' in panel) == hidden


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scenes": {}}, "no scene to show"),
        ({"cameras": None}, "need the cameras"),
        ({"image_size": None}, "image_size=None must be H, W"),
        ({"images": [None]}, "1 images for 2 cameras"),
        ({"background": 2.0}, "background=2.0 must be"),
        ({"background": (0.0, 1.0)}, "must be a grey or RGB"),
    ],
)
def test_refusals(scene, cameras, tmp_path, change, message):
    arguments = {"scenes": scene, "cameras": cameras, "image_size": SIZE} | change
    with pytest.raises(ValueError, match=message):
        html.write_html(tmp_path / "a.html", **arguments)
    assert not any(tmp_path.iterdir())


def test_what_cannot_be_drawn_is_refused(scene, cameras, tmp_path):
    fields = vars(scene) | {"means": scene.means * jnp.nan}
    with pytest.raises(ValueError, match=r"a\.html, scene 'x': 1200 values of means are NaN"):
        html.write_html(tmp_path / "a.html", {"x": Gaussians(**fields)}, cameras, SIZE)
    broken = Cameras(cameras.world_from_cam * jnp.inf, cameras.intrinsics)
    with pytest.raises(ValueError, match="cameras hold values that are NaN"):
        html.write_html(tmp_path / "a.html", scene, broken, SIZE)
