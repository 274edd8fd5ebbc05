"""Ray tracing of a scene: nearest hits of camera rays and shadows of the lamp.

Every solid is tried only with the rays inside its bounding rectangle, seen from the camera or from
the lamp, and the surviving (solid, ray) pairs of all solids are intersected together.
Letters: F frames, P solids, N rays, Q pairs.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from lgs_jax.data.sources.procedural import intersection
from lgs_jax.data.sources.procedural.scene import Scene
from lgs_jax.data.sources.procedural.solids import PackedSolids, Triple

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
    solids: PackedSolids,
    mask: np.ndarray,
    origin: Callable[[np.ndarray, np.ndarray], np.ndarray],
    directions: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Intersects the pairs of mask [P, N]; origin(solid, ray) gives their own origins [3, Q].

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
    radii = solids.radii.take(solid[ends[1] :], axis=1)
    t = intersection.enter(o, d, radii, ends)
    return solid, ray, t, o, d


def _room_hits(scene: Scene, rays: Rays) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Depth at which the rays leave the room [N], across which axis [N], and to which side [N]."""
    x, y, z = scene.room_size
    half = np.array([[x / 2], [y / 2], [z / 2]], np.float32)
    offset = np.array([[0], [0], [z / 2]], np.float32) - rays.origins.T
    d = intersection.nonzero(rays.directions)
    t = (np.copysign(half, d) + offset.take(rays.frame, axis=1)) / d
    near = t[1] < t[0]
    depth = np.where(near, t[1], t[0])
    axis = np.where(t[2] < depth, 2, near.astype(np.intp))
    return np.minimum(depth, t[2]), axis, (intersection.pick(axis, d) > 0).astype(np.intp)


