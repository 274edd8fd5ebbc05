"""A small scene with cameras, and a browser to look at it."""

import base64
import io
import re
import shutil
import subprocess

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lgs_jax.core import cameras as camera_lib
from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# WebGL in software, so that no graphics card is needed; nothing asked of other machines.
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
)


@pytest.fixture(scope="session")
def scene():
    """Splats of all kinds: needles, discs, faint ones, some too near and some behind."""
    rng = np.random.default_rng(0)
    count = 400
    means = rng.uniform([-2, -2, -1], [2, 2, 6], (count, 3))
    return Gaussians(
        means=jnp.asarray(means, jnp.float32),
        quats=jnp.asarray(rng.normal(size=(count, 4)) * 3, jnp.float32),
        scales=jnp.asarray(np.exp(rng.uniform(-5, -0.7, (count, 3))), jnp.float32),
        opacities=jnp.asarray(rng.uniform(0, 1, count) ** 2, jnp.float32),
        colors=jnp.asarray(rng.uniform(-0.1, 1.1, (count, 3)), jnp.float32),
    )


@pytest.fixture(scope="session")
def cameras():
    """Two cameras with off-centre lenses for images of 48 x 64 pixels, the second one rolled."""
    centers = jnp.array([[0.0, 0.0, -2.0], [1.5, -0.8, -1.0]])
    targets = jnp.array([[0.0, 0.0, 2.0], [0.2, 0.3, 2.0]])
    poses = camera_lib.look_at(centers, targets, jnp.array([[0.0, -1.0, 0.0], [0.3, -1.0, 0.0]]))
    return Cameras(poses, jnp.array([[60.0, 62.0, 30.0, 25.0], [50.0, 48.0, 33.0, 22.0]]))


@pytest.fixture(scope="session")
def browser():
    """The command of a browser without a window; a profile and what it does are to be added."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser to look at pages with: none of {', '.join(BROWSERS)} is installed")
    return [program, *FLAGS]


@pytest.fixture(scope="session")
def photograph(browser, tmp_path_factory):
    """A function (page, wish) -> pictures uint8 [H, W, 3] that the page makes by #capture."""
    profile = tmp_path_factory.mktemp("browser")

    def take(page, wish):
        command = [*browser, f"--user-data-dir={profile}", "--dump-dom"]
        command.append(f"{page.as_uri()}#capture&{wish}")
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
        found = re.findall(r'class="capture" src="data:image/png;base64,([^"]+)"', done.stdout)
        assert found, done.stdout[-2000:] + done.stderr[-2000:]
        files = (io.BytesIO(base64.b64decode(data)) for data in found)
        return [np.asarray(Image.open(file).convert("RGB")) for file in files]

    return take
