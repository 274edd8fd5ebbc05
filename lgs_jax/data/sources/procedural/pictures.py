"""Pictures of a scene: one ray per pixel, several where the picture has an edge.

Letters: F frames, H, W image size, P solids, M pixels at edges, K samples per edge pixel.
"""

import numpy as np

from lgs_jax.data.sources.procedural import shading, tracing
from lgs_jax.data.sources.procedural.scene import Scene
from lgs_jax.data.sources.procedural.tracing import Hits, Rays

_THIN = 2.5  # solids narrower than this many pixels get extra samples wherever they may be

_VISIBLE = 0.06  # display values; a weaker step needs no extra samples
_ALL = slice(None)
_LEFT, _RIGHT = (_ALL, _ALL, slice(None, -1)), (_ALL, _ALL, slice(1, None))
_UPPER, _LOWER = (_ALL, slice(None, -1), _ALL), (_ALL, slice(1, None), _ALL)


def _samples(supersample: int) -> np.ndarray:
    """Sample positions within a pixel [K, 2]: a sheared grid, K distinct rows and columns."""
    k = np.arange(supersample * supersample)
    row = (k % supersample) * supersample + supersample - 1 - k // supersample
    return (np.stack([k, row], axis=1) + 0.5) / k.size


def _rays(scene: Scene, frames: np.ndarray, frame, u, v, height: int, width: int, pixel) -> Rays:
    """Rays through (u, v) in pixels [N] of the frames `frames[frame]`."""
    fx, fy, cx, cy = scene.intrinsics(height, width)
    poses = scene.world_from_cam[frames]
    in_camera = np.stack([(u - cx) / fx, (v - cy) / fy, np.ones_like(u)]).astype(np.float32)
    directions = np.empty_like(in_camera)
    bounds = np.searchsorted(frame, np.arange(len(frames) + 1))
    for f, pose in enumerate(poses[:, :3, :3].astype(np.float32)):
        part = slice(bounds[f], bounds[f + 1])
        directions[:, part] = pose @ in_camera[:, part]
    return Rays(frame, poses[:, :3, 3].astype(np.float32), directions, pixel / fx)


def _coverage(scene: Scene, frames: np.ndarray, height: int, width: int):
    """Pixels that each solid may touch [P, F, H, W], and those near thin solids [F, H, W]."""
    cam_from_world = np.linalg.inv(scene.world_from_cam[frames])
    low, high = tracing.bounding_rectangles(scene.solids.corners, cam_from_world)
    fx, fy, cx, cy = scene.intrinsics(height, width)
    focal, center = np.array([fx, fy]), np.array([cx, cy])
    low, high = low * focal + center, high * focal + center
    column, row = np.arange(width), np.arange(height)
    columns = (column + 1 > low[..., :1]) & (column < high[..., :1])
    rows = (row + 1 > low[..., 1:]) & (row < high[..., 1:])
    mask = rows[..., :, None] & columns[..., None, :]
    with np.errstate(invalid="ignore"):  # inf - inf: not thin
        thin = np.nan_to_num(high - low, nan=np.inf).min(axis=-1) < _THIN
    thin_pixels = np.zeros(mask.shape[1:], bool)
    for p, f in zip(*np.nonzero(thin)):
        thin_pixels[f] |= mask[p, f]
    return mask, thin_pixels


def _edges(code: np.ndarray, color: np.ndarray) -> np.ndarray:
    """Pixels [F, H, W] whose code and colour [3, F, H, W] both differ from a neighbour's."""
    edges = np.zeros(code.shape, bool)
    for a, b in ((_LEFT, _RIGHT), (_UPPER, _LOWER)):
        change = np.abs(color[(_ALL, *a)] - color[(_ALL, *b)])
        differ = (code[a] != code[b]) & (change.max(axis=0) > _VISIBLE)
        edges[a] |= differ
        edges[b] |= differ
    return edges


def primary_hits(
    scene: Scene, frames: np.ndarray, height: int, width: int
) -> tuple[Rays, Hits, np.ndarray, np.ndarray]:
    """Hits of the rays through the pixel centres, [F * H * W] each, frame by frame.

    Returns:
      The rays, the hits, and the two masks of `_coverage`.
    """
    mask, thin = _coverage(scene, frames, height, width)
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    count = len(frames)
    frame = np.repeat(np.arange(count), height * width)
    rays = _rays(
        scene, frames, frame, np.tile(u.ravel(), count), np.tile(v.ravel(), count), height, width, 1
    )
    hits = tracing.trace(scene, rays, mask.reshape(len(mask), -1))
    return rays, hits, mask, thin


def render(
    scene: Scene, frames: np.ndarray, height: int, width: int, supersample: int = 2
) -> np.ndarray:
    """Pictures of the given frames uint8 [F, H, W, 3].

    Pixels at the edge of a solid, a face or a shadow are averages of supersample^2 samples in
    display values, as a renderer of splats blends them; the others have one sample, for which
    the patterns are smoothed to the pixel's footprint. `supersample=1` turns this off.
    """
    frames = np.asarray(frames)
    rays, hits, mask, thin = primary_hits(scene, frames, height, width)
    lamp = tracing.lamp_view(scene.solids, scene.lights.lamp_position)
    color, reached = shading.shade(scene, lamp, rays, hits)
    if supersample > 1:
        shape = (len(frames), height, width)
        code = 2 * (8 * hits.surface + hits.face) + reached
        edge = np.flatnonzero(_edges(code.reshape(shape), color.reshape(3, *shape)) | thin)
        offsets = _samples(supersample)
        frame, rest = np.divmod(edge, height * width)
        row, column = np.divmod(rest, width)
        u = (column[:, None] + offsets[:, 0]).ravel()
        v = (row[:, None] + offsets[:, 1]).ravel()
        count = len(offsets)
        pixel = 1 / supersample
        rays = _rays(scene, frames, np.repeat(frame, count), u, v, height, width, pixel)
        near = mask.reshape(len(mask), -1)[:, edge].repeat(count, axis=1)
        samples, _ = shading.shade(scene, lamp, rays, tracing.trace(scene, rays, near))
        color[:, edge] = samples.reshape(3, -1, count).mean(axis=2)
    color *= 255
    color += np.float32(0.5)
    return color.astype(np.uint8).T.reshape(len(frames), height, width, 3)
