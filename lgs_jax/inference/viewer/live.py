"""A live viewer: a small web server, which needs `pip install 'lgs_jax[viewer]'` (viser).

Letters: N Gaussians, V cameras.
"""

import dataclasses
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from lgs_jax.core import cameras as camera_lib
from lgs_jax.core import gaussians, rotations
from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.inference.viewer import framing
from lgs_jax.inference.viewer.camera_file import Viewpoints
from lgs_jax.inference.viewer.sampling_panel import Panel, Sampling
from lgs_jax.rendering.splat import constants
from lgs_jax.tasks import panels

# viser keeps variances as 16-bit floats, which are coarse below 6e-5: scenes are made so large.
RADIUS = 10.0
_FRUSTUM_LENGTH = 0.05  # of the radius
_FRUSTUM_COLOR = (200, 200, 200)
_MAX_LOG2_SIZE = 2.0
# Of the radius: how far a camera moves before colours of depth are sent again, all at once.
_STEP = 0.03


class MissingViewerError(ImportError):
    """The package for live viewing is not installed."""


def serve(
    scenes: Mapping[str, Gaussians],
    viewpoints: Viewpoints | None = None,
    *,
    up: Sequence[float] | None = None,
    host: str = "127.0.0.1",
    port: int = 8080,
    sampling: Sampling | None = None,
) -> Any:
    """Starts a viewer in the background and returns its `viser.ViserServer`; `stop()` ends it.

    Args:
      scenes: RGB scenes by name, among which the viewer switches.
      viewpoints: cameras in the frame of the scenes, where it opens; None: made up for each scene.
      up: direction [3] that is up when turning; default: the mean up of the cameras, or -y.
      host: address to listen at; others than this machine reach it only if told so.
      port: the next free one is taken if it is in use.
      sampling: draws further scenes as the visitor wishes; None: there is nothing to draw from.

    Raises:
      MissingViewerError: if viser is not installed.
      ValueError: if it cannot listen at the address.
    """
    try:
        import viser
    except ImportError as error:
        raise MissingViewerError(
            "the live viewer needs viser (pip install 'lgs_jax[viewer]'); a page (--html) does not"
        ) from error
    try:
        with socket.socket() as probe:
            probe.bind((host, 0))
    except OSError as error:
        raise ValueError(f"{host=} is no address of this machine ({error})") from error
    server = viser.ViserServer(host=host, port=port, label="lgs_jax", verbose=False)
    Stage(server, dict(scenes), viewpoints, up, sampling).build()
    return server


