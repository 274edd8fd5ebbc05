"""The command shows what it can and refuses the rest; the live viewer holds the scenes."""

import json
import re
import sys
import types
import webbrowser
from unittest import mock

import jax
import numpy as np
import pytest

from lgs_jax import __main__
from lgs_jax.cli import view
from lgs_jax.core import gaussians
from lgs_jax.inference import scene_model
from lgs_jax.inference.export import ply
from lgs_jax.inference.viewer import camera_file, framing, live
from lgs_jax.inference.viewer.sampling_panel import Panel, Sampling, Wish


def read(path):
    """The settings of a page."""
    return json.loads(re.search(r'id="settings">(.*?)</script>', path.read_text())[1])


@pytest.fixture
def folder(scene, tmp_path):
    ply.save_ply(tmp_path / "a.ply", scene)
    ply.save_ply(tmp_path / "sub" / "a.ply", scene[:50])
    return tmp_path


def test_writes_a_page_with_the_cameras_beside_the_scene(folder, cameras, capsys):
    camera_file.save(folder / camera_file.NAME, cameras, (48, 64))
    page = folder / "out.html"
    files = [str(folder / "a.ply"), str(folder / "sub" / "a.ply")]
    assert __main__.main(["view", *files, f"--html={page}", "--up=+z"]) == 0
    assert "2 scenes" in capsys.readouterr().out
    settings = read(page)
    assert [s["count"] for s in settings["scenes"]] == [400, 50]
    assert [s["name"] for s in settings["scenes"]] == files
    (only,) = settings["cameraSets"]
    assert only["up"] == [0.0, 0.0, 1.0]
    assert [c["width"] for c in only["cameras"]] == [64, 64]


def test_makes_cameras_up_and_takes_those_that_are_named(folder, cameras, capsys):
    page = folder / "out.html"
    command = ["view", str(folder / "a.ply"), f"--html={page}", "--background=1"]
    assert __main__.main(command) == 0
    settings = read(page)
    assert not settings["cameraSets"][0]["given"]
    assert settings["background"] == [1.0, 1.0, 1.0]
    camera_file.save(folder / "other" / camera_file.NAME, cameras, (48, 64))
    command += [f"--transforms={folder / 'other'}"]
    before = page.read_bytes()
    assert __main__.main(command) == 1
    assert f"{page} exists; choose another name, or --overwrite" in capsys.readouterr().err
    assert page.read_bytes() == before
    assert __main__.main([*command, "--overwrite"]) == 0
    assert read(page)["cameraSets"][0]["given"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.ply", "--html=a.html"], "absent.ply"),
        (["a.obj", "--html=a.html"], "'.obj' is no format"),
        (["a.ply", "--html=a.txt"], "expected a name that ends in .html"),
        ([], "nothing to view; give files of splats, or --model"),
        (["a.ply", "--autoencoder=b"], "--autoencoder has no effect without --model"),
        (["a.ply", "--html=a.html", "--model=m"], "--model is for the live viewer"),
        (["a.ply", "--model=nowhere"], "nowhere"),
        (["a.ply", "--html=a.html", "--port=1"], "--port is for the live viewer"),
        (["a.ply", "--port=0"], "--port=0 must lie between 1 and 65535"),
        (["a.ply", "--port=99999"], "--port=99999 must lie between 1 and 65535"),
        (["a.ply", "--overwrite"], "--overwrite is for a page; add --html"),
        (["a.ply", "--background=1"], "--background is for a page; add --html"),
        (["a.ply", "--html=a.html", "--background=7"], "must be a grey"),
        (["a.ply", "a.ply", "--html=a.html"], "a.ply is given twice"),
        (["a.ply", "--html=a.html", "--transforms=none.json"], "none.json"),
        (["a.ply", "--host=203.0.113.7"], "is no address of this machine"),
    ],
)
def test_refusals(folder, monkeypatch, capsys, arguments, message):
    if any("--host" in argument for argument in arguments):
        pytest.importorskip("viser")
    monkeypatch.chdir(folder)
    before = set(folder.iterdir())
    assert __main__.main(["view", *arguments]) == 1
    assert message in capsys.readouterr().err
    assert set(folder.iterdir()) == before


@pytest.mark.parametrize("found", [True, False])
def test_opens_the_page_or_says_where_it_is(folder, monkeypatch, capsys, found):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: (opened.append(address), found)[1])
    page = folder / "out.html"
    assert __main__.main(["view", str(folder / "a.ply"), f"--html={page}", "--open"]) == 0
    assert opened == [page.as_uri()]
    printed = capsys.readouterr().out
    assert f"{page}: 1 scene, " in printed
    assert "cameras are made up, as there is no transforms.json beside the scene" in printed
    assert (f"no browser to open {page.as_uri()} in" in printed) != found


