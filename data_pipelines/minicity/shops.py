"""Ground floors: shop windows, doors, gates; sign boards, awnings, hanging signs, which change more than houses."""

from __future__ import annotations

import numpy as np

from data_pipelines.minicity import palettes
from data_pipelines.minicity.canvas import LEDGE, PLAIN, SHOP, SIGN, WINDOW, Canvas
from data_pipelines.minicity.houses import House
from data_pipelines.minicity.randomness import Array

Rng = np.random.Generator


def ground_floor(structure: Rng, sign: Rng, canvas: Canvas, house: House, trim: Array, wood: Array) -> None:
    """Draws the ground floor of a front: shops (their goods and sign from `sign`), or a door, windows and a gate."""
    plinth = structure.uniform(0.7, 1.02)
    canvas.shade(0, canvas.width, 0, house.ground_height - 0.1, plinth)
    if structure.random() < 0.62:
        count = max(1, int(canvas.width // structure.uniform(6, 11)))
        for k in range(count):
            span = canvas.width / count
            _shop(structure, sign, canvas, house, 0.25 + k * span, (k + 1) * span - 0.25, wood)
    else:
        _dwelling(structure, canvas, house, trim, wood)


def _shop(structure: Rng, sign: Rng, canvas: Canvas, house: House, x0: float, x1: float, wood: Array) -> None:
    top = house.ground_height - 0.95
    glass_from = structure.uniform(0.3, 0.8)
    canvas.fill(x0, x1, 0, top + 0.1, wood)
    panes = max(2, round((x1 - x0) / structure.uniform(1.3, 2.4)))
    door = int(structure.integers(panes))
    wide = (x1 - x0) / panes
    for k in range(panes):
        left, right = x0 + k * wide + 0.1, x0 + (k + 1) * wide - 0.1
        if k == door:
            canvas.fill(left, right, 0, top - 0.3, wood * 0.55)
            canvas.fill(left + 0.18, right - 0.18, 0.9, top - 0.5, (64, 74, 80), SHOP)
            continue
        canvas.fill(left, right, glass_from, top - 0.05, palettes.pick(structure, palettes.GLASS), SHOP)
        _goods(sign, canvas, left, right, glass_from)
        canvas.shade(left, right, top - 0.6, top - 0.05, 1.2)
    colour = palettes.pick(sign, palettes.SIGNS)
    board(sign, canvas, x0, x1, top + 0.12, top + 0.8, colour)
    if sign.random() < 0.4:
        _awning(sign, canvas, x0, x1, top, colour)


def _goods(sign: Rng, canvas: Canvas, left: float, right: float, foot: float) -> None:
    """What stands in a shop window."""
    for x in np.arange(left + 0.1, right - 0.25, 0.45):
        if sign.random() < 0.7:
            high = sign.uniform(0.3, 1.1)
            canvas.fill(x, x + 0.3, foot + 0.05, foot + high, palettes.pick(sign, palettes.SIGNS) * 0.8, SHOP)


def board(sign: Rng, canvas: Canvas, x0: float, x1: float, z0: float, z1: float, colour: Array) -> None:
    """A sign board with strokes that look like letters from a distance."""
    canvas.fill(x0, x1, z0, z1, colour, SIGN)
    ink = np.array((244, 238, 222.0)) if colour.mean() < 150 else np.array((44, 40, 44.0))
    high = z1 - z0
    x, end = x0 + (x1 - x0) * sign.uniform(0.06, 0.3), x1 - (x1 - x0) * sign.uniform(0.06, 0.3)
    while x < end - 0.3:
        letter = sign.uniform(0.22, 0.4)
        if sign.random() < 0.86:
            canvas.fill(x, x + 0.1, z0 + high * 0.2, z1 - high * 0.2, ink, SIGN)
            for bar in np.flatnonzero(sign.random(3) < 0.5):
                z = z0 + high * (0.2 + 0.24 * bar)
                canvas.fill(x, x + letter, z, z + 0.12, ink, SIGN)
            if sign.random() < 0.4:
                canvas.fill(x + letter - 0.1, x + letter, z0 + high * 0.2, z1 - high * 0.2, ink, SIGN)
        x += letter + 0.12


def _awning(sign: Rng, canvas: Canvas, x0: float, x1: float, top: float, colour: Array) -> None:
    pale, stripe = np.array((232, 226, 214.0)), sign.uniform(0.4, 0.8)
    striped = sign.random() < 0.6
    for k, x in enumerate(np.arange(x0, x1, stripe)):
        canvas.fill(x, min(x + stripe, x1), top - 0.75, top + 0.1, pale if striped and k % 2 else colour * 0.95, PLAIN)
    canvas.shade(x0, x1, top - 0.75, top - 0.6, 0.72)
    canvas.fill(x0, x1, top, top + 0.12, colour, LEDGE)


def _dwelling(structure: Rng, canvas: Canvas, house: House, trim: Array, wood: Array) -> None:
    bays = max(2, round(canvas.width / 2.8))
    wide, door = canvas.width / bays, int(structure.integers(bays))
    gate = structure.random() < 0.25
    for k in range(bays):
        x = (k + 0.5) * wide
        if k == door:
            half = min(wide * 0.42, 1.5) if gate else 0.6
            canvas.fill(x - half - 0.2, x + half + 0.2, 0, 2.75, trim)
            canvas.fill(x - half, x + half, 0, 2.5, wood)
            for panel in np.arange(x - half + 0.12, x + half - 0.2, 0.5):
                canvas.fill(panel, panel + 0.3, 0.3, 1.2, wood * 0.78)
                canvas.fill(panel, panel + 0.3, 1.4, 2.3, wood * 0.78)
        else:
            half = wide * 0.26
            canvas.fill(x - half - 0.12, x + half + 0.12, 1.05, 2.75, trim)
            code = int(structure.integers(WINDOW, 256))
            canvas.fill(x - half, x + half, 1.15, 2.65, palettes.pick(structure, palettes.GLASS), code)
            canvas.fill(x - 0.04, x + 0.04, 1.15, 2.65, trim)
            canvas.fill(x - half - 0.12, x + half + 0.12, 0.95, 1.07, trim, LEDGE)


def hanging_sign(sign: Rng, canvas: Canvas, house: House) -> None:
    """A tall sign on the wall above the shops, on one house in five."""
    if sign.random() > 0.2 or house.floors < 2:
        return
    x = sign.uniform(0.1, 0.75) * canvas.width
    z0 = house.ground_height + 0.3
    z1 = min(house.eaves - 0.9, z0 + sign.uniform(2.0, 4.5))
    colour = palettes.pick(sign, palettes.SIGNS)
    canvas.fill(x, x + 1.0, z0, z1, colour, SIGN)
    ink = (244, 238, 222) if colour.mean() < 150 else (44, 40, 44)
    for z in np.arange(z0 + 0.25, z1 - 0.5, 0.62):
        for part in np.flatnonzero(sign.random(4) < 0.6):
            canvas.fill(x + 0.2 + 0.15 * part, x + 0.35 + 0.15 * part, z, z + 0.4, ink, SIGN)
