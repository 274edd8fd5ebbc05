"""Scenes as one HTML file that draws them with WebGL2, without network or any other file.

The image is that of `lgs_jax.render`, with the numbers of `rendering.splat.constants`. A Gaussian
takes 34 bytes, which the page hands to the graphics card as they are. Letters: N Gaussians, V
cameras.
"""

import base64
import html
import io
import json
import pathlib
import re
import webbrowser
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np
from PIL import Image

from lgs_jax import files
from lgs_jax.core.cameras import Cameras
from lgs_jax.core.gaussians import Gaussians
from lgs_jax.inference.export import ply
from lgs_jax.inference.viewer import framing
from lgs_jax.rendering.splat import constants

# In the order in which they depend on each other.
SCRIPTS = (
    *("maths.js", "sorter.js", "shaders.js", "renderer.js", "camera.js", "input.js", "capture.js"),
    "main.js",
)
# The limits of depth that `lgs_jax.render` has by default.
_NEAR, _FAR = 0.01, 1e10
_MAX_IMAGE_SIDE = 1024
_LOSSLESS_BELOW = 256 * 256  # pixels


def write_html(
    path: str | pathlib.Path,
    scenes: Gaussians | Mapping[str, Gaussians],
    cameras: Cameras | None = None,
    image_size: tuple[int, int] | np.ndarray | None = None,
    *,
    title: str = "",
    images: Sequence[np.ndarray | None] | None = None,
    background: float | Sequence[float] = 0.0,
    up: Sequence[float] | None = None,
) -> pathlib.Path:
    """Writes the page and returns its path; the file appears only when complete.

    Args:
      path: where to.
      scenes: one RGB scene, or several by name, among which the page switches.
      cameras: [V] in the frame of the scenes; the page opens at the first and jumps to the others.
        None: some are made up around each scene.
      image_size: H, W of the cameras' images, or one for each camera [V, 2].
      title: of the page; default: the name of the file.
      images: photographs uint8 [h, w, 3] of the cameras, None where a camera has none; shown beside
        the cameras and over the scene, at most 1024 pixels a side.
      background: grey or RGB in [0, 1].
      up: direction [3] that is up when turning; default: the mean up of the cameras' images, or -y.

    Raises:
      ValueError: if a scene is batched, not RGB or holds values that cannot be drawn, or the
        cameras, sizes and images do not fit together.
    """
    path = pathlib.Path(path)
    scenes = {"": scenes} if isinstance(scenes, Gaussians) else dict(scenes)
    if not scenes:
        raise ValueError(f"{path}: there is no scene to show")
    records, payloads = [], []
    for name, scene in scenes.items():
        record, payload = pack(f"{path}, scene {name!r}" if name else path, scene)
        records.append({"name": name, **record})
        payloads.append(payload)
    if cameras is None:
        if images is not None or image_size is not None:
            raise ValueError(f"{path}: images and image_size need the cameras that they belong to")
        sets = [_made_up(scene, up) for scene in scenes.values()]
    else:
        sets = [_camera_set(path, cameras, image_size, images, up)]
    for i, record in enumerate(records):
        record["cameraSet"] = min(i, len(sets) - 1)
    settings = {
        "constants": {
            "maxAlpha": constants.MAX_ALPHA,
            "minAlpha": constants.MIN_ALPHA,
            "maxExtent": constants.MAX_EXTENT,
            "frustumMargin": constants.FRUSTUM_MARGIN,
            "blur": constants.EPS2D,
            "near": _NEAR,
            "far": _FAR,
        },
        "background": _background(path, background),
        "scenes": records,
        "cameraSets": sets,
    }
    with files.replacing(path) as partial:
        partial.write_text(_page(title or path.stem, settings, payloads), encoding="utf-8")
    return path


def open_in_browser(address: str) -> None:
    """Shows a page to the user, or says where it is if there is no browser."""
    if not webbrowser.open(address):
        print(f"there is no browser to open {address} in; open it yourself", flush=True)


