"""Where rays enter unit solids, and the normal and texture coordinates there.

Arrays hold one component per row: o, d [3, N] are origins and directions in the solid's own frame
(a direction need not have unit length). Entry parameters t are inf where a ray misses. Rays are
taken to start outside of the solid. Letters: N rays.
"""

import numpy as np

from lgs_jax.data.sources.procedural.solids import BOX, ELLIPSOID, FRUSTUM

_TINY = np.float32(1e-9)
_INF = np.float32(np.inf)


def nonzero(x: np.ndarray) -> np.ndarray:
    """x with values too small to divide by replaced by a tiny one."""
    return np.where(np.abs(x) < _TINY, _TINY, x)


def enter_box(o: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Entry into the cube [-1, 1]^3 [N]."""
    inverse = 1 / nonzero(d)
    middle = -o * inverse
    reach = np.abs(inverse)
    near = (middle - reach).max(axis=0)
    far = (middle + reach).min(axis=0)
    return np.where((near < far) & (near > 0), near, _INF)


def enter_ellipsoid(o: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Entry into the unit ball [N]."""
    a = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
    b = d[0] * o[0] + d[1] * o[1] + d[2] * o[2]
    # The closest point's distance is computed from its coordinates: b^2 - a c would cancel.
    s = -b / a
    x, y, z = o[0] + s * d[0], o[1] + s * d[1], o[2] + s * d[2]
    inside = 1 - (x * x + y * y + z * z)
    t = s - np.sqrt(np.maximum(inside, 0) / a)
    return np.where((inside > 0) & (t > 0), t, _INF)


def enter_frustum(o: np.ndarray, d: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Entry into a frustum of radius radii[0] + radii[1] z, |z| <= 1, radii [2, N] [N]."""
    base, slope = radii
    ro, rd = base + slope * o[2], slope * d[2]
    a = nonzero(d[0] * d[0] + d[1] * d[1] - rd * rd)
    b = d[0] * o[0] + d[1] * o[1] - rd * ro
    c = o[0] * o[0] + o[1] * o[1] - ro * ro
    square = b * b - a * c
    root = np.sqrt(np.maximum(square, 0))
    best = np.full_like(a, _INF)
    for t in ((-b - root) / a, (-b + root) / a):
        z = o[2] + t * d[2]
        valid = (square > 0) & (t > 0) & (np.abs(z) <= 1) & (t < best)
        best = np.where(valid, t, best)
    down = nonzero(d[2])
    cap = -np.sign(down)
    t = (cap - o[2]) / down
    x, y = o[0] + t * d[0], o[1] + t * d[1]
    radius = base + slope * cap
    return np.where((t > 0) & (x * x + y * y <= radius * radius) & (t < best), t, best)


def enter(
    o: np.ndarray, d: np.ndarray, radii: np.ndarray, ends: tuple[int, int, int]
) -> np.ndarray:
    """Entry into solids sorted by kind: `ends` are the numbers of rays up to each kind [N]."""
    boxes, ellipsoids, _ = ends
    t = np.empty(o.shape[1], np.float32)
    t[:boxes] = enter_box(o[:, :boxes], d[:, :boxes])
    t[boxes:ellipsoids] = enter_ellipsoid(o[:, boxes:ellipsoids], d[:, boxes:ellipsoids])
    t[ellipsoids:] = enter_frustum(o[:, ellipsoids:], d[:, ellipsoids:], radii[:, ellipsoids:])
    return t


def box_face(p: np.ndarray) -> np.ndarray:
    """Face (x low, x high, y low, ...) of the unit cube on which the points p [3, N] lie [N]."""
    axis = np.abs(p).argmax(axis=0)
    return 2 * axis + (np.take_along_axis(p, axis[None], axis=0)[0] > 0)


FACE_NORMALS = np.array([[-1, 1, 0, 0, 0, 0], [0, 0, -1, 1, 0, 0], [0, 0, 0, 0, -1, 1]], np.float32)
_CAP = np.float32(1 - 1e-3)


def surface(
    kind: int, p: np.ndarray, radii: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The surface of solids of one kind at the points p [3, N].

    Returns:
      Face numbers [N], normals [3, N] (own frame, any length), the two axes that carry the texture
      [2, N], and the coordinates along them [2, N]; axis 3 stands for the turn around z in [0, 1).
    """
    if kind == BOX:
        face = box_face(p)
        across = face >> 1
        axes = np.stack([(across == 0).astype(np.int64), 2 - (across == 2)])
        return face, FACE_NORMALS[:, face], axes, np.take_along_axis(p, axes, axis=0)
    turn = np.arctan2(p[1], p[0]) * np.float32(0.5 / np.pi)
    if kind == ELLIPSOID:
        face = np.zeros(p.shape[1], np.int64)
        return face, p, np.tile(np.array([[3], [2]]), face.size), np.stack([turn, p[2]])
    if kind != FRUSTUM:
        raise ValueError(f"unknown {kind=}; expected {BOX=}, {ELLIPSOID=} or {FRUSTUM=}")
    up = p[2]
    capped = np.abs(up) > _CAP
    face = np.where(capped, 1 + (up > 0), 0)
    side = np.stack([p[0], p[1], -radii[1] * (radii[0] + radii[1] * up)])
    zero = np.zeros_like(up)
    normal = np.where(capped, np.stack([zero, zero, np.sign(up)]), side)
    axes = np.where(capped, np.array([[0], [1]]), np.array([[3], [2]]))
    return face, normal, axes, np.where(capped, p[:2], np.stack([turn, up]))
