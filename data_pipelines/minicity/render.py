"""Renders a panorama strip, and cuts headed views from it.

The strip is a cylinder around the camera: a column is an azimuth, a row a slope (tangent of the elevation), so that a
wall is a straight run of texels in each column. Each pixel takes one texel. Views of one panorama share the strip.
"""

from __future__ import annotations

import cv2
import numpy as np

from data_pipelines.minicity.city import City
from data_pipelines.minicity.lens import CAMERA
from data_pipelines.minicity.paint import paint_ground, paint_walls
from data_pipelines.minicity.randomness import Array, between, bits, generator
from data_pipelines.minicity.rays import LAYERS, cast
from data_pipelines.minicity.street import Geometry, draw, seen
from data_pipelines.minicity.weather import WEATHER, drift


def strip(city: City, xy: Array, year: int, condition: str, key: int, azimuth: Array) -> Array:
    """uint8 RGB [rows, C, 3]: what a camera at `xy` (metres [2]) sees at `azimuth` (radians from north, [C])."""
    weather, lens = WEATHER[condition], city.lens
    scene = city.scene(year)
    hits = cast(scene, xy, azimuth)
    picture = np.take(
        city.sky(condition, int(between(0, 3, key, 20))),
        np.round(azimuth / lens.pitch + between(0, lens.columns, key, 21)).astype(int) % lens.columns, axis=1,
    ).reshape(-1, 3)  # fmt: skip
    slope, columns = lens.slope, len(azimuth)
    layer = sum((slope[:, None] > hits.top[k]).astype(np.int8) for k in range(LAYERS))
    foot = np.where(np.isfinite(hits.distance[0]), -CAMERA / hits.distance[0], -0.012)
    below = slope[:, None] < foot
    covered = layer < LAYERS
    with np.errstate(divide="ignore"):
        paint_walls(city, scene, hits, weather, key, azimuth, np.flatnonzero(covered & ~below), layer, picture, xy)
    paint_ground(city, weather, key, xy, azimuth, np.flatnonzero(below), picture)
    picture = picture.reshape(len(slope), columns, 3)
    geometry = Geometry(xy, CAMERA, float(azimuth[0]), columns, lens.pitch, slope, hits.distance, hits.top)
    survey = int(bits(city.config.seed, year, list(WEATHER).index(condition)) >> np.uint64(8))
    found = seen(city.layout.things, geometry, city.pictures, survey, winter=condition == "snow")
    draw(picture, found, geometry, city.pictures, weather, np.array(weather.light) * 1.05)
    return np.clip(picture, 0, 255).astype(np.uint8)


def views(city: City, xy: Array, year: int, condition: str, key: int, heading: float, count: int) -> Array:
    """uint8 RGB [count, S, S, 3]: views from one spot, the first at `heading` degrees, the others evenly around."""
    if count > 1:
        return cut(city, panorama(city, xy, year, condition, key, heading), condition, key, count)
    lens = city.lens
    azimuth = np.radians(heading) + (np.arange(lens.wide) + 0.5 - lens.wide / 2) * lens.pitch
    return _develop(city, strip(city, xy, year, condition, key, azimuth), condition, key, 0)[None]


def panorama(city: City, xy: Array, year: int, condition: str, key: int, heading: float) -> Array:
    """uint8 RGB [rows, columns, 3]: the whole circle; the middle column looks to `heading` degrees."""
    lens = city.lens
    azimuth = np.radians(heading) + (np.arange(lens.columns) + 0.5 - lens.columns / 2) * lens.pitch
    return strip(city, xy, year, condition, key, azimuth)


def cut(city: City, whole: Array, condition: str, key: int, count: int) -> Array:
    """uint8 RGB [count, S, S, 3]: views of a panorama, evenly around the circle, the first at its middle column."""
    lens = city.lens
    padded = np.concatenate([whole, whole[:, : lens.wide]], 1)
    starts = (lens.columns // 2 - lens.wide // 2 + np.arange(count) * lens.columns // count) % lens.columns
    parts = (padded[:, start : start + lens.wide] for start in starts)
    return np.stack([_develop(city, part, condition, key, k) for k, part in enumerate(parts)])


def _develop(city: City, part: Array, condition: str, key: int, number: int) -> Array:
    """A view from its part of a strip: perspective, then weather before the lens, exposure and noise."""
    lens, weather = city.lens, WEATHER[condition]
    view = cv2.remap(
        np.ascontiguousarray(part), lens.map_x, lens.map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    if lens.over > 1:
        view = cv2.resize(view, (lens.size, lens.size), interpolation=cv2.INTER_AREA)
    rng = generator(key, 24, number)
    drift(view, weather, rng)
    gain = between(0.9, 1.1, key, 25) * between(0.97, 1.03, key, 26, np.arange(3))
    noise = rng.integers(0, 256, (lens.size, lens.size, 1), np.uint8).astype(np.float32) - 127.5
    return np.clip(view * gain.astype(np.float32) + noise * np.float32(weather.noise / 73.6), 0, 255).astype(np.uint8)
