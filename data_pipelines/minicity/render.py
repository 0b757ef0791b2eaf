"""Renders a panorama strip, and cuts headed views from it.

The strip is a cylinder around the camera: a column is an azimuth, a row a slope (tangent of the elevation), so that a
wall is a straight run of texels in each column. Each pixel takes one texel. Views of one panorama share the strip.
"""

from __future__ import annotations

import cv2
import numpy as np

from data_pipelines.minicity.city import City, Shot
from data_pipelines.minicity.config import CONDITIONS
from data_pipelines.minicity.lens import CAMERA
from data_pipelines.minicity.paint import Frame, paint_ground, paint_walls
from data_pipelines.minicity.randomness import Array, between, bits, generator
from data_pipelines.minicity.rays import LAYERS, cast
from data_pipelines.minicity.street import Geometry, draw, seen
from data_pipelines.minicity.weather import WEATHER, drift

OPEN_HORIZON = -0.012  # slope where the ground ends in a column without a wall in sight


def strip(city: City, shot: Shot, azimuth: Array) -> Array:
    """uint8 RGB [rows, C, 3]: what the camera sees at `azimuth` (radians from north, [C], the lens's pitch apart)."""
    lens, columns = city.lens, len(azimuth)
    hits = cast(city.scene(shot.year), shot.xy, azimuth)
    frame = Frame(city, shot, city.scene(shot.year), azimuth, hits)
    picture = _sky(city, shot, azimuth).reshape(-1, 3)
    # Layers that are not hit hide behind a nearer one, because their slope is never greater.
    layer = sum((lens.slope[:, None] > top).astype(np.int8) for top in hits.top)
    foot = np.where(np.isfinite(hits.distance[0]), -CAMERA / hits.distance[0], OPEN_HORIZON)
    below = lens.slope[:, None] < foot
    paint_walls(frame, np.flatnonzero((layer < LAYERS) & ~below), layer, picture)
    paint_ground(frame, np.flatnonzero(below), picture)
    image = picture.reshape(len(lens.slope), columns, 3)
    geometry = Geometry(shot.xy, CAMERA, float(azimuth[0]), columns, lens.pitch, lens.slope, hits.distance, hits.top)
    survey = int(bits(city.config.seed, shot.year, CONDITIONS.index(shot.condition)) >> np.uint64(8))
    found = seen(city.layout.things, geometry, city.pictures, survey, winter=shot.condition == "snow")
    draw(image, found, geometry, city.pictures, frame.weather, np.array(frame.weather.light) * 1.05)
    return np.clip(image, 0, 255).astype(np.uint8)


def _sky(city: City, shot: Shot, azimuth: Array) -> Array:
    """float32 [rows, C, 3]: one of three skies of the condition, turned by an angle of the shot's own."""
    turned = azimuth / city.lens.pitch + between(0, city.lens.columns, shot.key, 21)
    sky_strip = city.sky(shot.condition, int(between(0, 3, shot.key, 20)))
    return sky_strip[:, np.round(turned).astype(int) % city.lens.columns]


def views(city: City, shot: Shot, heading: float, count: int) -> Array:
    """uint8 RGB [count, S, S, 3]: views from one spot, the first at `heading` degrees, the others evenly around."""
    if count > 1:
        return cut(city, panorama(city, shot, heading), shot, count)
    lens = city.lens
    azimuth = np.radians(heading) + (np.arange(lens.wide) + 0.5 - lens.wide / 2) * lens.pitch
    return _develop(city, strip(city, shot, azimuth), shot, shot.frame)[None]


def panorama(city: City, shot: Shot, heading: float) -> Array:
    """uint8 RGB [rows, columns, 3]: the whole circle; the middle column looks to `heading` degrees."""
    lens = city.lens
    azimuth = np.radians(heading) + (np.arange(lens.columns) + 0.5 - lens.columns / 2) * lens.pitch
    return strip(city, shot, azimuth)


def cut(city: City, circle: Array, shot: Shot, count: int) -> Array:
    """uint8 RGB [count, S, S, 3]: views of a panorama, evenly around the circle, the first at its middle column."""
    lens = city.lens
    padded = np.concatenate([circle, circle[:, : lens.wide]], 1)
    starts = (lens.columns // 2 - lens.wide // 2 + np.arange(count) * lens.columns // count) % lens.columns
    parts = (padded[:, start : start + lens.wide] for start in starts)
    return np.stack([_develop(city, part, shot, k) for k, part in enumerate(parts)])


def _develop(city: City, part: Array, shot: Shot, number: int) -> Array:
    """A view from its part of a strip: perspective, then weather before the lens, exposure and noise."""
    lens, weather = city.lens, WEATHER[shot.condition]
    view = cv2.remap(
        np.ascontiguousarray(part), lens.map_x, lens.map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    if lens.over > 1:
        view = cv2.resize(view, (lens.size, lens.size), interpolation=cv2.INTER_AREA)
    rng = generator(shot.key, 24, number)
    drift(view, weather, rng)
    gain = between(0.9, 1.1, shot.key, 25) * between(0.97, 1.03, shot.key, 26, np.arange(3))
    noise = rng.integers(0, 256, (lens.size, lens.size, 1), np.uint8).astype(np.float32) - 127.5
    return np.clip(view * gain.astype(np.float32) + noise * np.float32(weather.noise / 73.6), 0, 255).astype(np.uint8)
