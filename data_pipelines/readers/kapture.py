"""Poses of photos in kapture's text files (https://github.com/naver/kapture, format 1.1), as NAVER LABS ships them.

    sensors/records_camera.txt   timestamp, device, image (relative to sensors/records_data)
    sensors/trajectories.txt     timestamp, device, qw, qx, qy, qz, tx, ty, tz
    sensors/rigs.txt             rig, device, qw, qx, qy, qz, tx, ty, tz

A pose takes points of the world to the device's axes (x' = R x + t), that of a rig takes the rig's to the device's. A
device is a camera or a rig; a camera without a pose of its own has its rig's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipelines.errors import DataError, short
from data_pipelines.places import FARTHEST
from data_pipelines.poses import rotations
from data_pipelines.readers import text

Array = np.ndarray
DEEPEST = 8  # a rig of a rig ..., which also ends where rigs hold one another
POSE = "qw, qx, qy, qz, tx, ty, tz"


@dataclass(frozen=True)
class Records:
    """The photos of one kapture folder, in sorted order of their names.

    Attributes:
      images: paths relative to the folder `sensors/records_data`.
      timestamp: int64 [N], in the data set's own unit.
      orientation: float64 [N, 3, 3], from the camera's axes to the world's. position: [N, 3], metres in the world.
      known: bool [N], whether there is a pose; where not, the two above are NaN.
    """

    images: list[str]
    timestamp: Array
    orientation: Array
    position: Array
    known: Array


def read(folder: Path) -> Records:
    """The photos of `folder` and their poses; a folder without `trajectories.txt` has none.

    Raises:
      DataError: a missing `records_camera.txt`, or a row that cannot be read; names file and line.
    """
    records = _Rows(folder / "sensors" / "records_camera.txt", "timestamp, device, image")
    names = records.column(2)
    order = sorted(range(len(names)), key=names.__getitem__)
    timestamp, devices = records.integers(0)[order], np.array(records.column(1))[order]
    images = [names[row] for row in order]
    if (folder / "sensors" / "trajectories.txt").is_file():
        turn, shift, known = _camera_poses(folder / "sensors", timestamp, devices)
    else:
        known = np.zeros(len(images), bool)
        turn, shift = np.full((len(images), 3, 3), np.nan), np.full((len(images), 3), np.nan)
    orientation = turn.transpose(0, 2, 1)
    return Records(images, timestamp, orientation, -np.einsum("nij,nj->ni", orientation, shift), known)


def _camera_poses(sensors: Path, timestamp: Array, devices: Array) -> tuple[Array, Array, Array]:
    """World to camera: rotations [N, 3, 3], translations [N, 3], and which are known; NaN elsewhere."""
    turn, shift, known = np.full((len(devices), 3, 3), np.nan), np.full((len(devices), 3), np.nan), devices == ""
    table = _Rows(sensors / "trajectories.txt", f"timestamp, device, {POSE}")
    pose_turn, pose_shift = table.poses(2)
    index = dict(zip(zip(table.integers(0).tolist(), table.column(1), strict=True), range(len(table)), strict=True))
    rigs = _rigs(sensors / "rigs.txt")
    for camera in np.unique(devices):
        rows, device = np.flatnonzero(devices == camera), str(camera)
        mount, arm = np.eye(3), np.zeros(3)  # from the device, which may be the rig of a rig, to the camera
        for _ in range(DEEPEST):
            at = np.array([index.get((int(timestamp[row]), device), -1) for row in rows], np.int64)
            posed, at = rows[at >= 0], at[at >= 0]
            turn[posed], shift[posed], known[posed] = mount @ pose_turn[at], pose_shift[at] @ mount.T + arm, True
            rows = rows[~known[rows]]
            if not len(rows) or device not in rigs:
                break
            device, its_turn, its_shift = rigs[device]
            mount, arm = mount @ its_turn, mount @ its_shift + arm
    return turn, shift, known


def _rigs(file: Path) -> dict[str, tuple[str, Array, Array]]:
    """Device -> its rig, and rotation and translation from the rig's axes to the device's."""
    if not file.is_file():
        return {}
    table = _Rows(file, f"rig, device, {POSE}")
    turn, shift = table.poses(2)
    rigs: dict[str, tuple[str, Array, Array]] = {}
    for row, (rig, device) in enumerate(zip(table.column(0), table.column(1), strict=True)):
        if device in rigs:
            raise table.error(
                row, f"device {device} is in the rig {rigs[device][0]} already; expected one rig a device"
            )
        rigs[device] = rig, turn[row], shift[row]
    return rigs


class _Rows:
    """The rows of one file: fields between commas, comments after '#'; errors that name their line."""

    def __init__(self, file: Path, fields: str):
        self.file, self.fields = file, fields
        self.lines, cells = [], []
        for number, line in enumerate(text.read(file, f"a kapture file of rows {fields}").splitlines(), 1):
            if line.strip() and not line.startswith("#"):
                self.lines.append(number)
                cells.append([cell.strip() for cell in line.split(",")])
        self.cells = cells
        width = len(fields.split(","))
        for row, line_cells in enumerate(cells):
            if len(line_cells) != width:
                raise self.error(row, f"{len(line_cells)} fields; expected {width}: {fields}")
        if not cells:
            raise DataError(f"{file} has no rows; expected some of {fields}")

    def __len__(self) -> int:
        return len(self.cells)

    def error(self, row: int, complaint: str) -> DataError:
        return DataError(f"{self.file}, line {self.lines[row]}: {complaint}")

    def column(self, k: int) -> list[str]:
        return [cells[k] for cells in self.cells]

    def integers(self, k: int) -> Array:
        """int64 [rows], a column of integers."""
        return np.array([self._converted(row, k, _integer, "an integer") for row in range(len(self))], np.int64)

    def poses(self, first: int) -> tuple[Array, Array]:
        """Rotations [rows, 3, 3] and translations [rows, 3] of the columns from `first` on."""
        try:
            numbers = np.array([cells[first:] for cells in self.cells], np.float64)
        except ValueError:
            numbers = np.array(
                [
                    [self._converted(row, first + k, float, "a number") for k in range(len(cells) - first)]
                    for row, cells in enumerate(self.cells)
                ]
            )
        broken = ~(np.abs(numbers) <= FARTHEST).all(axis=1) | (np.abs(numbers[:, :4]).max(axis=1) < 1e-6)
        if broken.any():
            row = int(np.argmax(broken))
            raise self.error(
                row,
                f"{short(', '.join(self.cells[row][first:]))} is not a pose; expected {POSE}, no zero rotation and "
                f"no number beyond {FARTHEST:g}",
            )
        return rotations(numbers[:, :4]), numbers[:, 4:]

    def _converted(self, row: int, k: int, convert: Callable[[str], float], kind: str) -> float:
        try:
            return convert(self.cells[row][k])
        except ValueError as error:
            raise self.error(row, f"{self.fields.split(', ')[k]} is {short(self.cells[row][k])}, not {kind}") from error


def _integer(cell: str) -> int:
    number = int(cell)
    if abs(number) >= 1 << 62:
        raise ValueError(f"{number} is too large")
    return number
