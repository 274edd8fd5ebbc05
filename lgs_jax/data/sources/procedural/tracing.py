"""Ray tracing of a scene: nearest hits of camera rays and shadows of the lamp.

Every solid is tried only with the rays inside its bounding rectangle, seen from the camera or from
the lamp, and the surviving (solid, ray) pairs of all solids are intersected together.
Letters: F frames, P solids, N rays, Q pairs.
"""

import dataclasses

import numpy as np

from lgs_jax.data.sources.procedural import intersection
from lgs_jax.data.sources.procedural.scene import Scene
from lgs_jax.data.sources.procedural.solids import BOX, ELLIPSOID, FRUSTUM, PackedSolids

_NEAR = np.float32(0.05)
_LIFT = np.float32(2e-3)  # metres by which shadow rays start above the surface


@dataclasses.dataclass(frozen=True)
class Rays:
    """Camera rays.

    Attributes:
      frame: number of the frame, index into `origins` [N].
      origins: camera centres [F, 3] float32.
      directions: world directions with z = 1 in the camera's axes [3, N] float32.
      pixel: size of a pixel (or of a sample of one) at depth 1.
    """

    frame: np.ndarray
    origins: np.ndarray
    directions: np.ndarray
    pixel: float


@dataclasses.dataclass(frozen=True)
class Hits:
    """What the rays hit.

    Attributes:
      depth: z-depth in metres [N].
      surface: surface number; solids first, then the faces of the room [N].
      face: face number within the solid [N].
      points: [3, N] in the world.
      normals: unit, outward [3, N].
      u, v: pattern coordinates [N].
    """

    depth: np.ndarray
    surface: np.ndarray
    face: np.ndarray
    points: np.ndarray
    normals: np.ndarray
    u: np.ndarray
    v: np.ndarray


