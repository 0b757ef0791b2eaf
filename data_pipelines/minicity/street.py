"""Places street furniture, cars and people into a strip, far to near, hidden where a nearer wall stands before them."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from data_pipelines.minicity.layout import CAR, LAMP, PERSON, TREE, Things
from data_pipelines.minicity.randomness import Array, between, unit
from data_pipelines.minicity.sprites import CAR_LENGTH, CAR_WIDTH, VARIANTS, Picture
from data_pipelines.minicity.weather import Weather

NEAR, FAR = 2.2, 75.0  # metres
# How often a parking space is taken and someone walks at a place of the pavement.
TRAFFIC = {CAR: 0.5, PERSON: 0.14}


class Geometry(NamedTuple):
    """What `draw` must know of a strip.

    Camera [2] and its height in metres, azimuth of the first column, number of columns, radians a column, slopes of the
    rows; and distance and top [LAYERS, C] of the walls that each column meets (`rays.Hits`).
    """

    xy: Array
    camera: float
    first: float
    columns: int
    pitch: float
    slope: Array
    distance: Array
    top: Array


class Seen(NamedTuple):
    """Things in a camera's reach, far to near; rows of [n]. `column` of the strip is where their middle stands."""

    kind: Array
    variant: Array
    look: Array
    distance: Array
    column: Array
    width: Array
    height: Array
    dim: Array


def seen(
    things: Things, geometry: Geometry, pictures: dict[tuple[int, int, int], Picture], survey: int, winter: bool
) -> Seen:
    """Which things can be seen, on the day of `survey` (an integer that decides traffic)."""
    out = things.xy - geometry.xy
    rows = np.flatnonzero((out**2).sum(1) < FAR**2)
    chance = np.array([TRAFFIC.get(kind, 1.0) for kind in range(7)])[things.kind[rows]]
    rows = rows[unit(things.key[rows], survey * (chance < 1), 111) < chance]
    kind, key = things.kind[rows], things.key[rows]
    moving = kind >= CAR
    along = np.radians(things.heading[rows])
    slide = np.where(moving, between(-1.2, 1.2, key, survey, 112), 0.0)
    out = out[rows] + np.stack([np.sin(along), np.cos(along)], 1) * slide[:, None]
    distance, bearing = np.linalg.norm(out, axis=1), np.arctan2(out[:, 0], out[:, 1])
    variant = (unit(key, np.where(moving, survey, 0), 113) * VARIANTS).astype(int)
    sine = np.abs(np.sin(bearing - along))
    look = np.where(kind == CAR, sine < 0.42, (kind == TREE) & winter).astype(int)
    size = np.array(
        [(pictures[k, v, l].width, pictures[k, v, l].height) for k, v, l in zip(kind, variant, look, strict=True)]
    ).reshape(-1, 2)
    apparent = CAR_LENGTH * sine + CAR_WIDTH * np.sqrt(1 - sine**2)
    width = np.where(kind == CAR, np.minimum(apparent, 4.5), size[:, 0])
    column = (bearing - geometry.first) / geometry.pitch
    dim = between(0.85, 1.1, key, 114)
    found = Seen(kind, variant, look, distance, column, width, size[:, 1], dim)
    order = np.argsort(-distance, kind="stable")
    order = order[distance[order] > NEAR]
    return Seen(*(column[order] for column in found))


def draw(
    picture: Array, found: Seen, geometry: Geometry, pictures: dict[tuple[int, int, int], Picture], weather: Weather,
    light: Array,
) -> None:  # fmt: skip
    """Draws what was found on a strip float32 [rows, C, 3], in place; `light` [3] is the factor of sky light."""
    circle = 2 * np.pi / geometry.pitch
    for row in range(len(found.kind)):
        d, half = found.distance[row], np.arctan(found.width[row] / 2 / found.distance[row]) / geometry.pitch
        middle = found.column[row] % circle
        for centre in (middle - circle, middle, middle + circle):
            if centre + half > 0 and centre - half < geometry.columns:
                key = int(found.kind[row]), int(found.variant[row]), int(found.look[row])
                tint = light * found.dim[row]
                _paste(
                    picture, pictures[key], centre - half, centre + half, d, found.height[row], geometry, weather, tint
                )
                if key[0] == LAMP and weather.lamps:
                    _glow(picture, centre, d, found.height[row], geometry, weather)


