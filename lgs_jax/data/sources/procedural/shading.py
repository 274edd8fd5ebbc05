"""Colours of hits: patterns, lamp with shadows, fill and ambient light, contact shading.

Light is summed in linear RGB; pictures use a soft shoulder and a gamma of 2.
Letters: N hits, K things that stand on the floor.
"""

import numpy as np

from lgs_jax.data.sources.procedural import patterns, tracing
from lgs_jax.data.sources.procedural.scene import Scene
from lgs_jax.data.sources.procedural.tracing import Hits, LampView, Rays

_FLOOR = np.float32(0.03)  # metres below which things are part of the floor (rugs)
_CORNER_REACH = np.float32(0.3)  # metres over which corners darken
_CORNER_DEPTH = np.float32(0.55)
_CONTACT_REACH = np.float32(0.16)
_CONTACT_DEPTH = np.float32(0.6)
# Display square = x / (_WHITE x + _KNEE) for linear x.
_CONTRAST = np.float32(0.5)  # share of an S-curve that follows
_WHITE, _KNEE = np.float32(0.7), np.float32(0.5)


def albedo(scene: Scene, hits: Hits, footprint: np.ndarray) -> np.ndarray:
    """Linear reflectance of the hits [3, N], averaged over `footprint` metres [N]."""
    solids = scene.solids
    s = hits.surface
    first, second = patterns.bank().lookup(
        solids.pattern.take(s), hits.u, hits.v, footprint * solids.density.take(s)
    )
    base, change, over = (colors.take(s, axis=1) for colors in solids.colors)
    base += first * change
    over -= base
    over *= second
    base += over
    return base


def _corner_occlusion(scene: Scene, hits: Hits) -> np.ndarray:
    """Share of the surroundings that nearby walls, floor and ceiling hide [N]."""
    x, y, z = scene.room_size
    low = np.array([[-x / 2], [-y / 2], [0]], np.float32)
    high = np.array([[x / 2], [y / 2], [z]], np.float32)
    square = _CORNER_REACH * _CORNER_REACH
    half_normals = np.float32(0.5) * hits.normals
    to_low, to_high = hits.points - low, high - hits.points
    hidden = (np.float32(0.5) - half_normals) * (square / (square + to_low * to_low))
    hidden += (np.float32(0.5) + half_normals) * (square / (square + to_high * to_high))
    return np.minimum(hidden[0] + hidden[1] + hidden[2], 1)


def _contact_occlusion(scene: Scene, hits: Hits) -> tuple[np.ndarray, np.ndarray]:
    """Which hits lie on the floor [M], and how much of their light things beside hide [M]."""
    floor = np.flatnonzero((hits.points[2] < _FLOOR) & (hits.normals[2] > np.float32(0.9)))
    if not scene.contacts.size:
        return floor, np.zeros(floor.size, np.float32)
    x, y, cos, sin, half_x, half_y = scene.contacts.T[..., None]
    dx, dy = hits.points[0, floor] - x, hits.points[1, floor] - y
    out_x = np.maximum(np.abs(cos * dx + sin * dy) - half_x, 0)
    out_y = np.maximum(np.abs(cos * dy - sin * dx) - half_y, 0)
    square = _CONTACT_REACH * _CONTACT_REACH
    near = square / (square + out_x * out_x + out_y * out_y)
    return floor, (near * near).max(axis=0)


def _irradiance(scene: Scene, lamp: LampView, hits: Hits) -> tuple[np.ndarray, np.ndarray]:
    """Light on the hits [3, N] over pi, and where the lamp shines [N] bool."""
    lights = scene.lights
    towards = lamp.position - hits.points
    square = np.einsum("in,in->n", towards, towards)
    facing = np.einsum("in,in->n", towards, hits.normals) / np.sqrt(square)
    front = np.flatnonzero(facing > 0)
    reached = np.zeros(facing.size, bool)
    points, normals = hits.points.take(front, axis=1), hits.normals.take(front, axis=1)
    reached[front] = tracing.lit(scene.solids, lamp, points, normals)
    # A lamp of some size: the inverse-square law, flattened near it.
    reach = np.float32(lights.lamp_reach**2)
    open_share = 1 - _CORNER_DEPTH * _corner_occlusion(scene, hits)
    floor, contact = _contact_occlusion(scene, hits)
    open_share[floor] *= 1 - _CONTACT_DEPTH * contact
    basis = np.empty((4, facing.size), np.float32)
    basis[0] = facing * reached * (2 * reach / (square + reach))
    fill = np.array(lights.fill_direction, np.float32) @ hits.normals
    basis[1] = np.maximum(np.float32(0.6) * fill + np.float32(0.4), 0) * open_share
    basis[3] = (np.float32(0.5) - np.float32(0.5) * hits.normals[2]) * open_share
    basis[2] = open_share - basis[3]
    table = np.array([lights.lamp, lights.fill, lights.ambient_up, lights.ambient_down], np.float32)
    return table.T @ basis, reached


def shade(scene: Scene, lamp: LampView, rays: Rays, hits: Hits) -> tuple[np.ndarray, np.ndarray]:
    """Display colours [3, N] in [0, 1], and whether the lamp reaches each hit [N]."""
    cosine = np.abs(np.einsum("in,in->n", hits.normals, rays.directions))
    length = np.sqrt(np.einsum("in,in->n", rays.directions, rays.directions))
    # A slanted footprint is an ellipse; the square root lies between its two axes.
    slant = np.sqrt(length / np.maximum(cosine, np.float32(0.05)))
    color = albedo(scene, hits, hits.depth * np.float32(rays.pixel) * slant)
    light, reached = _irradiance(scene, lamp, hits)
    emission = scene.solids.emission.take(hits.surface)
    light += emission * (np.float32(1.2) - light)
    color *= light
    color /= color * _WHITE + _KNEE
    color = np.minimum(np.sqrt(color, out=color), 1)
    return color + _CONTRAST * (color * color * (3 - 2 * color) - color), reached
