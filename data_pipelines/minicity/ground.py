"""The ground as a map of codes: asphalt with patches, lanes, crossings, kerbs, pavements, gardens."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from data_pipelines.minicity.config import CityConfig
from data_pipelines.minicity.layout import STYLE, Layout, inset_polygon
from data_pipelines.minicity.randomness import Array, generator, unit

# A code of the map is one of these times 8, plus 0..7 for how light the spot is; `palettes.GROUND` has their colours.
ASPHALT, PAVEMENT, KERB, GARDEN, WHITE, YELLOW, PATCH, COBBLES = range(8)


@dataclass(frozen=True)
class Ground:
    """`codes` uint8 [rows, columns], row 0 in the south; `scale` cells a metre."""

    codes: Array
    scale: float

    def at(self, x: Array, y: Array) -> Array:
        """Codes under points in metres; beyond the map its border continues."""
        rows, columns = self.codes.shape
        i = np.clip((y * np.float32(self.scale)).astype(np.int32), 0, rows - 1)
        j = np.clip((x * np.float32(self.scale)).astype(np.int32), 0, columns - 1)
        return self.codes.ravel()[i * columns + j]


def ground_of(config: CityConfig, layout: Layout) -> Ground:
    """Draws the map: 10 cells a metre, fewer where the city is so large that memory would not hold it."""
    scale = float(min(10, max(2, 9000 / layout.extent.max())))
    columns, rows = np.ceil(layout.extent * scale).astype(int)
    kind = np.zeros((rows, columns), np.uint8)
    _patches(config, kind, scale)
    _markings(config, layout, kind, scale)
    wide = STYLE[config.style].pavement
    for corners in layout.blocks:
        outer = inset_polygon(corners, np.full(4, -wide))
        cv2.fillPoly(kind, [_cells(outer, scale)], KERB)
        cv2.fillPoly(kind, [_cells(inset_polygon(corners, np.full(4, 0.2 - wide)), scale)], PAVEMENT)
        cv2.fillPoly(kind, [_cells(corners, scale)], GARDEN)
    rng = generator(config.seed, 81)
    tile = rng.integers(0, 5, (256, 256)) + cv2.resize(rng.integers(0, 4, (16, 16)).astype(np.uint8), (256, 256))
    light = np.tile(tile.astype(np.uint8), (rows // 256 + 1, columns // 256 + 1))[:rows, :columns]
    return Ground(kind * 8 + light, scale)


def _cells(points: Array, scale: float) -> Array:
    return np.round(points * scale).astype(np.int32)


def _patches(config: CityConfig, kind: Array, scale: float) -> None:
    """Repairs of the asphalt: what a road has of its own."""
    rng = generator(config.seed, 82)
    for _ in range(int(kind.size / scale**2 / 90)):
        y, x = rng.uniform(0, kind.shape[0]), rng.uniform(0, kind.shape[1])
        high, wide = rng.uniform(0.6, 4.0, 2) * scale
        kind[int(y) : int(y + high), int(x) : int(x + wide)] = PATCH


def _markings(config: CityConfig, layout: Layout, kind: Array, scale: float) -> None:
    nodes, n = layout.nodes, len(layout.nodes)
    for axis in (0, 1):
        for i in range(n):
            for j in range(n - 1):
                a, b = (nodes[i, j], nodes[i, j + 1]) if axis == 0 else (nodes[j, i], nodes[j + 1, i])
                ends = layout.street[1 - axis, [j, j + 1]] / 2
                _lane(config, kind, scale, a, b, layout.street[axis, i], ends, (axis * n + i) * n + j)


def _lane(
    config: CityConfig, kind: Array, scale: float, a: Array, b: Array, street: float, ends: Array, key: int
) -> None:
    """One street between two crossings: surface, centre line and zebra crossings, which every street chooses."""
    length = float(np.linalg.norm(b - a))
    along = (b - a) / length
    across = np.array([along[1], -along[0]])
    road = street / 2 - STYLE[config.style].pavement

    def stripe(s0: float, s1: float, d0: float, d1: float, code: int) -> None:
        corners = [a + along * s + across * d for s, d in ((s0, d0), (s0, d1), (s1, d1), (s1, d0))]
        cv2.fillConvexPoly(kind, _cells(np.array(corners), scale), code)

    if unit(config.seed, 83, key) < (0.3 if config.style == "old_town" else 0.0):
        stripe(ends[0], length - ends[1], -road, road, COBBLES)
        return
    code = YELLOW if unit(config.seed, 84, key) < 0.25 else WHITE
    dash, pause = ((2.0, 3.0), (4.0, 4.0), (60.0, 0.0))[int(3 * unit(config.seed, 85, key))]
    for s in np.arange(ends[0] + 6, length - ends[1] - 6, dash + pause):
        stripe(s, min(s + dash, length - ends[1] - 6), -0.09, 0.09, code)
    for at, present in ((ends[0] + 0.6, 86), (length - ends[1] - 3.6, 87)):
        if unit(config.seed, present, key) < 0.6:
            for d in np.arange(-road + 0.4, road - 0.5, 1.1):
                stripe(at, at + 3.0, d, d + 0.55, WHITE)
