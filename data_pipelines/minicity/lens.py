"""Geometry of pictures: the cylinder that a panorama is drawn on, and where a view's pixels lie on it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from data_pipelines.minicity.config import CityConfig
from data_pipelines.minicity.randomness import Array

CAMERA = 2.1  # metres above the ground
HORIZON = 0.62  # part of a view's height that lies above the horizon


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


def strip_size(config: CityConfig) -> tuple[int, int]:
    """(height, width) in pixels of the panoramas of a city, whose width is the whole circle."""
    lens = lens_of(config.size, config.fov, config.headings)
    return len(lens.slope), lens.columns


def lens_of(size: int, fov: float, headings: int) -> Lens:
    """The lens for views of `size` pixels and `fov` degrees, whose `headings` start at whole columns of the strip."""
    half = np.tan(np.radians(fov) / 2)
    over = 2 if size <= 128 else 1
    fine = max(1.25, min(3.0, 210 / size))  # columns and rows of the strip for one pixel in the middle of a view
    unit = 2 * headings
    columns = int(np.ceil(2 * np.pi / (2 * half / size) * fine / unit)) * unit
    rows = int(np.ceil(size * min(fine, 2.0)))
    pitch, step = 2 * np.pi / columns, 2 * half / rows
    slope = (HORIZON * 2 * half - (np.arange(rows) + 0.5) * step).astype(np.float32)
    wide = 2 * int(np.ceil(np.radians(fov) / pitch / 2)) + 4
    pixel = (np.arange(size * over) + 0.5) * 2 * half / (size * over)
    angle = np.arctan(pixel - half)
    height = (2 * half * HORIZON - pixel)[:, None] * np.cos(angle)[None]
    map_x = np.broadcast_to(wide / 2 + angle / pitch - 0.5, height.shape).astype(np.float32)
    map_y = ((slope[0] - height) / step).astype(np.float32)
    return Lens(size, over, columns, pitch, slope, wide, *cv2.convertMaps(map_x, map_y, cv2.CV_16SC2))