@pytest.mark.parametrize(("given", "host"), [([], "127.0.0.1"), (["--host=0.0.0.0"], "0.0.0.0")])
def test_the_live_viewer_listens_at_this_machine_alone_unless_told(
    folder, monkeypatch, capsys, given, host
):
    server = mock.Mock(**{"get_port.return_value": 8080})
    server.sleep_forever.side_effect = KeyboardInterrupt
    serve = mock.Mock(return_value=server)
    monkeypatch.setattr(live, "serve", serve)
    assert __main__.main(["view", str(folder / "a.ply"), *given]) == 0
    assert serve.call_args.kwargs["host"] == host
    assert f"http://{host}:8080 " in capsys.readouterr().out
    server.stop.assert_called_once()


def test_without_the_package_it_says_what_to_install(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "viser", None)
    assert __main__.main(["view", str(folder / "a.ply")]) == 1
    assert "pip install 'lgs_jax[viewer]'" in capsys.readouterr().err


def test_live_viewer_holds_the_scenes(scene, cameras, monkeypatch):
    pytest.importorskip("viser")
    views = camera_file.Viewpoints(cameras, np.array([[48, 64]] * 2), (None, None))
    stages, build = [], live.Stage.build
    monkeypatch.setattr(live.Stage, "build", lambda self: (stages.append(self), build(self)))
    server = live.serve({"all": scene, "part": scene[:100]}, views, port=0)
    try:
        (stage,) = stages
        assert server.get_host() == "127.0.0.1"
        grow = live.RADIUS / framing.extent(scene)[1]
        np.testing.assert_allclose(stage.splats.centers, grow * scene.means, rtol=1e-5)
        expected = grow**2 * np.asarray(gaussians.covariances(scene))
        blurred = np.asarray(stage.splats.covariances)
        stage.sharp.value = True
        stage.resize()
        np.testing.assert_allclose(stage.splats.covariances, expected, rtol=1e-3, atol=1e-4)
        # A variance of 0.3 px^2 of the cameras' images, where the splats are.
        added = np.diagonal(blurred - stage.splats.covariances, axis1=1, axis2=2)
        axes = np.asarray(cameras.cam_from_world)[:, 2]
        depths = axes[:, :3] @ np.asarray(scene.means).T + axes[:, 3:]
        widths = depths / np.asarray(cameras.intrinsics)[:, :1]
        ahead = np.all(depths > 0, axis=0)
        variance = 0.3 * grow**2 * np.mean(widths[:, ahead] ** 2, axis=0)
        rounding = {"rtol": 0.02, "atol": 2e-3}  # 16-bit floats of the sums
        np.testing.assert_allclose(added[ahead], np.tile(variance[:, None], 3), **rounding)
        np.testing.assert_allclose(
            server.initial_camera.position, grow * cameras.centers[0], rtol=1e-5
        )
        stage.depth.value = True
        stage.recolour()
        eye = grow * np.asarray(cameras.centers[0])
        depths = live.distance_colors(grow * np.asarray(scene.means), eye)
        # Of 256 colours, the next one where float32 rounds the other way.
        np.testing.assert_allclose(stage.splats.rgbs / 255.0, depths, atol=0.02)
        stage.size.value = 1.0
        stage.resize()
        np.testing.assert_allclose(stage.splats.covariances, 4 * expected, rtol=1e-3, atol=1e-4)
        stage.name.value = "part"
        stage.show()
        assert len(stage.splats.centers) == 100
        assert len(stage.cameras) == 2
    finally:
        server.stop()


def test_near_splats_are_red_and_far_ones_blue():
    points = np.linspace([0, 0, 1], [0, 0, 9], 50)
    colours = live.distance_colors(points, np.zeros(3))
    assert colours.shape == (50, 3)
    assert colours[0, 0] > 2 * colours[0, 2]
    assert colours[25, 2] > 2 * colours[25, 0]  # the farthest are nearly black
    np.testing.assert_allclose(live.distance_colors(points, np.array([0, 0, 10])), colours[::-1])


def fake_server():
    """As much of viser as the stage needs, which remembers what it was told."""

    def control(*arguments, **options):
        values = {"add_dropdown": lambda: arguments[1][0]}
        control = mock.MagicMock()
        control.value = values.get(options.pop("kind", ""), lambda: arguments[-1])()
        return control

    server = mock.MagicMock()
    server.gui.add_checkbox.side_effect = control
    server.gui.add_slider.side_effect = control
    server.gui.add_dropdown.side_effect = lambda *a, **k: control(*a, kind="add_dropdown")
    return server