def pack(path: str | pathlib.Path, scene: Gaussians) -> tuple[dict[str, Any], bytes]:
    """A scene as numbers that the page reads, one array after another.

    The arrays are: means float32 [N, 3]; unit quaternions wxyz as int16 [N, 4], 32767 for 1;
    logarithms of the scales as uint16 [N, 3], in steps from the lowest; colours and opacity as
    float16 [N, 4]. All are little endian.

    Args:
      path: where the scene goes, for messages.
      scene: one RGB scene.

    Returns:
      The count and the two numbers that give the scales their meaning, and the arrays.

    Raises:
      ValueError: if the scene is batched, empty, not RGB, or holds values that cannot be drawn.
    """
    means, quats, scales, opacities, colors = ply.host_values(path, scene)
    logs = np.log(scales)
    lowest = logs.min()
    step = max((logs.max() - lowest) / 65535, 1e-9)
    unit = quats / np.linalg.norm(quats, axis=-1, keepdims=True)
    half = np.concatenate([colors, opacities[:, None]], axis=-1)
    arrays = (
        means.astype("<f4"),
        np.rint(32767 * unit).astype("<i2"),
        np.rint((logs - lowest) / step).astype("<u2"),
        np.clip(half, -65504, 65504).astype("<f2"),
    )
    record = {"count": len(means), "lowestLogScale": float(lowest), "logScaleStep": float(step)}
    return record, b"".join(array.tobytes() for array in arrays)


def _made_up(scene: Gaussians, up: Sequence[float] | None) -> dict[str, Any]:
    up = framing.UP if up is None else up
    cameras, image_size = framing.around(scene, up)
    return _camera_set("", cameras, image_size, None, up) | {"given": False}


def _camera_set(
    path: str | pathlib.Path,
    cameras: Cameras,
    image_size: tuple[int, int] | np.ndarray | None,
    images: Sequence[np.ndarray | None] | None,
    up: Sequence[float] | None,
) -> dict[str, Any]:
    """Cameras as the page reads them."""
    cameras.check()
    if len(cameras.batch_shape) != 1 or not len(cameras):
        raise ValueError(f"{path}: expected cameras [V], got {cameras.batch_shape}")
    count = len(cameras)
    if np.shape(image_size) not in ((2,), (count, 2)):
        raise ValueError(
            f"{path}: {image_size=} must be H, W of the cameras' images, or one of each of the "
            f"{count} cameras"
        )
    if images is not None and len(images) != count:
        raise ValueError(f"{path}: {len(images)} images for {count} cameras; give None for gaps")
    poses = np.asarray(cameras.world_from_cam, np.float64)
    intrinsics = np.asarray(cameras.intrinsics, np.float64)
    if not (np.isfinite(poses).all() and np.isfinite(intrinsics).all()):
        raise ValueError(f"{path}: the cameras hold values that are NaN or infinite")
    sizes = np.broadcast_to(image_size, (count, 2))
    entries = [
        {
            "pose": poses[i, :3].ravel().tolist(),
            "intrinsics": intrinsics[i].tolist(),
            "width": int(sizes[i, 1]),
            "height": int(sizes[i, 0]),
            "image": None if images is None or images[i] is None else _data_url(images[i]),
        }
        for i in range(count)
    ]
    upward = framing.mean_up(poses) if up is None else np.asarray(up, np.float64)
    return {"given": True, "up": (upward / np.linalg.norm(upward)).tolist(), "cameras": entries}


def _data_url(pixels: np.ndarray) -> str:
    """A picture uint8 [h, w, 3] inside an address: PNG if small, else JPEG."""
    image = Image.fromarray(np.asarray(pixels))
    image.thumbnail((_MAX_IMAGE_SIDE, _MAX_IMAGE_SIDE))
    kind = "png" if image.width * image.height <= _LOSSLESS_BELOW else "jpeg"
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 90} if kind == "jpeg" else {}))
    return f"data:image/{kind};base64,{_base64(buffer.getvalue())}"


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _background(path: pathlib.Path, background: float | Sequence[float]) -> list[float]:
    values = np.asarray(background, np.float64)
    if values.shape not in ((), (3,)) or not np.all((values >= 0) & (values <= 1)):
        raise ValueError(f"{path}: {background=} must be a grey or RGB in [0, 1]")
    return np.broadcast_to(values, 3).tolist()


def _page(title: str, settings: dict[str, Any], payloads: list[bytes]) -> str:
    """The template with everything in its place."""
    folder = resources.files("lgs_jax.inference.viewer") / "page"
    parts = {
        "title": html.escape(title),
        "scripts": "\n".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS),
        # No "<", so that no name of a scene ends the element.
        "settings": json.dumps(settings, allow_nan=False).replace("<", "\\u003c"),
        "payloads": "\n".join(
            f'<script type="text/plain" id="scene-{i}">{_base64(payload)}</script>'
            for i, payload in enumerate(payloads)
        ),
    }
    template = (folder / "template.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], template)
