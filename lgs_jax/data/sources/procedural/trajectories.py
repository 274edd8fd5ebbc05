"""Camera paths: walks through a room and arcs around an object.

Poses are camera-to-world with OpenCV axes in a world with z up. Letters: F frames.
"""

import math
import random

import numpy as np

MARGIN = 0.35  # metres kept from the walls


def look_at(centers: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Upright poses [F, 4, 4] at `centers` [F, 3] looking at `targets` [F, 3], float64."""
    forward = targets - centers
    forward /= np.linalg.norm(forward, axis=-1, keepdims=True)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    down = np.cross(forward, right)
    poses = np.tile(np.eye(4), (len(centers), 1, 1))
    poses[:, :3, :3] = np.stack([right, down, forward], axis=-1)
    poses[:, :3, 3] = centers
    return poses


def _progress(num_frames: int) -> np.ndarray:
    """Evenly spaced in [-0.5, 0.5] [F]."""
    return np.linspace(-0.5, 0.5, num_frames) if num_frames > 1 else np.zeros(1)


def walk(rng: random.Random, room_size: tuple[float, float, float], num_frames: int) -> np.ndarray:
    """A sideways and forward walk near the low-y side of a room, looking towards high y.

    The view turns by 45 to 80 degrees on the way, with the walk or against it.
    """
    x, y, _ = room_size
    s = _progress(num_frames)[:, None]
    heading = rng.uniform(-0.6, 0.6)
    forward = np.array([math.sin(heading), math.cos(heading), 0.0])
    right = np.array([math.cos(heading), -math.sin(heading), 0.0])
    middle = np.array(
        [
            -0.35 * x * math.sin(heading) + rng.uniform(-0.12, 0.12) * x,
            -y / 2 + rng.uniform(0.7, 1.3),
            rng.uniform(1.15, 1.65),
        ]
    )
    side = rng.choice([-1, 1])
    sideways, ahead = side * rng.uniform(1.2, 2.1), rng.uniform(-0.2, 0.9)
    bow, climb = rng.uniform(-0.25, 0.25), rng.uniform(-0.15, 0.15)
    offset = right * (sideways * s) + forward * (ahead * s + bow * (4 * s * s - 0.5))
    offset[:, 2] += (climb * s)[:, 0]
    centers = middle + offset
    limit = np.array([x / 2 - MARGIN, y / 2 - MARGIN])
    # A walk that would leave the room is pulled back as a whole, then shortened.
    over = np.maximum(centers[:, :2] - limit, 0).max(axis=0)
    under = np.maximum(-limit - centers[:, :2], 0).max(axis=0)
    centers[:, :2] += under - over
    centers[:, :2] = np.clip(centers[:, :2], -limit, limit)
    turn = math.radians(rng.uniform(45, 80)) * side * rng.choice([-1, 1])
    yaw = heading + turn * s[:, 0]
    pitch = math.radians(rng.uniform(8, 18)) + math.radians(rng.uniform(-6, 6)) * s[:, 0]
    gaze = np.stack([np.sin(yaw), np.cos(yaw), -np.tan(pitch)], axis=-1)
    return look_at(centers, centers + gaze)


def arc(
    rng: random.Random, height: float, distance: float, num_frames: int, limit: float
) -> np.ndarray:
    """An arc of 90 to 150 degrees around the z axis, looking at about `height`.

    The gaze wanders around the object. The horizontal distance from the axis stays below `limit`.
    """
    s = _progress(num_frames)
    sweep = math.radians(rng.uniform(90, 150)) * rng.choice([-1, 1])
    azimuth = rng.uniform(0, 2 * math.pi) + sweep * s
    elevation = math.radians(rng.uniform(16, 38)) + math.radians(rng.uniform(-14, 14)) * s
    radius = distance * (1 + rng.uniform(-0.35, 0.35) * s)
    flat = np.minimum(radius * np.cos(elevation), limit)
    centers = np.stack(
        [flat * np.cos(azimuth), flat * np.sin(azimuth), height + radius * np.sin(elevation)],
        axis=-1,
    )
    # The gaze wanders around the object, as of somebody who walks and films.
    wander = rng.uniform(0, 2 * math.pi) + rng.choice([-1, 1]) * rng.uniform(2, 4) * s
    reach = rng.uniform(0.12, 0.22) * distance
    targets = np.stack([reach * np.cos(wander), reach * np.sin(wander), 0 * s + height], axis=-1)
    return look_at(centers, targets)
