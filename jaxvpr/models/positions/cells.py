"""Positions as classes: a grid of cells over the area, each cut into sectors of the compass (Gaza, section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxvpr.models.positions.codings import softmax, with_bearing
from jaxvpr.models.positions.coordinates import UNCHOSEN, Area, Array, xp

# A bearing that is exactly a multiple of a sector's width lies in the sector that begins there, however it is rounded.
ROUNDING = 1e-5
# Photos nearer to a cell's centre than this part of its side count as so near: at the centre itself a distance has no
# inverse.
NEAREST = 1e-3


class CellTarget(NamedTuple):
    """Which cells a photo is in, by how much, and which sector it looks at.

    cells: int32 [..., K], i_lat * M + i_lon, K = 1, or 9 for soft labels; those that lie outside the grid weigh 0.
    weights: float [..., K], sum to one.
    sector: int32 [...]; -1 where the bearing is not known; 0 where the coding has none.
    """

    cells: Array
    weights: Array
    sector: Array


@dataclass(frozen=True)
class Cells:
    """Classifies: M x M cells of the area, each with a number of sectors.

    The class is i_lat * M * sectors + i_lon * sectors + i_bearing with i = min(floor(normalised * M), M - 1), and
    i_bearing = bearing // (360 / sectors) (Gaza, equation 3.1, with 12 sectors). The answer is the middle of the
    likeliest class, its confidence that class's probability.

    Attributes:
      area: the box that the grid covers.
      bearing: whether there are sectors.
      cells: M, cells along each side.
      sectors: of the compass; 12 have 30 degrees each.
      soft: a photo counts for its cell and the up to 8 cells around it, by the inverse distance to their centres in
        sides of a cell, all of its own sector; else for its own cell alone.
    """

    area: Area = UNCHOSEN
    bearing: bool = True
    cells: int = 50
    sectors: int = 12
    soft: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for a grid without cells or sectors."""
        if self.cells < 1 or self.sectors < 1:
            raise ValueError(f"cells={self.cells}, sectors={self.sectors}; expected at least one of each")

    @property
    def numbers(self) -> int:
        """One for each class."""
        return self.cells**2 * self.directions

    @property
    def directions(self) -> int:
        """Classes of each cell: its sectors, or one."""
        return self.sectors if self.bearing else 1

    def encode(self, at: Array) -> CellTarget:
        """See `CellTarget`. Positions outside the area count for the nearest cell."""
        lib = xp(at)
        scaled = at[..., :2] * self.cells
        own = self._cell(scaled)
        if not self.soft:
            alone = own[..., None, :]
            weights = lib.ones_like(scaled[..., :1])
        else:
            steps = np.stack(np.meshgrid([0, -1, 1], [0, -1, 1], indexing="ij"), -1).reshape(9, 2)
            shape = (1,) * (scaled.ndim - 1) + (9, 2)
            alone = own[..., None, :] + lib.asarray(steps, dtype=own.dtype).reshape(shape)
            away = scaled[..., None, :] - (alone.astype(scaled.dtype) + 0.5)
            near = lib.maximum(lib.sqrt(lib.sum(lib.square(away), -1)), NEAREST)
            inside = ((alone >= 0) & (alone < self.cells)).all(-1)
            weights = lib.where(inside, 1 / near, 0.0)
            weights = weights / lib.sum(weights, -1, keepdims=True)
            alone = lib.clip(alone, 0, self.cells - 1)
        return CellTarget(alone[..., 0] * self.cells + alone[..., 1], weights, self._sector(at[..., 2]))

    def classes(self, at: Array) -> Array:
        """The class of normalised positions [..., 3], int32 [...]; -1 where the bearing is not known."""
        lib, own = xp(at), self._cell(at[..., :2] * self.cells)
        sector = self._sector(at[..., 2])
        found = (own[..., 0] * self.cells + own[..., 1]) * self.directions + sector
        return lib.where(sector < 0, -1, found)

    def middles(self, classes: Array) -> Array:
        """Normalised positions [..., 3] float64 or float32 of the middles of classes [...]; NaN without sectors."""
        lib = xp(classes)
        cell, sector = classes // self.directions, classes % self.directions
        parts = [cell // self.cells, cell % self.cells]
        kind = np.float64 if lib is np else np.float32
        at = (lib.stack(parts, -1).astype(kind) + 0.5) / self.cells
        turns = (sector.astype(kind) + 0.5)[..., None] / self.directions
        return lib.concatenate([at, turns], -1) if self.bearing else with_bearing(at)

    def decode(self, raw: Array) -> tuple[Array, Array]:
        """See `Coding`; the confidence is the probability of the class."""
        lib = xp(raw)
        confidence = lib.max(softmax(raw), -1)
        at = self.middles(lib.argmax(raw, -1))
        return lib.where(lib.isfinite(confidence)[..., None], at, np.nan), confidence

    def _cell(self, scaled: Array) -> Array:
        """(i_lat, i_lon) of positions in sides of a cell, int32 [..., 2]."""
        lib = xp(scaled)
        return lib.clip(lib.floor(scaled), 0, self.cells - 1).astype(np.int32)

    def _sector(self, turns: Array) -> Array:
        lib = xp(turns)
        if not self.bearing:
            return lib.zeros_like(turns, dtype=np.int32)
        known = lib.isfinite(turns)
        sector = lib.floor(lib.where(known, turns, 0.0) * self.sectors + ROUNDING).astype(np.int32) % self.sectors
        return lib.where(known, sector, -1)


class HeadBytes(NamedTuple):
    """What the last layer of a head takes, in bytes of float32.

    layer: its kernel and bias; in training with Adam there are four of it (gradient and two moments).
    outputs: those of a batch; in training about three of it (their exponentials and gradient).
    """

    layer: int
    outputs: int

    @property
    def training(self) -> int:
        """About what training needs for it, with Adam."""
        return 4 * self.layer + 3 * self.outputs


def head_bytes(numbers: int, width: int, batch: int) -> HeadBytes:
    """Bytes of a last layer of `numbers` outputs behind one of `width`, and of its outputs for a batch."""
    return HeadBytes(4 * (width + 1) * numbers, 4 * batch * numbers)
