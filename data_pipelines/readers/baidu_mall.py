"""Baidu Mall: photos of a shopping mall with a camera file each (Sun et al., CVPR 2017, "A Dataset for Benchmarking
Image-based Localization")."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from data_pipelines import poses
from data_pipelines.errors import DataError, short
from data_pipelines.places import FARTHEST, ROLES, SPLITS, Paths, Places, index_of
from data_pipelines.readers import at_names, listing, text

Array = np.ndarray
FOLDERS = {"database": ("training_images_undistort", "training_gt"), "query": ("query_images_undistort", "query_gt")}
# The lines of a camera file: how many numbers each holds, and what they are.
LINES = (
    *[(3, "the camera matrix")] * 3,
    (3, "the distortion"),
    *[(3, "the rotation")] * 3,
    (3, "the position"),
    (2, "the size"),
)
SKEWED = 1e-2  # how far a rotation's rows may be from unit length and right angles, for numbers written with few digits


def read(
    root: str | os.PathLike[str], *, split: str | None = None, up: str | None = None, name: str | None = None
) -> Places:
    """Reads `training_images_undistort` as the database and `query_images_undistort` as the queries.

    The pose of an image is in the file of its name and the suffix `.camera`, in `training_gt` and `query_gt`: nine
    lines with camera matrix (three), distortion, rotation (three) from the camera's axes to the world's, position, and
    width and height. Positions are metres in the mall's own frame (zone -1); heading is that of the camera on the
    ground, clockwise from north, with the axes of `poses.FRAMES`. A root in the format of '@' names, with its `images`
    or a folder of a split, is read as `at_names` reads it.

    Args:
      root: the data set.
      split: of all rows.
      up: the axis of the world that points up ("z", "-y", ...); by default the one that the training cameras agree on.
      name: of the data set, for reports; the folder's name by default.

    Raises:
      DataError: a missing folder, an image without camera file, or a file that cannot be read; names file and line.
    """
    code = index_of("split", split, SPLITS)
    root = listing.folder(root)
    if not (root / FOLDERS["database"][1]).is_dir() and at_names.is_tree(root):
        return at_names.read(root, split=split, name=name)
    name = name or root.absolute().name
    paths: dict[str, Paths] = {}
    cameras: dict[str, tuple[Array, Array]] = {}
    for role, (images, truth) in FOLDERS.items():
        paths[role] = listing.images(root / images)
        cameras[role] = _poses(paths[role], listing.folder(root / truth, "folder of camera files"))
    up = up or poses.upward(cameras["database"][0], name)
    return Places.concat(
        [
            Places.create(
                name, paths[role], role=ROLES.index(role), split=code, **poses.on_the_ground(*cameras[role], up)
            )
            for role in FOLDERS
        ],
        name,
    )


def _poses(images: Paths, truth: Path) -> tuple[Array, Array]:
    """Rotations [N, 3, 3] from the camera's axes to the world's, and positions [N, 3], of the images' camera files."""
    cameras = [_camera(truth / Path(images.relative(row)).with_suffix(".camera")) for row in range(len(images))]
    return np.stack([rotation for rotation, _ in cameras]), np.stack([position for _, position in cameras])


def _camera(file: Path) -> tuple[Array, Array]:
    """Rotation and position in one camera file."""
    content = text.read(file, "a camera file for each image")
    lines = [(k, line.split()) for k, line in enumerate(content.splitlines(), 1) if line.strip()]
    if len(lines) != len(LINES):
        raise DataError(
            f"{file}: {len(lines)} lines; expected {len(LINES)}: matrix, distortion, rotation, position, size"
        )
    numbers = []
    for (number, words), (count, what) in zip(lines, LINES, strict=True):
        try:
            values = [float(word) for word in words]
        except ValueError:
            values = []
        if len(values) != count or not (np.abs(values) <= FARTHEST).all():
            raise DataError(f"{file}, line {number}: {short(' '.join(words))} is not {count} numbers of {what}")
        numbers.append(values)
    rotation, position = np.array(numbers[4:7]), np.array(numbers[7])
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > SKEWED or np.linalg.det(rotation) < 0:
        raise DataError(f"{file}, lines {lines[4][0]} to {lines[6][0]}: {numbers[4:7]} is not a rotation")
    return rotation, position