def bounding_rectangles(
    corners: np.ndarray, cam_from_world: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rectangles around the solids in the plane at depth 1 of pinhole cameras.

    Returns:
      Lower and upper corners [P, F, 2]; all of the plane where a solid passes the near plane,
      empty (lower > upper) where it lies behind it.
    """
    rotation, shift = cam_from_world[:, :3, :3], cam_from_world[:, :3, 3]
    seen = np.einsum("fij,pcj->pfci", rotation, corners) + shift[:, None]
    depth = seen[..., 2]
    flat = seen[..., :2] / np.maximum(depth, _NEAR)[..., None]
    low, high = flat.min(axis=2), flat.max(axis=2)
    touching = (depth.min(axis=2) < _NEAR)[..., None]
    behind = (depth.max(axis=2) < _NEAR)[..., None]
    low = np.where(touching, np.where(behind, np.inf, -np.inf), low)
    high = np.where(touching, np.where(behind, -np.inf, np.inf), high)
    return low, high


def _pairs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Solid and ray of each true entry of mask [P, N], and where each solid's pairs begin."""
    count, rays = mask.shape
    flat = np.flatnonzero(mask)
    bounds = np.searchsorted(flat, np.arange(count + 1) * rays)
    solid = np.repeat(np.arange(count), np.diff(bounds))
    return solid, flat - solid * rays, bounds


def _enter_pairs(
    solids: PackedSolids, mask: np.ndarray, origin: np.ndarray, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Intersects the pairs of mask [P, N]; origin [F, 3, P] or [3, P] in own frames.

    Returns:
      Solid and ray of each pair [Q], entry t [Q], own origins and own directions [3, Q].
    """
    solid, ray, bounds = _pairs(mask)
    d = np.empty((3, ray.size), np.float32)
    gathered = directions.take(ray, axis=1)
    for p in range(solids.count):
        begin, end = bounds[p], bounds[p + 1]
        if end > begin:
            np.matmul(solids.linear[p], gathered[:, begin:end], out=d[:, begin:end])
    o = origin(solid, ray)
    ends = tuple(int(bounds[end]) for end in solids.ends)
    t = intersection.enter(o, d, solids.radii.take(solid, axis=1), ends)
    return solid, ray, t, o, d


def _room_hits(scene: Scene, rays: Rays) -> tuple[np.ndarray, np.ndarray]:
    """Depth at which the rays leave the room [N] and through which face [N]."""
    x, y, z = scene.room_size
    half = np.array([x / 2, y / 2, z / 2], np.float32)
    offset = (np.array([0, 0, z / 2], np.float32) - rays.origins).T[:, rays.frame]
    d = intersection.nonzero(rays.directions)
    t = (np.copysign(half[:, None], d) + offset) / d
    axis = t.argmin(axis=0)
    depth = np.minimum(np.minimum(t[0], t[1]), t[2])
    positive = d.ravel().take(axis * d.shape[1] + np.arange(d.shape[1])) > 0
    return depth, 2 * axis + positive


def _room_surface(scene: Scene, points: np.ndarray, face: np.ndarray):
    """Normals into the room [3, N], texture axes [2, N] and own coordinates [2, N]."""
    x, y, z = scene.room_size
    own = points - np.array([[0], [0], [z / 2]], np.float32)
    own /= np.array([[x / 2], [y / 2], [z / 2]], np.float32)
    across = face >> 1
    axes = np.stack([(across == 0).astype(np.int64), 2 - (across == 2)])
    return -intersection.FACE_NORMALS[:, face], axes, np.take_along_axis(own, axes, axis=0)


def trace(scene: Scene, rays: Rays, mask: np.ndarray) -> Hits:
    """Nearest hits of the rays; mask [P, N] says which solids each ray may meet."""
    solids = scene.solids
    depth, room_face = _room_hits(scene, rays)
    own = np.einsum("pij,fj->ipf", solids.linear, rays.origins) + solids.shift.T[..., None]
    own = own.reshape(3, -1).astype(np.float32)
    frames = len(rays.origins)
    solid, ray, t, o, d = _enter_pairs(
        solids,
        mask,
        lambda solid, ray: own.take(solid * frames + rays.frame.take(ray), axis=1),
        rays.directions,
    )
    nearest = depth.copy()
    np.minimum.at(nearest, ray, t)
    won = np.flatnonzero(t == nearest.take(ray))
    surface = solids.count + room_face
    surface[ray[won]] = solid[won]
    pair = np.full(nearest.size, -1)
    pair[ray[won]] = won
    points = rays.origins.T[:, rays.frame] + nearest * rays.directions
    return _describe(scene, nearest, surface, points, pair, solid, (o, d, t))


def _describe(scene, depth, surface, points, pair, solid, own) -> Hits:
    """Faces, normals and texture coordinates of the hits; `pair` is -1 on the room."""
    solids = scene.solids
    o, d, t = own
    face = np.zeros(depth.size, np.int64)
    normals = np.empty_like(points)
    uv = np.empty((2, depth.size), np.float32)
    walls = np.flatnonzero(pair < 0)
    face_of_room = surface[walls] - solids.count
    normals[:, walls], axes, along = _room_surface(scene, points[:, walls], face_of_room)
    uv[:, walls] = _texture_coordinates(solids, surface[walls], axes, along)
    begin = 0
    for kind, end in zip((BOX, ELLIPSOID, FRUSTUM), solids.ends):
        hit = np.flatnonzero((surface >= begin) & (surface < end))
        begin = end
        if not hit.size:
            continue
        which = pair[hit]
        p = o[:, which] + t[which] * d[:, which]
        s = solid[which]
        face[hit], normal, axes, along = intersection.surface(kind, p, solids.radii[:, s])
        linear = solids.linear[s]
        normal = np.einsum("nji,jn->in", linear, normal)
        normals[:, hit] = normal / np.sqrt((normal * normal).sum(axis=0))
        uv[:, hit] = _texture_coordinates(solids, s, axes, along)
    return Hits(depth, surface, face, points, normals, uv[0], uv[1])


def _texture_coordinates(solids: PackedSolids, surface, axes, along) -> np.ndarray:
    """Pattern coordinates [2, N]: own coordinates times scale plus offset, or turns around."""
    straight = np.minimum(axes, 2)
    number = solids.pattern.size
    flat = straight * number + surface
    straight_uv = along * solids.uv_scale.ravel()[flat] + solids.uv_shift.ravel()[flat]
    return np.where(axes == 3, along * solids.around[surface], straight_uv)


def lit(scene: Scene, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Whether the lamp shines on the points [3, N], ignoring which way they face [N] bool."""
    solids = scene.solids
    lamp = np.array(scene.lights.lamp_position, np.float32)
    towards = points + _LIFT * normals - lamp[:, None]
    # The lamp looks down: depth is the drop below it, so everything above it stays lit.
    down = np.eye(4)
    down[1, 1] = down[2, 2] = -1
    down[:3, 3] = -(down[:3, :3] @ lamp)
    low, high = bounding_rectangles(solids.corners, down[None])
    below = np.flatnonzero(towards[2] < -_NEAR)
    d = towards[:, below]
    x, y = -d[0] / d[2], d[1] / d[2]
    low, high = low[:, 0].astype(np.float32), high[:, 0].astype(np.float32)
    mask = (x > low[:, :1]) & (x < high[:, :1]) & (y > low[:, 1:]) & (y < high[:, 1:])
    own = (np.einsum("pij,j->ip", solids.linear, lamp) + solids.shift.T).astype(np.float32)
    _, ray, t, _, _ = _enter_pairs(solids, mask, lambda solid, ray: own.take(solid, axis=1), d)
    result = np.ones(points.shape[1], bool)
    result[below[ray[t < 1]]] = False
    return result
