"""A contact sheet of a city: rows of places, columns of conditions and headings, to judge the looks by eye."""

from __future__ import annotations

import numpy as np

from data_pipelines.minicity.city import City, Shot
from data_pipelines.minicity.config import CityConfig
from data_pipelines.minicity.poses import TEST_DATABASE, cameras
from data_pipelines.minicity.randomness import Array, unit
from data_pipelines.minicity.render import views


def sheet(config: CityConfig, places: int = 6) -> Array:
    """uint8 RGB: for each of `places` spots a row of all conditions in later years and a row of headings by day."""
    city = City(config)
    shots = cameras(config, city.layout)
    database = np.flatnonzero(shots.part == TEST_DATABASE)
    chosen = database[np.argsort(unit(config.seed, 95, database))[:places]]
    rows = []
    for number, row in enumerate(chosen):
        xy, key = shots.xy[row], int(shots.key[row])
        heading = 30.0 * number
        weather = [("day", config.database_year)] + [(c, config.query_years[-1]) for c in config.conditions]
        rows.append(
            np.concatenate([views(city, Shot(xy, y, c, key + k), heading, 1)[0] for k, (c, y) in enumerate(weather)], 1)
        )
        around = views(city, Shot(xy, config.database_year, "day", key), heading, config.headings)
        rows.append(np.concatenate(list(around[:: max(1, config.headings // 7)][: len(weather)]), 1))
    widest = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0))) for row in rows])
