"""Camera poses in space as columns of `Places`: where a camera stands on the ground, and its heading.

A camera's own axes are COLMAP's and OpenCV's: x to the right of the image, y down, z forward. A world has a frame of
its own, in metres; which of its axes points up differs from data set to data set.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from data_pipelines import geo
from data_pipelines.errors import DataError

Array = np.ndarray
# The axis that points up -> those taken as east and north, so that east, north, up are right-handed: seen from above,
# headings then run clockwise as they do on a map.
FRAMES = {
    "z": ("x", "y"),
    "-z": ("x", "-y"),
    "y": ("x", "-z"),
    "-y": ("x", "z"),
    "x": ("y", "z"),
    "-x": ("y", "-z"),
}
UPRIGHT = 0.5  # the least cosine of the mean of the cameras' vertical axes with an axis of the world
LEVEL = 1e-3  # a camera whose view has less than this along the ground looks straight up or down


def rotations(quaternions: Array) -> Array:
    """Rotation matrices float64 [N, 3, 3] of quaternions [N, 4] (w, x, y, z), of any length but zero."""
    w, x, y, z = (quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).T
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def upward(orientation: Array, name: str) -> str:
    """Which axis of the world points up, a key of `FRAMES`: the one that the cameras' own are nearest to on average.

    Cameras turn about the vertical, so that what they have in common is the direction down.

    Args:
      orientation: [N, 3, 3], from the camera's axes to the world's.
      name: of the data set, for errors.

    Raises:
      DataError: where there is no camera, or the cameras do not agree on any axis.
    """
    if not len(orientation):
        raise DataError(
            f"{name}: no image has a pose, so that the axis that points up is unknown. Set up to one of {list(FRAMES)}"
        )
    mean = -orientation[:, :, 1].mean(axis=0)
    axis = int(np.argmax(np.abs(mean)))
    if not abs(mean[axis]) >= UPRIGHT:
        raise DataError(
            f"{name}: no axis of the world is up for most cameras (their mean is {np.round(mean, 2).tolist()}). "
            f"Set up to one of {list(FRAMES)}"
        )
    return "-" * bool(mean[axis] < 0) + "xyz"[axis]


def on_the_ground(orientation: Array, position: Array, up: str) -> dict[str, Any]:
    """Columns of `Places` from poses.

    Args:
      orientation: [N, 3, 3], from the camera's axes to the world's.
      position: [N, 3] of the cameras in the world, metres.
      up: the world's axis that points up, a key of `FRAMES`, which also gives east and north.

    Returns:
      east, north float64 [N] metres; heading float32 [N], degrees in [0, 360) clockwise from north of the camera's z,
      NaN where it looks straight up or down.

    Raises:
      DataError: for another `up`.
    """
    if up not in FRAMES:
        raise DataError(f"no axis up={up!r}; there are {list(FRAMES)}")
    axes = FRAMES[up]
    east, north = (_along(position, axis) for axis in axes)
    right, ahead = (_along(orientation[:, :, 2], axis) for axis in axes)
    heading = geo.wrapped(np.degrees(np.arctan2(right, ahead)))
    heading[np.hypot(right, ahead) < LEVEL] = np.nan
    return {"east": east, "north": north, "heading": heading}


def _along(vectors: Array, axis: str) -> Array:
    values = vectors[:, "xyz".index(axis[-1])]
    return -values if axis.startswith("-") else values
