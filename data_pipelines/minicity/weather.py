"""Light and weather of the six conditions: sky, fog, lamps, snow, and what drifts before the lens."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from data_pipelines.minicity.randomness import Array, generator


@dataclass(frozen=True)
class Weather:
    """How one condition looks; colours RGB in [0, 255], factors of a surface's own colour.

    Attributes:
      light: factor [3] of what sky light does to a surface; sun: further factor where the sun falls on it.
      zenith, horizon: colours of the sky; clouds: how far clouds lighten (or darken) it.
      fog: part of the light that a metre of air takes, 1/m; haze: its colour.
      lit: part of the windows with light behind them; shops: brightness of shop windows; lamps: of street lamps.
      signs: least factor of sign boards, which shine by night.
      snow: part of ledges, roofs and ground under snow; wet: how far rain darkens the ground.
      flakes, streaks: snow flakes and rain streaks a 64 x 64 view.
      noise: standard deviation of the sensor's noise.
    """

    light: tuple[float, float, float]
    sun: float
    zenith: tuple[float, float, float]
    horizon: tuple[float, float, float]
    clouds: float
    fog: float
    haze: tuple[float, float, float]
    lit: float = 0.0
    shops: float = 0.0
    lamps: float = 0.0
    signs: float = 0.0
    snow: float = 0.0
    wet: float = 0.0
    flakes: int = 0
    streaks: int = 0
    noise: float = 2.0


WEATHER = {
    "day": Weather((0.82, 0.84, 0.88), 0.34, (92, 138, 196), (196, 212, 226), 40, 0.0024, (196, 208, 220)),
    "dusk": Weather(
        (0.52, 0.46, 0.50), 0.10, (70, 78, 124), (240, 166, 112), 26, 0.002, (196, 150, 124),
        lit=0.3, shops=0.75, lamps=0.35, signs=0.75, noise=3.0,
    ),
    "night": Weather(
        (0.33, 0.34, 0.43), 0.0, (20, 24, 46), (78, 70, 76), 10, 0.003, (58, 54, 64),
        lit=0.42, shops=0.85, lamps=0.85, signs=0.95, noise=4.5,
    ),
    "rain": Weather(
        (0.60, 0.62, 0.66), 0.03, (120, 128, 138), (164, 168, 174), 20, 0.009, (150, 155, 162),
        lit=0.15, shops=0.5, signs=0.5, wet=0.45, streaks=22, noise=3.0,
    ),
    "fog": Weather(
        (0.78, 0.79, 0.80), 0.02, (186, 190, 194), (196, 198, 200), 6, 0.022, (192, 195, 198),
        lit=0.1, shops=0.4, signs=0.4,
    ),
    "snow": Weather(
        (0.80, 0.82, 0.87), 0.06, (176, 184, 196), (208, 212, 218), 12, 0.007, (204, 208, 215),
        lit=0.1, shops=0.4, signs=0.4, snow=0.9, flakes=34,
    ),
}  # fmt: skip


def sky(weather: Weather, slope: Array, columns: int, seed: int) -> Array:
    """float32 [rows, columns, 3]: the sky over the slopes (tangent of elevation) `slope` [rows], seamless around."""
    rng = generator(seed, 91)
    cells = np.zeros((9, 24), np.float32)
    for octave in (1, 2, 3):
        fine = rng.normal(0, 1 / octave, (3 * octave, 8 * octave)).astype(np.float32)
        cells += cv2.resize(np.concatenate([fine, fine[:, :1]], 1), (24, 9), interpolation=cv2.INTER_LINEAR)
    cells = np.concatenate([cells, cells[:, :2]], 1)
    clouds = cv2.resize(cells, (columns + columns // 12, len(slope)), interpolation=cv2.INTER_CUBIC)[:, :columns]
    height = np.clip(np.arctan(np.maximum(slope, 0)) / 0.9, 0, 1)[:, None, None] ** 0.7
    gradient = (1 - height) * np.array(weather.horizon) + height * np.array(weather.zenith)
    return (gradient + weather.clouds * np.clip(clouds, 0, 1.5)[..., None] * (0.3 + 0.7 * height)).astype(np.float32)


def drift(view: Array, weather: Weather, rng: np.random.Generator) -> None:
    """Draws snow flakes or rain streaks on a view uint8 [S, S, 3], in place."""
    size = view.shape[0]
    for _ in range(weather.flakes):
        x, y = rng.uniform(0, size, 2)
        radius = size / 64 * rng.choice([0.35, 0.5, 0.8])
        cv2.circle(view, (int(x * 8), int(y * 8)), max(4, int(radius * 8)), (240, 242, 246), -1, cv2.LINE_AA, 3)
    for _ in range(weather.streaks):
        x, y = rng.uniform(-0.1, 1, 2) * size
        end = (int(x + 0.012 * size), int(y + rng.uniform(0.06, 0.14) * size))
        colour = tuple(int(c) for c in view[int(np.clip(y, 0, size - 1)), int(np.clip(x, 0, size - 1))] * 0.6 + 84)
        cv2.line(view, (int(x), int(y)), end, colour, 1, cv2.LINE_AA)
