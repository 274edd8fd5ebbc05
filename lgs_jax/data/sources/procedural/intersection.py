"""Where rays enter unit solids, and the normals and coordinates of their faces there.

Arrays hold one component per row: o, d [3, N] are origins and directions in the solid's own frame
(a direction need not have unit length). Entry parameters t are inf where a ray misses. Rays are
taken to start outside of the solid. Letters: N rays.
"""

import numpy as np

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
    """Entry into solids sorted by kind [N].

    `ends` are the numbers of rays up to each kind; `radii` [2, M] are for the frustums' M rays.
    """
    boxes, ellipsoids, _ = ends
    t = np.empty(o.shape[1], np.float32)
    t[:boxes] = enter_box(o[:, :boxes], d[:, :boxes])
    t[boxes:ellipsoids] = enter_ellipsoid(o[:, boxes:ellipsoids], d[:, boxes:ellipsoids])
    t[ellipsoids:] = enter_frustum(o[:, ellipsoids:], d[:, ellipsoids:], radii)
    return t


def box_axis(p: np.ndarray) -> np.ndarray:
    """Axis of the face of the unit cube on which the points p [3, N] lie [N]."""
    x, y, z = np.abs(p)
    return np.where(z > np.maximum(x, y), 2, (y > x).astype(np.intp))


def pick(axis: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Component `axis` [N] of p [3, N]."""
    return np.where(axis == 0, p[0], np.where(axis == 1, p[1], p[2]))


def face_coordinates(axis: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two components of p [3, N] that run along faces across `axis` [N]; z is the second."""
    return np.where(axis == 0, p[1], p[0]), np.where(axis == 2, p[1], p[2])


def turn(p: np.ndarray) -> np.ndarray:
    """Turns around z, in [-0.5, 0.5] [N]."""
    return np.arctan2(p[1], p[0]) * np.float32(0.5 / np.pi)


def frustum_surface(p: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Faces [N] (0 side, 1 bottom, 2 top) and normals [3, N] of any length of frustums at p."""
    x, y, z = p
    radius = radii[0] + radii[1] * z
    # A point lies on whichever surface it misses by less.
    capped = 1 - np.abs(z) < np.abs(x * x + y * y - radius * radius)
    face = np.where(capped, 1 + (z > 0), 0)
    slope = -radii[1] * radius
    zero = np.float32(0)
    normal = np.stack(
        [np.where(capped, zero, x), np.where(capped, zero, y), np.where(capped, z, slope)]
    )
    return face, normal
