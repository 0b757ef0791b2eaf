"""Colours of walls and ground: a texel for each pixel, then light, lamps, lit windows, snow, shadow and haze."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from data_pipelines.minicity.canvas import LEDGE, ROOF, SHOP, SIGN, WINDOW
from data_pipelines.minicity.city import City, Shot
from data_pipelines.minicity.ground import GARDEN
from data_pipelines.minicity.lens import CAMERA
from data_pipelines.minicity.palettes import GROUND, LAMP_LIGHT, SHOP_LIGHT, SNOW, WINDOW_LIGHT
from data_pipelines.minicity.randomness import Array, between, bits
from data_pipelines.minicity.rays import Hits
from data_pipelines.minicity.scene import LEVELS, Scene
from data_pipelines.minicity.weather import WEATHER, Weather


class Frame(NamedTuple):
    """A strip in the making: its shot, the scene, the azimuths of its C columns and what their rays met."""

    city: City
    shot: Shot
    scene: Scene
    azimuth: Array
    hits: Hits

    @property
    def weather(self) -> Weather:
        """Weather of the shot's condition."""
        return WEATHER[self.shot.condition]


def paint_walls(frame: Frame, pixels: Array, layer: Array, picture: Array) -> None:
    """Paints the wall pixels of a strip.

    Args:
      pixels: flat indices [P] of the pixels that show a wall.
      layer: [rows, C], which of the ray's hits each pixel shows.
      picture: float32 [rows * C, 3], written in place.
    """
    scene, hits, weather = frame.scene, frame.hits, frame.weather
    columns = len(frame.azimuth)
    at = layer.ravel()[pixels].astype(np.int64) * columns + pixels % columns  # into [LAYERS, C]
    distance = np.where(np.isfinite(hits.distance), hits.distance, np.float32(1e4))
    z = CAMERA + frame.city.lens.slope[pixels // columns] * distance.ravel()[at]
    rgba = _texels(frame, distance, at, z)
    light = _wall_light(scene, hits, weather, frame.shot.key).ravel()[at][:, None] * np.array(weather.light, np.float32)
    if weather.lamps:
        falloff = np.clip(1.2 - z / 10, 0, 1)
        light += (_lamps_at_walls(frame).ravel()[at] * falloff)[:, None] * np.array(LAMP_LIGHT, np.float32)
    colour = rgba[:, :3] * light
    evening = int(bits(frame.shot.key, 22) >> np.uint64(40)) % 240
    _shine_and_snow(colour, rgba, light, (hits.wall * 37 + evening).ravel()[at], weather)
    clear = np.exp(-np.minimum(distance, 1e3) * np.float32(weather.fog)).ravel()[at][:, None]
    picture[pixels] = colour * clear + np.array(weather.haze, np.float32) * (1 - clear)


def _texels(frame: Frame, distance: Array, at: Array, z: Array) -> Array:
    """uint8 RGBA [P, 4]: texels of pixels that show the hits `at` (flat into [LAYERS, C]) at heights `z`, metres."""
    scene, hits, pool = frame.scene, frame.hits, frame.city.pool
    slot = pool.slots_of(scene, hits.wall.ravel()).reshape(hits.wall.shape)
    # A texture is taken at the level whose texels are about a pixel wide; a slanting wall between both its directions.
    texels = distance * frame.city.lens.pitch * pool.scale / np.sqrt(np.maximum(hits.cosine, 0.02))
    level = np.clip(np.log2(np.maximum(texels, 1)) + 0.3, 0, LEVELS - 1).astype(int)
    wide, high = pool.columns[slot, level], pool.rows[slot, level]
    column = np.minimum((hits.u / scene.length[hits.wall] * wide).astype(int), wide - 1)
    top = (scene.eaves + scene.rise)[hits.wall]
    scale = (high / top).astype(np.float32)
    row = ((top.ravel()[at] - z) * scale.ravel()[at]).astype(np.int32)
    row = np.clip(row, 0, high.ravel()[at] - 1)
    first = (pool.first[slot, level] + column).ravel()[at]
    return pool.texels[first + row * wide.ravel()[at]].view(np.uint8).reshape(-1, 4)


def _wall_light(scene: Scene, hits: Hits, weather: Weather, key: int) -> Array:
    """Factor [LAYERS, C] of the sun and of the sky for walls that look to different sides."""
    sun = between(0, 2 * np.pi, key, 23)
    along = scene.along[hits.wall] / scene.length[hits.wall][..., None]
    normal = np.stack([along[..., 1], -along[..., 0]], -1)
    facing = normal @ np.array([np.sin(sun), np.cos(sun)], np.float32)
    return (0.93 + 0.07 * facing + weather.sun * np.maximum(facing, 0)).astype(np.float32)


def _lamps_at(city: City, x: Array, y: Array, weather: Weather) -> Array:
    """float32: light of street lamps at points in metres."""
    rows, columns = city.lamp_light.shape
    i, j = np.clip(y, 0, rows - 1).astype(np.int32), np.clip(x, 0, columns - 1).astype(np.int32)
    return city.lamp_light.ravel()[i * columns + j] * np.float32(weather.lamps)


def _lamps_at_walls(frame: Frame) -> Array:
    """float32 [LAYERS, C]: light of street lamps just before the walls that the rays met."""
    distance, xy = np.minimum(frame.hits.distance, 400) - 0.8, frame.shot.xy
    x, y = xy[0] + distance * np.sin(frame.azimuth), xy[1] + distance * np.cos(frame.azimuth)
    return _lamps_at(frame.city, x, y, frame.weather)


def _shine_and_snow(colour: Array, rgba: Array, light: Array, house: Array, weather: Weather) -> None:
    """Lights windows, shops and signs, and covers ledges and roofs with snow; changes `colour` [P, 3] in place.

    `house` [P] moves the numbers of the windows, so that those of each house shine on their own.
    """
    marked = np.flatnonzero(rgba[:, 3])
    code = rgba[marked, 3]
    window = marked[code >= WINDOW]
    number = (rgba[window, 3].astype(np.int64) * 7 + house[window]) % 240
    lit, bright = window[number < weather.lit * 240], number[number < weather.lit * 240] % 5 / 4
    warm = np.array(WINDOW_LIGHT, np.float32) * (0.62 + 0.38 * bright)[:, None].astype(np.float32)
    colour[lit] = 0.72 * warm + 0.2 * rgba[lit, :3]
    if weather.shops:
        shop = marked[code == SHOP]
        inside = 0.5 * rgba[shop, :3] + np.array(SHOP_LIGHT, np.float32)
        colour[shop] = colour[shop] * (1 - 0.6 * weather.shops) + weather.shops * inside
    if weather.signs:
        sign = marked[code == SIGN]
        colour[sign] = np.maximum(colour[sign], rgba[sign, :3] * np.float32(weather.signs))
    if weather.snow:
        white = marked[(code == LEDGE) | (code == ROOF)]
        colour[white] += weather.snow * (np.array(SNOW, np.float32) * light[white] - colour[white])


def paint_ground(frame: Frame, pixels: Array, picture: Array) -> None:
    """Paints the pixels [P] that show the ground, see `paint_walls`."""
    weather, xy, columns = frame.weather, frame.shot.xy, len(frame.azimuth)
    row, column = pixels // columns, pixels % columns
    distance = (-CAMERA / np.minimum(frame.city.lens.slope, -1e-3)).astype(np.float32)[row]
    x = np.float32(xy[0]) + distance * np.sin(frame.azimuth).astype(np.float32)[column]
    y = np.float32(xy[1]) + distance * np.cos(frame.azimuth).astype(np.float32)[column]
    colour = _ground_colours(weather)[frame.city.ground.at(x, y)]
    if weather.sun:
        colour[_shadow(frame, x, y)] *= np.float32(1 - min(0.36, 1.2 * weather.sun))
    if weather.lamps:
        glow = _lamps_at(frame.city, x, y, weather)[:, None]
        colour *= 1 + 2.2 * glow * np.array(LAMP_LIGHT, np.float32)
    clear = np.exp(-distance * np.float32(weather.fog))[:, None]
    picture[pixels] = colour * clear + np.array(weather.haze, np.float32) * (1 - clear)


def _shadow(frame: Frame, x: Array, y: Array) -> Array:
    """Which ground points (metres [n]) lie in the shadow of a block between them and the sun; bool [n]."""
    sun, reach = between(0, 2 * np.pi, frame.shot.key, 23), between(4, 11, frame.shot.key, 27)
    east, north = np.float32(np.sin(sun)), np.float32(np.cos(sun))
    steps = np.linspace(0.3, 1.0, 4, dtype=np.float32) * np.float32(reach)
    return np.any([frame.city.ground.at(x + east * s, y + north * s) // 8 == GARDEN for s in steps], axis=0)


def _ground_colours(weather: Weather) -> Array:
    """float32 [256, 3]: the lit colour of each code of the ground map."""
    kind, light = np.arange(256) // 8, np.arange(256) % 8
    colour = np.array(GROUND, float)[np.minimum(kind, len(GROUND) - 1)] * (0.88 + 0.04 * light)[:, None]
    colour *= 1 - weather.wet * 0.5
    colour += weather.wet * 0.18 * np.array(weather.horizon) * (kind != GARDEN)[:, None]
    snow = np.clip(weather.snow * (0.72 + 0.05 * light), 0, 1)[:, None]
    colour = colour * (1 - snow) + snow * np.array(SNOW)
    return (colour * (np.array(weather.light) + 0.25 * weather.sun)).astype(np.float32)