def _rows(geometry: Geometry, slope: float) -> int:
    step = (geometry.slope[0] - geometry.slope[-1]) / (len(geometry.slope) - 1)
    return int(np.round((geometry.slope[0] - slope) / step + 0.5))


def _paste(
    picture: Array, sprite: Picture, left: float, right: float, distance: float, height: float, geometry: Geometry,
    weather: Weather, light: Array,
) -> None:  # fmt: skip
    """Draws one picture as an upright plane at `distance` that faces the camera, from column `left` to `right`."""
    c0, c1 = round(left), max(round(right), round(left) + 1)
    above, edge = height - geometry.camera, np.cos((right - left) / 2 * geometry.pitch)
    r0, r1 = (
        _rows(geometry, above / distance * (edge if above < 0 else 1.0)),
        _rows(geometry, -geometry.camera / distance),
    )
    a, b = max(c0, 0), min(c1, geometry.columns)
    top, bottom = max(r0, 0), min(r1, len(geometry.slope))
    if a >= b or top >= bottom:
        return
    hidden = np.where(geometry.distance[:, a:b] < distance, geometry.top[:, a:b], -np.inf).max(0)
    show = geometry.slope[top:bottom, None] > hidden
    if not show.any():
        return
    level = next((x for x in reversed(sprite.levels) if x.shape[0] >= r1 - r0), sprite.levels[0])
    if edge < 0.985:
        rgba = _bent(level, (left + right) / 2, right - left, distance, height, geometry, (top, bottom, a, b))
    else:
        rgba = cv2.resize(level, (c1 - c0, r1 - r0), interpolation=cv2.INTER_LINEAR)
        rgba = rgba[top - r0 : bottom - r0, a - c0 : b - c0].astype(np.float32)
    rgba *= show[..., None]
    alpha = rgba[..., 3:] / 255
    clear = np.float32(np.exp(-distance * weather.fog))
    haze = np.array(weather.haze, np.float32) * (1 - clear)
    part = picture[top:bottom, a:b]
    part *= 1 - alpha
    part += rgba[..., :3] * (light * clear).astype(np.float32) + alpha * haze


def _bent(
    level: Array, centre: float, wide: float, distance: float, height: float, geometry: Geometry,
    region: tuple[int, int, int, int],
) -> Array:  # fmt: skip
    """A near picture bent onto the cylinder of the strip, so that views show it straight; float32 RGBA of a region."""
    top, bottom, a, b = region
    turn = (np.arange(a, b) + 0.5 - centre) * geometry.pitch
    x = (np.tan(turn) / np.tan(wide / 2 * geometry.pitch) + 1) / 2 * level.shape[1] - 0.5
    z = geometry.camera + geometry.slope[top:bottom, None] * (distance / np.cos(turn))[None]
    y = (1 - z / height) * level.shape[0] - 0.5
    x = np.broadcast_to(x.astype(np.float32), y.shape)
    return cv2.remap(level, x, y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT).astype(
        np.float32
    )


def _glow(picture: Array, centre: float, distance: float, height: float, geometry: Geometry, weather: Weather) -> None:
    """The light of a lamp's head, added to what is there."""
    wide = 1.1 / distance / geometry.pitch
    step = (geometry.slope[0] - geometry.slope[-1]) / (len(geometry.slope) - 1)
    high = 1.1 / distance / step
    row = (geometry.slope[0] - (height - 0.3 - geometry.camera) / distance) / step
    a, b = max(0, int(centre - wide)), min(geometry.columns, int(centre + wide) + 1)
    top, bottom = max(0, int(row - high)), min(len(geometry.slope), int(row + high) + 1)
    if a >= b or top >= bottom:
        return
    hidden = np.where(geometry.distance[:, a:b] < distance, geometry.top[:, a:b], -np.inf).max(0)
    x, y = (np.arange(a, b) - centre) / wide, (np.arange(top, bottom) - row) / high
    r = x[None] ** 2 + y[:, None] ** 2
    light = np.where(geometry.slope[top:bottom, None] > hidden, np.exp(-r * 6) + np.exp(-r * 60), 0)
    picture[top:bottom, a:b] += light[..., None] * np.array((225, 188, 120), np.float32) * min(1.0, weather.lamps * 1.3)
