"""Videos and pictures of files of splats, from the shell."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import lgs_jax
from lgs_jax import __main__ as commands
from lgs_jax.core import cameras as camera_lib
from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.inference import scene_video
from lgs_jax.inference.viewer import camera_file

HEIGHT, WIDTH = 12, 16


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(0)
    return Gaussians(
        means=jnp.asarray(rng.uniform(-1, 1, (40, 3)), jnp.float32),
        quats=jnp.asarray(rng.normal(size=(40, 4)), jnp.float32),
        scales=jnp.full((40, 3), 0.2),
        opacities=jnp.full(40, 0.8),
        colors=jnp.asarray(rng.uniform(size=(40, 3)), jnp.float32),
    )


@pytest.fixture(scope="module")
def cameras():
    centers = jnp.array([[-1.0, 0.0, -4.0], [0.0, 0.2, -4.0], [1.0, 0.0, -4.0]])
    poses = camera_lib.look_at(centers, jnp.zeros(3), jnp.array([0.0, -1.0, 0.0]))
    return Cameras(poses, jnp.tile(jnp.array([20.0, 20.0, WIDTH / 2, HEIGHT / 2]), (3, 1)))


@pytest.fixture
def folder(scene, cameras, tmp_path):
    scene.save(tmp_path / "a.ply")
    camera_file.save(tmp_path / "transforms.json", cameras, (HEIGHT, WIDTH))
    return tmp_path


def run(folder, output, *arguments):
    return commands.main(["render", str(folder / "a.ply"), str(folder / output), *arguments])


def test_a_picture_is_that_of_render(folder, scene, cameras):
    assert run(folder, "a.png", "--camera=1") == 0
    with Image.open(folder / "a.png") as image:
        shown = np.asarray(image)
    expected = lgs_jax.render(scene, cameras[1], height=HEIGHT, width=WIDTH).rgb
    # The file keeps logarithms of scales and logits in float32.
    assert np.abs(shown - 255 * np.clip(np.asarray(expected), 0, 1)).max() <= 1


@pytest.mark.parametrize("path", scene_video.PATHS)
def test_videos_follow_a_path_at_any_size(folder, path, capsys):
    options = [f"--path={path}", "--frames=6", "--height=24", "--beside", "depth"]
    assert run(folder, "a.webp", *options) == 0
    assert "6 x 64 x 24 pixels" in capsys.readouterr().out
    with Image.open(folder / "a.webp") as video:
        assert (video.n_frames, video.size) == (6, (64, 24))
        first = np.asarray(video.convert("RGB"))
        video.seek(3)
        assert np.abs(np.asarray(video.convert("RGB")).astype(int) - first).max() > 20
    assert first[:, 32:].any()  # depth in colours
    assert run(folder, "b.webp", *options, "--lossless") == 0
    assert (folder / "a.webp").stat().st_size != (folder / "b.webp").stat().st_size
    assert run(folder, "a.webp", *options) == 1
    assert "exists; choose another name" in capsys.readouterr().err


def test_photographs_stand_beside_the_scene(scene, cameras):
    photographs = [np.full((24, 32, 3), 50 * i, np.uint8) for i in range(3)]
    frames = scene_video.draw(
        scene,
        scene_video.make_path("fly", cameras, 6),
        (HEIGHT, WIDTH),
        beside=("input",),
        cameras=cameras,
        images=[photographs[0], None, photographs[2]],
        say=lambda _: None,
    )
    assert frames.shape == (6, HEIGHT, 2 * WIDTH, 3)
    np.testing.assert_array_equal(frames[0, :, :WIDTH], 0)
    np.testing.assert_array_equal(frames[4, :, :WIDTH], 100)  # at the third camera


def test_an_enlarged_scene_looks_like_its_small_picture(scene, cameras):
    large, size, factor = scene_video.enlarged(cameras, (HEIGHT, WIDTH), 4 * HEIGHT)
    assert (size, factor) == ((48, 64), 4.0)
    silent = {"say": lambda _: None}
    small = scene_video.draw(scene, cameras[:1], (HEIGHT, WIDTH), **silent)
    blurred = scene_video.draw(scene, large[:1], size, blur=factor, **silent)
    means = blurred[0].reshape(HEIGHT, 4, WIDTH, 4, 3).mean(axis=(1, 3))
    # A box of pixels in place of their middle: 1.4; with the blur of the large picture: 8.4.
    assert np.abs(means - small[0]).mean() < 3


def test_what_cannot_be_drawn_is_said(folder, capsys):
    for output, arguments, message in (
        ("a.avi", [], "expected a name that ends in .mp4"),
        ("a.png", ["--camera=3"], "--camera=3: the cameras are 0 to 2"),
        ("a.gif", ["--beside", "input", "--frames=2"], "no photograph to show"),
        ("a.gif", ["--transforms=/nowhere.json"], "there is no file /nowhere.json"),
        ("a.png", ["--frames=3"], "--frames is for videos; leave it out"),
        ("a.gif", ["--camera=1"], "--camera is for a single picture, or for --path=wobble"),
        ("a.gif", ["--fps=0"], "fps=0.0 must lie between 0.01 and 1000"),
        ("a.gif", ["--fps=1e-9"], "fps=1e-09 must lie between"),
        ("a.mp4", ["--fps=nan"], "fps=nan must lie between"),
        ("/proc/a.mp4", ["--frames=2"], "/proc/"),
        ("a.png", ["--background=2"], "--background=2.0 must lie between 0 and 1"),
        ("a.png", ["--height=100000"], "height=100000 would be 133333 x 100000 pixels large"),
        ("a.mp4", ["--height=6000", "--frames=99"], "99 pictures of 8000 x 6000 pixels take 13.3"),
        ("a.mp4", ["--lossless"], "--lossless is for .webp videos"),
    ):
        assert run(folder, output, *arguments) == 1
        assert message in capsys.readouterr().err
        assert not (folder / output).exists()
    (folder / "transforms.json").unlink()
    assert run(folder, "b.png", "--height=40") == 0
    printed = capsys.readouterr().out
    assert "1 x 53 x 40 pixels" in printed
    assert "cameras are made up, as there is no transforms.json beside the scene" in printed
    assert " of 1 frames" not in printed


def test_it_is_said_what_is_not_as_asked_for(folder, capsys):
    assert run(folder, "a.mp4", "--path=turntable", "--frames=2", "--height=3") == 0
    printed = capsys.readouterr().out
    assert "the turntable sways over 28 degrees instead of turning round" in printed
    assert f"{folder / 'a.mp4'}: 2 x 4 x 4 pixels, for sides of .mp4 must be even" in printed
    assert run(folder, "a.gif", "--frames=2", "--height=3") == 0
    assert capsys.readouterr().out.endswith("2 x 4 x 3 pixels\n")
