"""Renders a panorama strip, and cuts headed views from it.

The strip is a cylinder around the camera: a column is an azimuth, a row a slope (tangent of the elevation), so that a wall
is a straight run of texels in each column. Every column sends one ray over the plan and keeps the first walls that rise
above all nearer ones; each pixel then takes one texel. Views of one panorama share the strip.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from data_pipelines.minicity.canvas import LEDGE, ROOF, SHOP, SIGN, WINDOW
from data_pipelines.minicity.config import CityConfig
from data_pipelines.minicity.ground import GARDEN, Ground, ground_of
from data_pipelines.minicity.houses import outline
from data_pipelines.minicity.layout import FRONT, LAMP, Layout, plan
from data_pipelines.minicity.palettes import GROUND
from data_pipelines.minicity.randomness import Array, between, bits, generator
from data_pipelines.minicity.scene import LEVELS, Scene, TexturePool, scene_of
from data_pipelines.minicity.sprites import pictures
from data_pipelines.minicity.street import Geometry, draw, seen
from data_pipelines.minicity.weather import WEATHER, Weather, drift, sky

CAMERA = 2.1  # metres above the ground
HORIZON = 0.62  # part of a view's height that lies above the horizon
LAYERS = 5  # walls that one column can show one above the other
SIGHT = 170.0  # metres; beyond it is sky


@dataclass(frozen=True)
class Lens:
    """Geometry of strips and views for one size and field of view.

    Attributes:
      size: pixels of a view; columns: of the whole circle; pitch: radians a column.
      slope: float32 [rows] tangent of elevation of each row of a strip.
      wide: columns of the strip that one view needs.
      map_x, map_y: where each pixel of a view, drawn `over` times as fine, lies in such a part of the strip.
    """

    size: int
    over: int
    columns: int
    pitch: float
    slope: Array
    wide: int
    map_x: Array
    map_y: Array


def lens_of(size: int, fov: float, headings: int) -> Lens:
    """The lens for views of `size` pixels and `fov` degrees, whose `headings` start at whole columns of the strip."""
    half = np.tan(np.radians(fov) / 2)
    over = 2 if size <= 128 else 1
    fine = max(1.25, min(3.0, 210 / size))  # columns and rows of the strip for one pixel in the middle of a view
    unit = max(1, headings)
    columns = int(np.ceil(2 * np.pi / (2 * half / size) * fine / unit)) * unit
    rows = int(np.ceil(size * min(fine, 2.0)))
    pitch, step = 2 * np.pi / columns, 2 * half / rows
    slope = (HORIZON * 2 * half - (np.arange(rows) + 0.5) * step).astype(np.float32)
    wide = int(np.ceil(np.radians(fov) / pitch)) + 4
    pixel = (np.arange(size * over) + 0.5) * 2 * half / (size * over)
    angle = np.arctan(pixel - half)
    height = (2 * half * HORIZON - pixel)[:, None] * np.cos(angle)[None]
    map_x = np.broadcast_to(wide / 2 + angle / pitch - 0.5, height.shape).astype(np.float32)
    map_y = ((slope[0] - height) / step).astype(np.float32)
    return Lens(size, over, columns, pitch, slope, wide, *cv2.convertMaps(map_x, map_y, cv2.CV_16SC2))


class City:
    """All that rendering needs; scenes of single years and façades are made when they are first seen."""

    def __init__(self, config: CityConfig):
        self.config = config
        self.layout: Layout = plan(config)
        self.ground: Ground = ground_of(config, self.layout)
        self.lens = lens_of(config.size, config.fov, config.headings)
        self.pool = TexturePool(config, 8.0 if config.size <= 96 else 12.0)
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


@dataclass(frozen=True)
class Hits:
    """Walls that the rays of C columns meet, from near to far; arrays [LAYERS, C].

    Attributes:
      wall: row of the scene; u: metres along it; distance: metres, infinite where there is none.
      top: slope of its upper edge, never less than that of a nearer one.
      cosine: of the angle between ray and wall normal.
    """

    wall: Array
    u: Array
    distance: Array
    top: Array
    cosine: Array


def cast(scene: Scene, origin: Array, azimuth: Array) -> Hits:
    """Sends rays from `origin` (metres [2]) at `azimuth` (radians from north, [C]) over the walls of a scene."""
    rows = _facing(scene, origin)
    way = np.stack([np.sin(azimuth), np.cos(azimuth)]).astype(np.float32)
    e = scene.along[rows]
    p = scene.start[rows] - np.asarray(origin, np.float32)
    # Cramer's rule on origin + distance * way = start + s * along, for all walls and columns at once.
    det = e[:, 1:] * way[0] - e[:, :1] * way[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1 / det
        distance = (p[:, 0] * e[:, 1] - p[:, 1] * e[:, 0])[:, None] * inverse
        s = (p[:, :1] * way[1] - p[:, 1:] * way[0]) * inverse
    distance[~((distance > 0.05) & (s >= 0) & (s <= 1))] = np.inf
    highest = (scene.eaves + scene.rise)[rows][:, None] - CAMERA
    columns = np.arange(len(azimuth))
    shape = (LAYERS, len(azimuth))
    wall, u, near = np.zeros(shape, np.int64), np.zeros(shape, np.float32), np.full(shape, np.inf, np.float32)
    top, cosine = np.zeros(shape, np.float32), np.ones(shape, np.float32)
    seen = np.full(len(azimuth), -np.inf, np.float32)
    for layer in range(LAYERS):
        first = distance.argmin(0)
        near[layer] = distance[first, columns]
        wall[layer] = rows[first]
        part = np.clip(s[first, columns], 0, 1)
        w = wall[layer]
        u[layer] = part * scene.length[w]
        height = scene.eaves[w] + scene.rise[w] * outline(scene.roof[w], part)
        hit = np.isfinite(near[layer])
        seen = np.where(hit, np.maximum(seen, (height - CAMERA) / near[layer]), seen).astype(np.float32)
        top[layer] = seen
        cosine[layer] = np.abs(det[first, columns]) / scene.length[w]
        if layer + 1 < LAYERS:
            distance[first, columns] = np.inf
            distance[highest <= seen * distance] = np.inf
    return Hits(wall, u, near, top, cosine)


def _facing(scene: Scene, origin: Array) -> Array:
    """Rows of the walls that are near enough and turn their right side to `origin`."""
    to = np.asarray(origin, np.float32) - scene.start
    right = scene.along[:, 1] * to[:, 0] - scene.along[:, 0] * to[:, 1] > 0
    middle = to - scene.along / 2
    reach = np.where(scene.walls.face == FRONT, SIGHT, 80.0) + scene.length / 2
    return np.flatnonzero(right & ((middle**2).sum(1) < reach**2))


def strip(city: City, xy: Array, year: int, condition: str, key: int, azimuth: Array) -> Array:
    """uint8 RGB [rows, C, 3]: what a camera at `xy` (metres [2]) sees at `azimuth` (radians, [C]) in one year and weather."""
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
        _paint_walls(city, scene, hits, weather, key, azimuth, np.flatnonzero(covered & ~below), layer, picture, xy)
    _paint_ground(city, weather, xy, azimuth, np.flatnonzero(below), picture)
    picture = picture.reshape(len(slope), columns, 3)
    geometry = Geometry(xy, CAMERA, float(azimuth[0]), columns, lens.pitch, slope, hits.distance, hits.top)
    survey = int(bits(city.config.seed, year, list(WEATHER).index(condition)) >> np.uint64(8))
    found = seen(city.layout.things, geometry, city.pictures, survey, winter=condition == "snow")
    draw(picture, found, geometry, city.pictures, weather, np.array(weather.light) * 1.05)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _paint_walls(
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


def _paint_ground(city: City, weather: Weather, xy: Array, azimuth: Array, pixels: Array, picture: Array) -> None:
    columns = len(azimuth)
    row, column = pixels // columns, pixels % columns
    distance = (-CAMERA / np.minimum(city.lens.slope, -1e-3)).astype(np.float32)[row]
    x = np.float32(xy[0]) + distance * np.sin(azimuth).astype(np.float32)[column]
    y = np.float32(xy[1]) + distance * np.cos(azimuth).astype(np.float32)[column]
    colour = _ground_colours(weather)[city.ground.at(x, y)]
    if weather.lamps:
        rows, cells = city.lamp_light.shape
        i, j = np.clip(y, 0, rows - 1).astype(np.int32), np.clip(x, 0, cells - 1).astype(np.int32)
        glow = city.lamp_light.ravel()[i * cells + j] * np.float32(weather.lamps)
        colour = colour * (1 + glow[:, None] * np.array((2.2, 1.8, 1.1), np.float32))
    clear = np.exp(-distance * np.float32(weather.fog))[:, None]
    picture[pixels] = colour * clear + np.array(weather.haze, np.float32) * (1 - clear)


def _ground_colours(weather: Weather) -> Array:
    """float32 [256, 3]: the lit colour of each code of the ground map."""
    kind, light = np.arange(256) // 8, np.arange(256) % 8
    colour = np.array(GROUND, float)[np.minimum(kind, len(GROUND) - 1)] * (0.88 + 0.04 * light)[:, None]
    colour *= 1 - weather.wet * 0.5
    colour += weather.wet * 0.18 * np.array(weather.horizon) * (kind != GARDEN)[:, None]
    snow = np.clip(weather.snow * (0.72 + 0.05 * light), 0, 1)[:, None]
    colour = colour * (1 - snow) + snow * np.array((234, 238, 246))
    return (colour * (np.array(weather.light) + 0.25 * weather.sun)).astype(np.float32)


def views(city: City, xy: Array, year: int, condition: str, key: int, heading: float, count: int) -> Array:
    """uint8 RGB [count, S, S, 3]: views from one spot, the first at `heading` degrees, the others evenly around the circle."""
    lens = city.lens
    if count == 1:
        azimuth = np.radians(heading) + (np.arange(lens.wide) + 0.5 - lens.wide / 2) * lens.pitch
        parts = [strip(city, xy, year, condition, key, azimuth)]
    else:
        parts = cut(lens, panorama(city, xy, year, condition, key, heading), count)
    return np.stack([_develop(city, part, condition, key, k) for k, part in enumerate(parts)])


def panorama(city: City, xy: Array, year: int, condition: str, key: int, heading: float) -> Array:
    """uint8 RGB [rows, columns, 3]: the whole circle; the middle column looks to `heading` degrees."""
    lens = city.lens
    azimuth = np.radians(heading) + (np.arange(lens.columns) + 0.5 - lens.columns / 2) * lens.pitch
    return strip(city, xy, year, condition, key, azimuth)


def cut(lens: Lens, whole: Array, count: int) -> list[Array]:
    """Parts [rows, wide, 3] of a panorama for `count` views evenly around the circle, the first in its middle."""
    padded = np.concatenate([whole, whole[:, : lens.wide]], 1)
    first = lens.columns // 2 - lens.wide // 2
    starts = (first + np.arange(count) * lens.columns // count) % lens.columns
    return [padded[:, start : start + lens.wide] for start in starts]


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
