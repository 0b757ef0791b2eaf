"""Colours of walls and ground: a texel for each pixel, then light, lamps, lit windows, snow, shadow and haze."""

from __future__ import annotations

import numpy as np

from data_pipelines.minicity.canvas import LEDGE, ROOF, SHOP, SIGN, WINDOW
from data_pipelines.minicity.city import City
from data_pipelines.minicity.ground import GARDEN
from data_pipelines.minicity.lens import CAMERA
from data_pipelines.minicity.palettes import GROUND
from data_pipelines.minicity.randomness import Array, between, bits
from data_pipelines.minicity.rays import Hits
from data_pipelines.minicity.scene import LEVELS, Scene
from data_pipelines.minicity.weather import Weather


def paint_walls(
    city: City, scene: Scene, hits: Hits, weather: Weather, key: int, azimuth: Array, pixels: Array, layer: Array,
    picture: Array, xy: Array,
) -> None:  # fmt: skip
    """Looks up the texel of each wall pixel and lights it."""
    columns, pool = len(azimuth), city.pool
    # Layers that are not hit hide behind a nearer one, because their slope is never greater.
    column = pixels % columns
    row = pixels // columns
    at = layer.ravel()[pixels].astype(np.int64) * columns + column
    slot = pool.slots_of(scene, hits.wall.ravel()).reshape(hits.wall.shape)
    distance = np.where(np.isfinite(hits.distance), hits.distance, 1e4)
    texel = distance * city.lens.pitch * pool.scale / np.sqrt(np.maximum(hits.cosine, 0.02))
    level = np.clip(np.log2(np.maximum(texel, 1)) + 0.3, 0, LEVELS - 1).astype(int)
    wide = pool.columns[slot, level]
    first = pool.first[slot, level] + np.minimum((hits.u / scene.length[hits.wall] * wide).astype(int), wide - 1)
    height = (scene.eaves + scene.rise)[hits.wall]
    high = pool.rows[slot, level]
    scale = (high / height).astype(np.float32)
    z = CAMERA + city.lens.slope[row] * distance.ravel()[at].astype(np.float32)
    v = ((height.ravel()[at] - z) * scale.ravel()[at]).astype(np.int32)
    v = np.clip(v, 0, high.ravel()[at] - 1)
    rgba = pool.texels[first.ravel()[at] + v * wide.ravel()[at]].view(np.uint8).reshape(-1, 4)
    light = _wall_light(scene, hits, weather, key).ravel()[at][:, None] * np.array(weather.light, np.float32)
    if weather.lamps:
        light = light + _lamp_glow(city, xy, azimuth, hits, weather).ravel()[at, None] * np.clip(1.2 - z / 10, 0, 1)[
            :, None
        ] * np.array((1.0, 0.86, 0.62), np.float32)
    colour = rgba[:, :3] * light
    shift = (hits.wall * 37 + int(bits(key, 22) >> np.uint64(40)) % 240).ravel()[at]
    _special(colour, rgba, light, shift, weather)
    clear = np.exp(-np.minimum(distance, 1e3) * weather.fog).astype(np.float32).ravel()[at][:, None]
    picture[pixels] = colour * clear + np.array(weather.haze, np.float32) * (1 - clear)


def _wall_light(scene: Scene, hits: Hits, weather: Weather, key: int) -> Array:
    """Factor [LAYERS, C] of the sun and of the sky for walls that look to different sides."""
    sun = between(0, 2 * np.pi, key, 23)
    along = scene.along[hits.wall] / scene.length[hits.wall][..., None]
    normal = np.stack([along[..., 1], -along[..., 0]], -1)
    facing = normal @ np.array([np.sin(sun), np.cos(sun)], np.float32)
    return (0.93 + 0.07 * facing + weather.sun * np.maximum(facing, 0)).astype(np.float32)


def _lamp_glow(city: City, xy: Array, azimuth: Array, hits: Hits, weather: Weather) -> Array:
    distance = np.minimum(hits.distance, 400) - 0.8
    x, y = xy[0] + distance * np.sin(azimuth), xy[1] + distance * np.cos(azimuth)
    rows, columns = city.lamp_light.shape
    light = city.lamp_light[np.clip(y, 0, rows - 1).astype(int), np.clip(x, 0, columns - 1).astype(int)]
    return (light * weather.lamps).astype(np.float32)


