"""Which walls a camera sees: one ray a column over the plan, keeping the walls that rise above all nearer ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_pipelines.minicity.houses import outline
from data_pipelines.minicity.layout import FRONT
from data_pipelines.minicity.lens import CAMERA
from data_pipelines.minicity.randomness import Array
from data_pipelines.minicity.scene import Scene

LAYERS = 5  # walls that one column can show one above the other
SIGHT = 220.0  # metres; beyond it is sky


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
    for layer in range(LAYERS if len(rows) else 0):
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
