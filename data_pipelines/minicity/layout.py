"""Streets, blocks, lots and what stands on the pavement. Metres; x to the east, y to the north, origin south-west.

Street centrelines join nodes of a (possibly crooked) grid. A block is the quadrilateral between four of them, each side
moved inwards by half its street's width; its edge is cut into lots, and each lot is a box of four walls. The outermost
streets are closed by one more row of houses, so that no ray leaves the city.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from data_pipelines.minicity.config import CityConfig
from data_pipelines.minicity.randomness import Array, between, unit

LOT_DEPTH = 9.0
FRONT, SIDE, BACK = 0, 1, 2
# Street furniture that stays for years, then what comes and goes.
TREE, LAMP, KIOSK, BENCH, POST, CAR, PERSON = range(7)


class Style(NamedTuple):
    """Measures of one architecture, metres: least and greatest block side and street width (between façades), pavement,
    usual lot width, how far crossings lie off a straight grid; and the part of kerbs with trees."""

    block: tuple[float, float]
    street: tuple[float, float]
    pavement: float
    lot: float
    crooked: float
    trees: float


STYLE = {
    "old_town": Style((44.0, 60.0), (12.0, 15.0), 2.3, 9.0, 7.0, 0.45),
    "modern": Style((60.0, 84.0), (18.0, 24.0), 3.6, 17.0, 0.0, 0.6),
}


@dataclass(frozen=True)
class Walls:
    """Walls of all lots, seen from the right of `start` -> `end`. Rows of [W]."""

    start: Array  # float64 [W, 2]
    end: Array  # float64 [W, 2]
    house: Array  # int [W]
    face: Array  # FRONT, SIDE or BACK
    width: Array  # width of the house's front, metres


@dataclass(frozen=True)
class Things:
    """Where street furniture, cars and people may stand. Rows of [T]."""

    kind: Array
    xy: Array  # float64 [T, 2]
    heading: Array  # degrees from north, of the kerb it stands at
    key: Array  # int, identity for random choices


@dataclass(frozen=True)
class Layout:
    """A city's plan.

    Attributes:
      nodes: float64 [n, n, 2] crossings, first index to the east.
      street: street widths between façades: [2, n], of the lines along y (east index) and along x (north index).
      blocks: float64 [B, 4, 2] corners, counter-clockwise.
      walls, things: see their classes.
      extent: width and height of the whole, metres.
    """

    nodes: Array
    street: Array
    blocks: Array
    walls: Walls
    things: Things
    extent: Array

    def camera_lines(self) -> list[Array]:
        """Centrelines [k, 2] of the inner streets, where cameras drive."""
        inner = self.nodes[1:-1, 1:-1]
        return [inner[i] for i in range(len(inner))] + [inner[:, j] for j in range(len(inner))]


def plan(config: CityConfig) -> Layout:
    """Lays out the city of `config`."""
    style, n = STYLE[config.style], config.blocks + 3
    lines = np.arange(n)
    street = np.stack([between(*style.street, config.seed, 31, axis, lines) for axis in (0, 1)])
    nodes = _nodes(config.seed, style, n, street)
    blocks = _blocks(nodes, street)
    extent = nodes.max((0, 1)) + street[:, -1] / 2 + LOT_DEPTH
    corners = np.stack([nodes[0, 0], nodes[0, -1], nodes[-1, -1], nodes[-1, 0]])
    half = np.stack([street[0, [0, 0, -1, -1]], street[1, [0, -1, -1, 0]]], 1) / 2
    outward = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]]) * half
    rings = [*blocks, corners + outward]
    lots = [_lots(config.seed, ring, number, style.lot) for number, ring in enumerate(rings)]
    things = [_furniture(config.seed, ring, number, style.trees, style.pavement) for number, ring in enumerate(blocks)]
    return Layout(nodes, street, blocks, _walls(lots), _join(things), extent)


def _nodes(seed: int, style: Style, n: int, street: Array) -> Array:
    sides = np.stack([between(*style.block, seed, 32, axis, np.arange(n - 1)) for axis in (0, 1)])
    sides[:, [0, -1]] *= 0.6  # the ring around is only scenery
    steps = sides + (street[:, 1:] + street[:, :-1]) / 2
    lines = np.concatenate([np.zeros((2, 1)), np.cumsum(steps, 1)], 1) + LOT_DEPTH + street[:, :1] / 2
    nodes = np.stack(np.meshgrid(lines[0], lines[1], indexing="ij"), -1)
    i, j = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    shift = np.stack([between(-1, 1, seed, 33, axis, i, j) for axis in (0, 1)], -1) * style.crooked
    nodes[1:-1, 1:-1] += shift[1:-1, 1:-1]
    return nodes


def _blocks(nodes: Array, street: Array) -> Array:
    """float64 [B, 4, 2]: quadrilaterals between the streets, corners counter-clockwise from the south-west."""
    n, blocks = len(nodes), []
    for i in range(n - 1):
        for j in range(n - 1):
            corners = np.stack([nodes[i, j], nodes[i + 1, j], nodes[i + 1, j + 1], nodes[i, j + 1]])
            inset = np.array([street[1, j], street[0, i + 1], street[1, j + 1], street[0, i]]) / 2
            blocks.append(inset_polygon(corners, inset))
    return np.stack(blocks)


def inset_polygon(corners: Array, inset: Array) -> Array:
    """Moves each side (corner k to k + 1, counter-clockwise) inwards by `inset[k]` metres; returns the new corners."""
    along = np.roll(corners, -1, 0) - corners
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    points = corners + np.stack([-along[:, 1], along[:, 0]], 1) * inset[:, None]
    result = np.empty_like(corners)
    for k in range(len(corners)):
        p, d, q, e = points[k - 1], along[k - 1], points[k], along[k]
        t = ((q[0] - p[0]) * e[1] - (q[1] - p[1]) * e[0]) / (d[0] * e[1] - d[1] * e[0])
        result[k] = p + t * d
    return result


def _lots(seed: int, ring: Array, number: int, target: float) -> tuple[Array, Array, Array, Array]:
    """Cuts a polygon's sides into lots: starts, ends [k, 2], houses [k], whether first or last of a side [k, 2].

    A corner house has two fronts, one on each side.
    """
    starts, ends, houses, edges = [], [], [], []
    for side in range(len(ring)):
        a, b = ring[side], ring[(side + 1) % len(ring)]
        count = max(2, round(float(np.linalg.norm(b - a)) / target))
        shares = between(0.7, 1.4, seed, 34, number, side, np.arange(count))
        cuts = a + np.concatenate([[0], np.cumsum(shares) / shares.sum()])[:, None] * (b - a)
        starts.append(cuts[:-1])
        ends.append(cuts[1:])
        first = (number * 8 + side) * 4096
        previous = (number * 8 + (side - 1) % len(ring)) * 4096
        houses.append(np.concatenate([[previous], first + np.arange(1, count)]))
        houses[-1][-1] = first
        edges.append(np.stack([np.arange(count) == 0, np.arange(count) == count - 1], 1))
    return np.concatenate(starts), np.concatenate(ends), np.concatenate(houses), np.concatenate(edges)


def _walls(lots: list) -> Walls:
    start, end, house, outermost = (np.concatenate(column) for column in zip(*lots, strict=True))
    width = np.linalg.norm(end - start, axis=1)
    along = (end - start) / width[:, None]
    inward = np.stack([-along[:, 1], along[:, 0]], 1) * LOT_DEPTH
    everywhere = np.ones(len(start), bool)
    # The outer side of a corner house is no wall of its own: the next street's front stands there.
    box = [
        (start, end, FRONT, everywhere),
        (end, end + inward, SIDE, ~outermost[:, 1]),
        (end + inward, start + inward, BACK, everywhere),
        (start + inward, start, SIDE, ~outermost[:, 0]),
    ]
    return Walls(
        np.concatenate([a[keep] for a, _, _, keep in box]),
        np.concatenate([b[keep] for _, b, _, keep in box]),
        np.concatenate([house[keep] for *_, keep in box]),
        np.concatenate([np.full(keep.sum(), face) for _, _, face, keep in box]),
        np.concatenate([width[keep] for *_, keep in box]),
    )


def _furniture(seed: int, ring: Array, number: int, trees: float, kerb: float) -> Things:
    """What stands along one block's pavements: fixed things at the kerb, slots for cars beside it, for people on it."""
    rows: list[tuple[int, Array, float, int]] = []
    for side in range(4):
        a, b = ring[side], ring[(side + 1) % 4]
        length = float(np.linalg.norm(b - a))
        along = (b - a) / length
        out, heading = np.array([along[1], -along[0]]), float(np.degrees(np.arctan2(along[0], along[1]))) % 360
        key = (number * 4 + side) * 1024
        row = _kerb_row(seed, key, length, trees, kerb)
        rows += [(kind, a + along * s + out * d, heading, k) for kind, s, d, k in row]
    rows += [(TREE, _inside(seed, ring, number, k), 0.0, number * 4096 + 4000 + k) for k in range(5)]
    return Things(*(np.array(column) for column in zip(*rows, strict=True)))