def _room_uv(scene: Scene, points: np.ndarray, axis: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Pattern coordinates [2, N] of points on the faces of the room."""
    solids = scene.solids
    u, v = intersection.face_coordinates(axis, points)
    density = solids.density[solids.count :]
    u_shift, v_shift, _ = solids.uv_shift[:, solids.count :]
    return np.stack([u, v]) * density.take(face) + np.stack([u_shift, v_shift]).take(face, axis=1)


def trace(scene: Scene, rays: Rays, mask: np.ndarray) -> Hits:
    """Nearest hits of the rays; mask [P, N] says which solids each ray may meet."""
    solids = scene.solids
    depth, axis, high = _room_hits(scene, rays)
    own = np.einsum("pij,fj->ipf", solids.linear, rays.origins) + solids.shift.T[..., None]
    own = own.reshape(3, -1)
    frames = len(rays.origins)
    solid, ray, t, o, d = _enter_pairs(
        solids,
        mask,
        lambda solid, ray: own.take(solid * frames + rays.frame.take(ray), axis=1),
        rays.directions,
    )
    np.minimum.at(depth, ray, t)
    won = np.flatnonzero(t == depth.take(ray))
    ray, solid = ray.take(won), solid.take(won)
    points = rays.origins.T.take(rays.frame, axis=1) + depth * rays.directions
    face = 2 * axis + high
    surface = solids.count + face
    inward = np.float32(1 - 2 * high)
    normals = np.stack([np.where(axis == k, inward, np.float32(0)) for k in range(3)])
    uv = _room_uv(scene, points, axis, face)
    own_points = o.take(won, axis=1) + t.take(won) * d.take(won, axis=1)
    surface[ray] = solid
    face[ray], normals_there, uv_there = _describe(solids, solid, own_points)
    for row, there in zip((*normals, *uv), (*normals_there, *uv_there)):
        row[ray] = there
    return Hits(depth, surface, face, points, normals, uv[0], uv[1])


def _describe(
    solids: PackedSolids, solid: np.ndarray, p: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Faces [N], unit normals [3, N] and pattern coordinates [2, N] at own points p [3, N].

    `solid` [N] ascends, so the kinds follow one another.
    """
    boxes, ellipsoids = np.searchsorted(solid, solids.ends[:2])
    number = solids.pattern.size
    scale, shift = solids.uv_scale.ravel(), solids.uv_shift.ravel()

    s, q = solid[:boxes], p[:, :boxes]
    axis = intersection.box_axis(q)
    high = intersection.pick(axis, q) > 0
    normal = solids.axes.take(3 * s + axis, axis=1) * (2 * high - 1).astype(np.float32)
    u, v = intersection.face_coordinates(axis, q)
    row_u, row_v = s + number * (axis == 0), s + number * (2 - (axis == 2))
    u = u * scale.take(row_u) + shift.take(row_u)
    v = v * scale.take(row_v) + shift.take(row_v)

    s, q = solid[boxes:], p[:, boxes:]
    face, own_normal = intersection.frustum_surface(q, solids.radii.take(s, axis=1))
    round_ = ellipsoids - boxes
    face[:round_] = 0
    own_normal[:, :round_] = q[:, :round_]
    own_normal = own_normal * solids.inverse_half.take(s, axis=1)
    turned = sum(own_normal[k] * solids.axes.take(3 * s + k, axis=1) for k in range(3))
    turned /= np.sqrt((turned * turned).sum(axis=0))
    row_u, row_v = s, s + number * np.where(face > 0, 1, 2)
    flat_u = q[0] * scale.take(row_u) + shift.take(row_u)
    around = intersection.turn(q) * solids.around.take(s)
    flat_v = np.where(face > 0, q[1], q[2]) * scale.take(row_v) + shift.take(row_v)
    return (
        np.concatenate([2 * axis + high, face]),
        np.concatenate([normal, turned], axis=1),
        np.stack(
            [np.concatenate([u, np.where(face > 0, flat_u, around)]), np.concatenate([v, flat_v])]
        ),
    )


@dataclasses.dataclass(frozen=True)
class LampView:
    """The solids as seen from the lamp, which looks down.

    Attributes:
      position: of the lamp [3, 1].
      low, high: corners of bounding rectangles at depth 1, (x, -y) [2, P, 1].
      own: the lamp's position in the solids' own frames [3, P].
    """

    position: np.ndarray
    low: np.ndarray
    high: np.ndarray
    own: np.ndarray


def lamp_view(solids: PackedSolids, lamp_position: Triple) -> LampView:
    """Makes the view; it serves all pictures of a scene."""
    lamp = np.array(lamp_position)
    down = np.diag([1.0, -1.0, -1.0, 1.0])
    down[:3, 3] = -(down[:3, :3] @ lamp)
    low, high = bounding_rectangles(solids.corners, down[None])
    return LampView(
        position=lamp[:, None].astype(np.float32),
        low=low[:, 0].T[..., None].astype(np.float32),
        high=high[:, 0].T[..., None].astype(np.float32),
        own=(np.einsum("pij,j->ip", solids.linear, lamp) + solids.shift.T).astype(np.float32),
    )


def lit(solids: PackedSolids, lamp: LampView, points: np.ndarray, normals: np.ndarray):
    """Whether the lamp shines on the points [3, N], ignoring which way they face [N] bool."""
    towards = points + _LIFT * normals - lamp.position
    # Whatever is above the lamp stays lit: solids are below it.
    below = np.flatnonzero(towards[2] < -_NEAR)
    d = towards.take(below, axis=1)
    x, y = -d[0] / d[2], d[1] / d[2]
    mask = x > lamp.low[0]
    mask &= x < lamp.high[0]
    mask &= y > lamp.low[1]
    mask &= y < lamp.high[1]
    _, ray, t, _, _ = _enter_pairs(solids, mask, lambda solid, ray: lamp.own.take(solid, axis=1), d)
    result = np.ones(points.shape[1], bool)
    result[below[ray[t < 1]]] = False
    return result
