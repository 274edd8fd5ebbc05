"""The live viewer in a browser shows the image that `render` defines, as nearly as viser draws."""

import contextlib
import math
import socket
import subprocess
import time

import jax.numpy as jnp
import numpy as np
import pytest

from lgs_jax import __main__
from lgs_jax.core import cameras as camera_lib
from lgs_jax.core.cameras import Cameras
from lgs_jax.inference.export import ply
from lgs_jax.inference.viewer import camera_file, live
from lgs_jax.rendering.api import render
from lgs_jax.rendering.splat import constants

viser = pytest.importorskip("viser", reason="pip install viser")

PATIENCE = 60.0  # seconds; the page takes a few, on a busy machine more
FOV_DEG = 50.0
# Measured: 46.4 and 45.5 dB. viser has covariances in 16 bits, colours in 8, and cuts splats off at
# 2.8 standard deviations and below 1/100. Without 100 of the 400 splats: 27.5 and 26.7 dB. With the
# blur of the cameras' images: 44.5 dB, and against the picture without it 25.3 dB.
MATCH_DB, OTHER_DB = 40.0, 30.0


@pytest.fixture
def outside():
    """Two cameras around the scene, images of 48 x 64 pixels; the second one rolled."""
    centers = jnp.array([[0.0, 0.0, -8.0], [6.0, -2.0, -5.0]])
    up = jnp.array([[0.0, -1.0, 0.0], [0.5, -1.0, 0.0]])
    poses = camera_lib.look_at(centers, jnp.array([0.0, 0.0, 2.0]), up)
    focal = 24 / math.tan(math.radians(FOV_DEG / 2))
    return Cameras(poses, jnp.tile(jnp.array([focal, focal, 32.0, 24.0]), (2, 1)))


@contextlib.contextmanager
def visit(browser, server, profile):
    """A browser that looks at a server; its handle."""
    clients = []
    server.on_client_connect(clients.append)
    command = [*browser, f"--user-data-dir={profile}", "--window-size=480,400"]
    command += ["--remote-debugging-port=0", f"http://127.0.0.1:{server.get_port()}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + PATIENCE
        while not clients and time.monotonic() < end:
            time.sleep(0.1)
        assert clients, "the browser did not connect"
        yield clients[0]
    finally:
        process.terminate()
        process.wait(timeout=30)


def psnr(picture, expected):
    return -10 * np.log10(np.mean((picture - np.clip(np.asarray(expected), 0, 1)) ** 2))


def look(client, expected):
    """What the browser shows, on white, when it is as expected, or else after a while.

    At first it shows nothing, another camera, and splats that fade in.
    """
    height, width, _ = expected.shape
    end = time.monotonic() + PATIENCE
    while True:
        pixels = client.get_render(height, width, transport_format="png", timeout=PATIENCE) / 255
        picture = pixels[..., :3] * pixels[..., 3:] + 1 - pixels[..., 3:]
        if psnr(picture, expected) > MATCH_DB or time.monotonic() > end:
            return picture
        time.sleep(0.1)


def test_pictures_are_nearly_those_of_render(scene, outside, browser, tmp_path, monkeypatch):
    ply.save_ply(tmp_path / "scene.ply", scene)
    camera_file.save(tmp_path / camera_file.NAME, outside, (48, 64))
    stages, build = [], live.Stage.build
    monkeypatch.setattr(live.Stage, "build", lambda self: (stages.append(self), build(self)))
    compared = []

    def compare(server):
        (stage,) = stages
        for node in stage.cameras:
            assert not node.visible
        with visit(browser, server, tmp_path / "browser") as client:
            # viser draws splats with the shape of the window, whatever size is asked for.
            height, width = client.camera.image_height, client.camera.image_width
            focal = height / 2 / math.tan(math.radians(FOV_DEG / 2))
            # At first as blurred as the images of the cameras, enlarged.
            for i, sharp in ((0, False), (0, True), (1, True)):
                stage.sharp.value = sharp
                stage.resize()
                if i > 0:
                    stage._go(client, i)  # as a click on the camera does
                pixel = 1.0 if sharp else height / 48
                camera = Cameras(
                    outside.world_from_cam[i], jnp.array([focal, focal, width / 2, height / 2])
                )
                right, other = (
                    render(
                        shown,
                        camera,
                        height=height,
                        width=width,
                        background=1.0,
                        eps2d=constants.EPS2D * pixel**2,
                    ).rgb
                    for shown in (scene, scene[:300])
                )
                picture = look(client, right)
                compared.append((psnr(picture, right), psnr(picture, other)))
        raise KeyboardInterrupt

    monkeypatch.setattr(viser.ViserServer, "sleep_forever", compare)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert __main__.main(["view", str(tmp_path / "scene.ply"), f"--port={port}"]) == 0
    assert len(compared) == 3
    for right, other in compared:
        assert right > MATCH_DB
        assert other < OTHER_DB