def _inside(seed: int, ring: Array, number: int, k: int) -> Array:
    """A spot in a block's courtyard, where a tree stands that a gap in the row of houses shows."""
    share = between(0.3, 0.7, seed, 46, number, k, np.arange(2))
    south, north = (a + share[0] * (b - a) for a, b in ((ring[0], ring[1]), (ring[3], ring[2])))
    return south + share[1] * (north - south)


def _kerb_row(seed: int, key: int, length: float, trees: float, kerb: float) -> list[tuple[int, float, float, int]]:
    """(kind, metres along, metres out from the façades, identity) of one side of a block."""
    row: list[tuple[int, float, float, int]] = []
    leafy = unit(seed, 41, key) < trees
    for k in range(int(length // 7.5)):
        s = 4.0 + 7.5 * k + float(between(-1, 1, seed, 42, key, k))
        if k % 2 == 0:
            row.append((LAMP, s, kerb - 0.4, key + k))
        elif leafy:
            row.append((TREE, s, kerb - 0.5, key + k))
        elif unit(seed, 43, key, k) < 0.5:
            row.append((KIOSK + int(3 * unit(seed, 44, key, k)), s + 2, kerb - 0.9, key + k))
    parked = unit(seed, 45, key) < 0.6
    row += [(CAR, s, kerb + 1.2, key + 200 + k) for k, s in enumerate(np.arange(7.0, length - 9, 6.2)) if parked]
    row += [(PERSON, s, kerb * 0.45, key + 600 + k) for k, s in enumerate(np.arange(2.0, length, 4.0))]
    return row


def _join(parts: list[Things]) -> Things:
    return Things(*(np.concatenate([getattr(p, f) for p in parts]) for f in ("kind", "xy", "heading", "key")))
