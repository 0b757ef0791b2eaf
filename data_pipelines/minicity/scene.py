"""The city as it stands in one year: walls with their heights, and the pool of façade textures that rays look up."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from data_pipelines.minicity.config import CityConfig
from data_pipelines.minicity.facades import facade
from data_pipelines.minicity.houses import FLAT, GABLE, STEPPED, House, Houses, houses_of
from data_pipelines.minicity.layout import FRONT, SIDE, Walls
from data_pipelines.minicity.randomness import Array

LEVELS = 5  # halvings of a texture
POOL = 16_000_000  # texels kept at once; 64 MB


@dataclass(frozen=True)
class Scene:
    """All walls of one year, rows of [W]; a wall is seen from the right of `start` -> `end`.

    Attributes:
      start, along: float32 [W, 2], a point and the vector to the other end, metres.
      length: metres.
      eaves, rise, roof: outline of the top, see `houses.outline`.
      houses: the houses behind the walls.
      walls: the plan they come from.
    """

    start: Array
    along: Array
    length: Array
    eaves: Array
    rise: Array
    roof: Array
    houses: Houses
    walls: Walls


def scene_of(config: CityConfig, walls: Walls, year: int) -> Scene:
    """The walls of a city in `year`."""
    houses = houses_of(config.seed, config.style, walls.house, walls.width, year)
    sloped = (walls.face == SIDE) & ((houses.roof == GABLE) | (houses.roof == STEPPED))
    along = walls.end - walls.start
    return Scene(
        walls.start.astype(np.float32), along.astype(np.float32), np.linalg.norm(along, axis=1).astype(np.float32),
        houses.eaves.astype(np.float32), np.where(sloped, 0, houses.rise).astype(np.float32),
        np.where(sloped, FLAT, houses.roof), houses, walls,
    )  # fmt: skip


class TexturePool:
    """Façades drawn when they are first seen, in one flat array with all their halvings.

    When the pool is full it starts anew: a worker that walks along streets rarely needs what it saw long ago.

    Attributes:
      texels: uint32 [pool], RGBA in memory order.
      first: int64 [slots, LEVELS], where a texture's level starts; columns, rows: its shape there.
    """

    def __init__(self, config: CityConfig, scale: float, capacity: int = POOL):
        self.config, self.scale = config, scale
        self.texels = np.zeros(capacity, np.uint32)
        self._clear()

    def _clear(self) -> None:
        self.used, self.slots = 0, {}  # type: int, dict[tuple, int]
        self._table: list[tuple[list, list, list]] = []
        self.first = self.columns = self.rows = np.zeros((0, LEVELS), np.int64)

    def slots_of(self, scene: Scene, wall: Array) -> Array:
        """Slots (int64 [n]) of walls (int [n]) of a scene, drawing those that are missing."""
        unique, inverse = np.unique(wall, return_inverse=True)
        keys = [self._key(scene, int(w)) for w in unique]
        missing = [k for k in keys if k not in self.slots]
        if missing and not self._add(scene, missing):
            self._clear()
            if not self._add(scene, keys):
                raise MemoryError(f"the façades seen from one spot need more than {len(self.texels)} texels")
        return np.array([self.slots[k] for k in keys], np.int64)[inverse]

    def _key(self, scene: Scene, wall: int) -> tuple[int, int, int, int]:
        houses = scene.houses
        sign = int(houses.sign[wall]) if scene.walls.face[wall] == FRONT else 0
        return wall, int(houses.structure[wall]), int(houses.paint[wall]), sign

    def _add(self, scene: Scene, keys: list[tuple[int, int, int, int]]) -> bool:
        for key in keys:
            texture = self._draw(scene, key[0])
            places = []
            for level in range(LEVELS):
                rows, columns = texture.shape[:2]
                if self.used + rows * columns > len(self.texels):
                    return False
                flat = np.ascontiguousarray(texture).view(np.uint32).ravel()
                self.texels[self.used : self.used + len(flat)] = flat
                places.append((self.used, columns, rows))
                self.used += len(flat)
                if level + 1 < LEVELS:
                    texture = halve(texture)
            self.slots[key] = len(self._table)
            first, columns_, rows_ = (list(column) for column in zip(*places, strict=True))
            self._table.append((first, columns_, rows_))
        self.first, self.columns, self.rows = np.array(self._table, np.int64).transpose(1, 0, 2)
        return True

    def _draw(self, scene: Scene, wall: int) -> Array:
        h = scene.houses
        house = House(
            self.config.seed, self.config.style, int(h.house[wall]), int(h.structure[wall]), int(h.paint[wall]),
            int(h.sign[wall]), bool(h.gap[wall]), int(h.floors[wall]), float(h.ground_height[wall]),
            float(h.floor_height[wall]), float(h.eaves[wall]), int(h.roof[wall]), float(scene.rise[wall]),
        )  # fmt: skip
        return facade(house, int(scene.walls.face[wall]), float(scene.length[wall]), self.scale)


def halve(texture: Array) -> Array:
    """RGBA at half the size: mean colour, and the code (alpha) of one of the four texels."""
    rows, columns = max(1, texture.shape[0] // 2), max(1, texture.shape[1] // 2)
    small = cv2.resize(texture, (columns, rows), interpolation=cv2.INTER_AREA).reshape(rows, columns, 4)
    small[..., 3] = cv2.resize(texture[..., 3], (columns, rows), interpolation=cv2.INTER_NEAREST).reshape(rows, columns)
    return small