def test_depth_and_photographs_follow_the_camera_in_use(scene, cameras):
    photographs = tuple(np.full((48, 64, 3), value, np.uint8) for value in (10, 20))
    views = camera_file.Viewpoints(cameras, np.array([[48, 64]] * 2), photographs)
    server = fake_server()
    stage = live.Stage(server, {"all": scene}, views, None)
    stage.build()
    background = server.scene.set_background_image
    own = server.scene.add_gaussian_splats.call_args.kwargs["rgbs"]
    np.testing.assert_allclose(own, np.clip(np.asarray(scene.colors), 0, 1), atol=1e-6)
    background.assert_not_called()
    stage.depth.value = stage.photograph.value = True
    stage.recolour()
    stage.put_behind()
    at_first = np.array(stage.splats.rgbs)
    background.assert_called_once_with(photographs[0])
    grow = live.RADIUS / framing.extent(scene)[1]
    stage.look(types.SimpleNamespace(position=grow * np.asarray(cameras.centers[1])))
    expected = live.distance_colors(np.asarray(scene.means), np.asarray(cameras.centers[1]))
    # Distances in float32 may round to the next of 256 colours.
    assert np.abs(stage.splats.rgbs - expected).max() < 0.02
    assert np.abs(stage.splats.rgbs - at_first).max() > 0.1
    background.assert_called_with(photographs[1])
    stage.depth.value = stage.photograph.value = False
    stage.recolour()
    stage.put_behind()
    np.testing.assert_array_equal(stage.splats.rgbs, own)
    background.assert_called_with(None)


def test_there_is_a_checkbox_for_photographs_only_where_there_are_some(scene, cameras):
    for images, offered in (((None, None), False), ((None, np.zeros((4, 4, 3), np.uint8)), True)):
        server = fake_server()
        views = camera_file.Viewpoints(cameras, np.array([[48, 64]] * 2), images)
        live.Stage(server, {"all": scene}, views, None).build()
        (call,) = [c for c in server.gui.add_checkbox.call_args_list if c.args[0] == "Photograph"]
        assert call.kwargs["visible"] == offered
        assert live.nearest_photograph(views, np.zeros(3)) == (1 if offered else None)


def test_live_viewer_draws_further_scenes(scene, monkeypatch):
    pytest.importorskip("viser")
    stages, build = [], live.Stage.build
    monkeypatch.setattr(live.Stage, "build", lambda self: (stages.append(self), build(self)))
    wishes = []

    def draw(wish):
        wishes.append(wish)
        if wish.guidance > 5:
            raise ValueError("too much guidance")
        return scene[: 10 * (wish.seed + 1)]

    sampling = Sampling(
        draw, Wish(seed=0, steps=20, guidance=2.0, class_name="car"), ("car", "tree")
    )
    server = live.serve({"first": scene[:10]}, port=0, sampling=sampling)
    try:
        (stage,) = stages
        stage.panel.kind.value = "tree"
        stage.panel.sample()
        assert wishes == [Wish(1, 20, 2.0, "tree")]
        assert stage.name.value == "tree, seed 1, 20 steps, guidance 2"
        assert stage.name.options == ("first", stage.name.value)
        assert len(stage.splats.centers) == 20
        assert stage.panel.seed.value == 2
        stage.panel.guidance.value = 6.0
        stage.panel.sample()
        assert "too much guidance" in stage.panel.status.content
        assert not stage.panel.button.disabled
        assert len(stage.name.options) == 2
    finally:
        server.stop()


@pytest.mark.parametrize("first", [Wish(), Wish(steps=200, guidance=9.5)])
def test_sliders_reach_what_any_sampler_starts_with(scene, first):
    gui = mock.MagicMock()
    Panel(gui, Sampling(lambda wish: scene, first), lambda name, scene: None)
    for _, low, high, _, value in (call.args for call in gui.add_slider.call_args_list):
        assert low <= value <= high  # which viser demands
    assert gui.add_slider.call_count == 2


def test_a_model_without_classes_offers_none(cameras, monkeypatch):
    sampler = types.SimpleNamespace(steps=3, guidance=2.0)
    model = types.SimpleNamespace(
        task=types.SimpleNamespace(sampler=sampler),
        num_views=2,
        image_size=(48, 64),
        paths=jax.tree.map(lambda x: x[None], cameras),
        path_classes=(-1,),  # as files of such models say
        class_names=(),
        frozen=types.SimpleNamespace(check_gaussians=lambda what: None),
    )
    monkeypatch.setattr(scene_model, "load", lambda path, autoencoder: model)
    sampling, _ = view._sampling(view._parser().parse_args(["--model=x"]), None)
    assert sampling.class_names == ()
    assert sampling.first == Wish(0, 3, 2.0, None)