class Stage:
    """What is on show, and the controls that change it.

    Attributes:
      name, size, sharp, frusta, depth, photograph, panel: the controls.
      splats, cameras: the nodes of the scene on show.
    """

    def __init__(
        self,
        server: Any,
        scenes: dict[str, Gaussians],
        viewpoints: Viewpoints | None,
        up: Sequence[float] | None,
        sampling: Sampling | None = None,
    ):
        self._server, self._scenes, self._given, self._up = server, scenes, viewpoints, up
        self._sampling = sampling
        self._nodes: list[Any] = []
        self._eye = np.zeros(3)  # the camera in use: of several visitors', the last that moved
        self._behind: int | None = None

    def build(self) -> None:
        """Adds the controls and shows the first scene; like a page, on dark and without cameras."""
        self._server.gui.configure_theme(dark_mode=True)
        gui, names = self._server.gui, list(self._scenes)
        self.name = gui.add_dropdown("Scene", names, visible=len(names) > 1)
        self.size = gui.add_slider("Splat size, log2", -3.0, _MAX_LOG2_SIZE, 0.05, 0.0)
        self.sharp = gui.add_checkbox("Sharp pixels", False, visible=self._given is not None)
        self.frusta = gui.add_checkbox("Cameras", False)
        self.depth = gui.add_checkbox("Depth", False)
        photographs = self._given is not None and any(x is not None for x in self._given.images)
        self.photograph = gui.add_checkbox("Photograph", False, visible=photographs)
        self._jump = gui.add_button("To the first camera")
        self.name.on_update(lambda _: self.show())
        self.size.on_update(lambda _: self.resize())
        self.sharp.on_update(lambda _: self.resize())
        self.frusta.on_update(lambda _: self._toggle())
        self.depth.on_update(lambda _: self.recolour())
        self.photograph.on_update(lambda _: self.put_behind())
        self._jump.on_click(lambda event: self._go(event.client, 0))
        self._server.on_client_connect(lambda client: client.camera.on_update(self.look))
        self.panel = self._sampling and Panel(gui, self._sampling, self.add)
        self.show()

    def add(self, name: str, scene: Gaussians) -> None:
        """Adds a scene to those to choose from, in the place of one of its name, and shows it."""
        self._scenes[name] = scene
        self.name.options = tuple(self._scenes)
        self.name.visible = len(self._scenes) > 1
        if self.name.value == name:
            self.show()
        else:
            self.name.value = name  # which shows it

    def show(self) -> None:
        """Puts the chosen scene in the place of the last one."""
        scene = self._scenes[self.name.value]
        for node in self._nodes:
            node.remove()
        _, radius = framing.extent(scene)
        grow = np.diag([*[RADIUS / radius] * 3, 1.0]).astype(np.float32)
        views = self._given or _made_up(scene, self._up)
        moved = camera_lib.transform(views.cameras, jnp.asarray(grow))
        self._views = dataclasses.replace(views, cameras=moved)
        large = gaussians.transform(scene, jnp.asarray(grow))
        self._covariances = np.asarray(gaussians.covariances(large))
        self._centers, self._colors = (
            np.asarray(large.means),
            np.clip(np.asarray(large.colors), 0, 1),
        )
        self._blur = (
            image_blur(self._centers, moved) if self._given else np.zeros(len(self._centers))
        )
        self._eye = np.asarray(moved.centers[0], np.float64)
        self.splats = self._server.scene.add_gaussian_splats(
            "/splats",
            centers=self._centers,
            covariances=self._drawn_covariances(),
            rgbs=self._drawn_colors(),
            opacities=np.asarray(large.opacities)[:, None],
        )
        self.cameras = [self._add_camera(i) for i in range(len(moved))]
        self._nodes = [self.splats, *self.cameras]
        poses = np.asarray(moved.world_from_cam)
        upward = framing.mean_up(poses) if self._up is None else np.asarray(self._up, np.float64)
        self._server.scene.set_up_direction(upward)
        self._server.initial_camera.up = self._place(self._server.initial_camera, 0)
        self.put_behind()

    def look(self, camera: Any) -> None:
        """Follows a visitor's camera: distances, and the nearest photograph, are those from it."""
        eye = np.asarray(camera.position, np.float64)
        if np.linalg.norm(eye - self._eye) < _STEP * RADIUS:
            return
        self._eye = eye
        if self.depth.value:
            self.recolour()
        self.put_behind()

    def recolour(self) -> None:
        """Draws the splats in their own colours, or in those of their depth."""
        self.splats.rgbs = self._drawn_colors()

    def put_behind(self) -> None:
        """Shows the photograph of the camera nearest to the one in use, or none."""
        views, index = self._views, None
        if self.photograph.value:
            index = nearest_photograph(views, self._eye)
        if index != self._behind:
            self._behind = index
            image = None if index is None else views.images[index]
            self._server.scene.set_background_image(image)

    def _drawn_colors(self) -> np.ndarray:
        """Colours [N, 3] in [0, 1] that the controls ask for."""
        return distance_colors(self._centers, self._eye) if self.depth.value else self._colors

    def _drawn_covariances(self) -> np.ndarray:
        """Covariances [N, 3, 3] at the chosen size and blur, within what 16-bit floats hold."""
        drawn = self._covariances * 4.0**self.size.value
        if not self.sharp.value:
            drawn = drawn + self._blur[:, None, None] * np.eye(3, dtype=np.float32)
        return np.clip(drawn, -65504, 65504)

    def resize(self) -> None:
        """Draws the splats as large and sharp as the controls say."""
        self.splats.covariances = self._drawn_covariances()

    def _toggle(self) -> None:
        for node in self.cameras:
            node.visible = self.frusta.value

    def _add_camera(self, index: int) -> Any:
        """A pyramid with the photograph, if there is one; a click looks through it."""
        height, width = (int(side) for side in self._views.sizes[index])
        pose = self._views.cameras.world_from_cam[index]
        node = self._server.scene.add_camera_frustum(
            f"/cameras/{index}",
            fov=self._fov(index),
            aspect=width / height,
            scale=_FRUSTUM_LENGTH * RADIUS,
            thickness=0.0005 * RADIUS,
            color=_FRUSTUM_COLOR,
            image=self._views.images[index],
            wxyz=np.asarray(rotations.quats_from_matrix(pose[:3, :3])),
            position=np.asarray(pose[:3, 3]),
            visible=self.frusta.value,
        )
        node.on_click(lambda event: self._go(event.client, index))
        return node

    def _fov(self, index: int) -> float:
        """Vertical field of view in radians."""
        fy = float(self._views.cameras.intrinsics[index, 1])
        return float(2 * np.arctan(self._views.sizes[index, 0] / (2 * fy)))

    def _go(self, client: Any, index: int) -> None:
        with client.atomic():
            client.camera.up_direction = self._place(client.camera, index)

    def _place(self, camera: Any, index: int) -> np.ndarray:
        """Looks through a camera, and returns up [3] in its image, for which viser has two names.

        Turning goes around a point ahead of it.
        """
        pose = np.asarray(self._views.cameras.world_from_cam[index], np.float64)
        camera.position = pose[:3, 3]
        camera.look_at = pose[:3, 3] + 0.5 * RADIUS * pose[:3, 2]
        camera.fov = self._fov(index)
        return -pose[:3, 1]


