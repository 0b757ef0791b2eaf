"""Everything that rendering one city needs, made once a process."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from data_pipelines.minicity.config import CityConfig
from data_pipelines.minicity.ground import Ground, ground_of
from data_pipelines.minicity.layout import LAMP, Layout, plan
from data_pipelines.minicity.lens import lens_of
from data_pipelines.minicity.randomness import Array, bits
from data_pipelines.minicity.scene import Scene, TexturePool, scene_of
from data_pipelines.minicity.sprites import pictures
from data_pipelines.minicity.weather import WEATHER, sky


class Shot(NamedTuple):
    """Where and when a picture is taken.

    Attributes:
      xy: camera, metres [2] in the city's frame.
      year, condition: which of the city's states it shows.
      key: an integer that decides clouds, sun and lit windows.
      frame: which of the pictures under one key it is: noise and drops differ from frame to frame.
    """

    xy: Array
    year: int
    condition: str
    key: int
    frame: int = 0


class City:
    """All that rendering needs; scenes of single years and façades are made when they are first seen."""

    def __init__(self, config: CityConfig):
        self.config = config
        self.layout: Layout = plan(config)
        self.ground: Ground = ground_of(config, self.layout)
        self.lens = lens_of(config.size, config.fov, config.headings)
        self.pool = TexturePool(config, 8.0 if config.size <= 80 else 12.0 if config.size <= 160 else 16.0)
        self.pictures = pictures()
        self.lamp_light = _lamp_map(self.layout)
        self.scenes: dict[int, Scene] = {}
        self.skies: dict[tuple[str, int], Array] = {}

    def scene(self, year: int) -> Scene:
        """The walls in `year`."""
        if year not in self.scenes:
            self.scenes[year] = scene_of(self.config, self.layout.walls, year)
        return self.scenes[year]

    def sky(self, condition: str, kind: int) -> Array:
        """One of a few skies of a condition, as a whole strip."""
        if (condition, kind) not in self.skies:
            lens = self.lens
            self.skies[condition, kind] = sky(WEATHER[condition], lens.slope, lens.columns, int(bits(kind)) >> 1)
        return self.skies[condition, kind]


def _lamp_map(layout: Layout) -> Array:
    """float32 light of all street lamps on the ground, one cell a metre, row 0 in the south."""
    columns, rows = np.ceil(layout.extent).astype(int) + 1
    light = np.zeros((rows, columns), np.float32)
    reach = np.arange(-14, 15)
    spot = 1 / (1 + (reach[:, None] ** 2 + reach[None] ** 2) / 18.0) ** 1.5
    for x, y in np.round(layout.things.xy[layout.things.kind == LAMP]).astype(int):
        y0, y1, x0, x1 = max(0, y - 14), min(rows, y + 15), max(0, x - 14), min(columns, x + 15)
        if y1 > y0 and x1 > x0:
            light[y0:y1, x0:x1] += spot[y0 - y + 14 : y1 - y + 14, x0 - x + 14 : x1 - x + 14]
    return np.minimum(light, 1.2)