def _special(colour: Array, rgba: Array, light: Array, shift: Array, weather: Weather) -> None:
    """Windows and shops that are lit, signs that shine, ledges and roofs under snow; changes `colour` in place."""
    code = rgba[:, 3]
    marked = np.flatnonzero(code)
    kind = code[marked]
    window = marked[kind >= WINDOW]
    number = (code[window].astype(np.int64) * 7 + shift[window]) % 240
    lit = number < weather.lit * 240
    warm = np.array((255, 206, 132), np.float32) * (0.62 + 0.38 * (number[lit] % 5) / 4)[:, None].astype(np.float32)
    colour[window[lit]] = 0.72 * warm + 0.2 * rgba[window[lit], :3]
    if weather.shops:
        shop = marked[kind == SHOP]
        colour[shop] = colour[shop] * (1 - 0.6 * weather.shops) + weather.shops * (
            0.5 * rgba[shop, :3] + np.array((116, 100, 70), np.float32)
        )
    if weather.signs:
        sign = marked[kind == SIGN]
        colour[sign] = np.maximum(colour[sign], rgba[sign, :3] * np.float32(weather.signs))
    if weather.snow:
        white = marked[(kind == LEDGE) | (kind == ROOF)]
        colour[white] += weather.snow * (np.array((236, 240, 246), np.float32) * light[white] - colour[white])


def paint_ground(
    city: City, weather: Weather, key: int, xy: Array, azimuth: Array, pixels: Array, picture: Array
) -> None:
    columns = len(azimuth)
    row, column = pixels // columns, pixels % columns
    distance = (-CAMERA / np.minimum(city.lens.slope, -1e-3)).astype(np.float32)[row]
    x = np.float32(xy[0]) + distance * np.sin(azimuth).astype(np.float32)[column]
    y = np.float32(xy[1]) + distance * np.cos(azimuth).astype(np.float32)[column]
    colour = _ground_colours(weather)[city.ground.at(x, y)]
    if weather.sun:
        colour[_shadow(city, key, x, y)] *= np.float32(1 - min(0.36, 1.2 * weather.sun))
    if weather.lamps:
        rows, cells = city.lamp_light.shape
        i, j = np.clip(y, 0, rows - 1).astype(np.int32), np.clip(x, 0, cells - 1).astype(np.int32)
        glow = city.lamp_light.ravel()[i * cells + j] * np.float32(weather.lamps)
        colour = colour * (1 + glow[:, None] * np.array((2.2, 1.8, 1.1), np.float32))
    clear = np.exp(-distance * np.float32(weather.fog))[:, None]
    picture[pixels] = colour * clear + np.array(weather.haze, np.float32) * (1 - clear)


def _shadow(city: City, key: int, x: Array, y: Array) -> Array:
    """Which ground points (metres [n]) lie in the shadow of a block between them and the sun; bool [n]."""
    sun, reach = between(0, 2 * np.pi, key, 23), between(4, 11, key, 27)
    east, north = np.float32(np.sin(sun)), np.float32(np.cos(sun))
    steps = np.linspace(0.3, 1.0, 4, dtype=np.float32) * np.float32(reach)
    return np.any([city.ground.at(x + east * s, y + north * s) // 8 == GARDEN for s in steps], axis=0)


def _ground_colours(weather: Weather) -> Array:
    """float32 [256, 3]: the lit colour of each code of the ground map."""
    kind, light = np.arange(256) // 8, np.arange(256) % 8
    colour = np.array(GROUND, float)[np.minimum(kind, len(GROUND) - 1)] * (0.88 + 0.04 * light)[:, None]
    colour *= 1 - weather.wet * 0.5
    colour += weather.wet * 0.18 * np.array(weather.horizon) * (kind != GARDEN)[:, None]
    snow = np.clip(weather.snow * (0.72 + 0.05 * light), 0, 1)[:, None]
    colour = colour * (1 - snow) + snow * np.array((234, 238, 246))
    return (colour * (np.array(weather.light) + 0.25 * weather.sun)).astype(np.float32)