def image_blur(centers: np.ndarray, cameras: Cameras) -> np.ndarray:
    """Variances [N] at points [N, 3] of the blur that `render` gives the images of cameras [V].

    viser blurs by pixels of the window, but a scene was made for those of its cameras' images,
    which are often larger: where they lie. The mean over the cameras that have a point ahead.
    """
    poses = np.asarray(cameras.world_from_cam, np.float64)
    depths = np.einsum("vi,vni->vn", poses[:, :3, 2], centers - poses[:, None, :3, 3])
    widths = np.maximum(depths, 0) / np.asarray(cameras.intrinsics, np.float64)[:, :1]
    ahead = np.maximum(np.sum(depths > 0, axis=0), 1)
    return np.float32(constants.EPS2D * np.sum(widths**2, axis=0) / ahead)


def distance_colors(centers: np.ndarray, eye: np.ndarray) -> np.ndarray:
    """Colours [N, 3] in [0, 1] of the distances of points [N, 3] from another: near is red."""
    distances = np.linalg.norm(centers - eye, axis=-1)
    return panels.colorize_depth(distances)[0] / 255


def nearest_photograph(views: Viewpoints, eye: np.ndarray) -> int | None:
    """The camera nearest to a point [3] among those with a photograph; None if there is none."""
    known = [i for i, image in enumerate(views.images) if image is not None]
    centers = np.asarray(views.cameras.centers)
    return min(known, key=lambda i: np.linalg.norm(centers[i] - eye), default=None)


def _made_up(scene: Gaussians, up: Sequence[float] | None) -> Viewpoints:
    cameras, image_size = framing.around(scene, framing.UP if up is None else up)
    count = len(cameras)
    return Viewpoints(cameras, np.tile(image_size, (count, 1)), (None,) * count)
