"""The description of one procedural scene: everything a picture of it depends on."""

import dataclasses

import numpy as np

from lgs_jax.data.sources.procedural.solids import Color, PackedSolids, Triple


@dataclasses.dataclass(frozen=True)
class Lights:
    """Light of a scene, linear RGB.

    Attributes:
      lamp_position: point light that throws the shadows, metres; above all solids.
      lamp: its light on a surface that faces it at distance `lamp_reach`.
      lamp_reach: metres.
      fill_direction: unit vector towards a wide second light without shadows.
      fill: its light on a surface that faces it.
      ambient_up, ambient_down: light from everywhere on surfaces facing up and down.
    """

    lamp_position: Triple
    lamp: Color
    lamp_reach: float
    fill_direction: Triple
    fill: Color
    ambient_up: Color
    ambient_down: Color


@dataclasses.dataclass(frozen=True)
class Scene:
    """A room (or the stage around an object) with solids, lights and a camera path.

    Attributes:
      solids: all solids, then the six faces of the room.
      room_size: extents (x, y, z); the room is [-x/2, x/2] x [-y/2, y/2] x [0, z].
      contacts: what stands on the floor [K, 6]: x, y, cos yaw, sin yaw, half sizes.
      lights: the lights.
      world_from_cam: poses [F, 4, 4] float64, OpenCV axes, world z up.
      fov: field of view across the larger image side, radians.
      class_name: kind of the scene's main content.
    """

    solids: PackedSolids
    room_size: Triple
    contacts: np.ndarray
    lights: Lights
    world_from_cam: np.ndarray
    fov: float
    class_name: str

    def intrinsics(self, height: int, width: int) -> np.ndarray:
        """fx, fy, cx, cy in pixels of an image of that size."""
        focal = 0.5 * max(height, width) / np.tan(self.fov / 2)
        return np.array([focal, focal, width / 2, height / 2])
