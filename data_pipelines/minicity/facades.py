"""Draws a façade: material, windows, ground floor, roof.

What belongs to the structure, the paint and the sign is drawn from three generators, so that each can change alone.
"""

from __future__ import annotations

import numpy as np

from data_pipelines.minicity import palettes
from data_pipelines.minicity.canvas import LEDGE, PLAIN, ROOF, WINDOW, Canvas
from data_pipelines.minicity.houses import FLAT, MANSARD, House
from data_pipelines.minicity.layout import FRONT, SIDE
from data_pipelines.minicity.randomness import Array, generator
from data_pipelines.minicity.shops import ground_floor, hanging_sign


def facade(house: House, face: int, width: float, scale: float) -> Array:
    """uint8 RGBA [rows, columns, 4] of one wall of a house, `scale` texels a metre; alpha: the codes of `canvas`."""
    structure = generator(house.seed, 71, house.house, house.structure, face)
    paint = generator(house.seed, 72, house.house, house.paint)
    colour = palettes.pick(paint, palettes.WALLS[house.style])
    if house.gap:
        return _fence(structure, paint, Canvas(width, house.eaves, scale, colour)).texels
    canvas = Canvas(width, house.eaves + house.rise, scale, colour)
    trim = palettes.pick(paint, palettes.TRIM)
    wood = palettes.pick(paint, palettes.WOOD)
    _material(structure, canvas, house)
    if face == SIDE:
        canvas.shade(0, width, 0, canvas.height, 0.92)
    else:
        _storeys(structure, paint, canvas, house, trim, wood)
    if face == FRONT:
        sign = generator(house.seed, 73, house.house, house.sign)
        ground_floor(structure, sign, canvas, house, trim, wood)
        hanging_sign(sign, canvas, house)
    _top(structure, paint, canvas, house, face, trim)
    _grime(structure, canvas)
    return canvas.texels


def _fence(structure: np.random.Generator, paint: np.random.Generator, canvas: Canvas) -> Canvas:
    if structure.random() < 0.5:  # a hedge
        canvas.texels[..., :3] = (62, 84, 50)
        speckle = paint.normal(1, 0.2, canvas.texels.shape[:2])
        canvas.texels[..., :3] = np.clip(canvas.texels[..., :3] * speckle[..., None], 0, 255)
        return canvas
    for x in np.arange(0, canvas.width, 1.4):
        canvas.shade(x, x + 0.3, 0, canvas.height, 0.75)
    canvas.fill(0, canvas.width, canvas.height - 0.15, canvas.height, palettes.pick(paint, palettes.TRIM), LEDGE)
    return canvas


def _material(rng: np.random.Generator, canvas: Canvas, house: House) -> None:
    """Brick courses, stone blocks, concrete panels or plain plaster, as light and shadow over the colour."""
    rows, columns = canvas.texels.shape[:2]
    kind = rng.integers(4)
    if kind == 0:  # bricks: each its own lightness
        brick = rng.normal(1, 0.07, (rows // 2 + 1, columns // 3 + 2))
        relief = np.repeat(np.repeat(brick, 2, 0)[:rows], 3, 1)[:, :columns]
    elif kind == 1:  # stones or panels with joints
        high, wide = (1.0, 1.9) if house.style == "old_town" else (1.6, 2.6)
        stones = rng.normal(1, 0.05, (int(canvas.height / high) + 2, int(canvas.width / wide) + 3))
        z = (np.arange(rows) / canvas.scale / high).astype(int)
        x = np.arange(columns) / canvas.scale / wide
        relief = stones[z[:, None], (x[None] + 0.5 * (z[:, None] % 2)).astype(int)]
        relief = np.where(np.diff(z, prepend=0)[:, None] > 0, 0.82, relief)
    else:
        relief = rng.normal(1, 0.025, (rows, columns))
    canvas.texels[..., :3] = np.clip(canvas.texels[..., :3] * relief[..., None], 0, 255)


def _storeys(
    rng: np.random.Generator, paint: np.random.Generator, canvas: Canvas, house: House, trim: Array, wood: Array
) -> None:
    """Rows of windows above the ground floor (behind: from the ground on), all of one design a house."""
    count = max(1, round((canvas.width - 0.6) / rng.uniform(1.9, 3.4)))
    bay = (canvas.width - 0.6) / count
    wide, high = bay * rng.uniform(0.38, 0.62), house.floor_height * rng.uniform(0.45, 0.66)
    design = {
        "wide": wide, "high": high, "arch": rng.random() < 0.2, "frame": rng.choice([0.0, 0.14, 0.26]),
        "bars": int(rng.integers(1, 4)), "cross": rng.random() < 0.6, "sill": rng.random() < 0.6,
        "shutter": rng.random() < 0.3, "balcony": rng.random(count) < rng.choice([0.0, 0.0, 0.35, 1.0]),
    }  # fmt: skip
    if house.style == "modern":
        ribbon = rng.random() < 0.35
        design |= {"wide": bay * (0.98 if ribbon else rng.uniform(0.55, 0.9)), "arch": False, "shutter": False,
                   "frame": 0.1, "sill": False}  # fmt: skip
    course = rng.random() < 0.5
    accent = rng.random((house.floors, count)) < rng.choice([0.0, 0.0, 0.25])
    for floor in range(house.floors - 1):
        z = house.ground_height + floor * house.floor_height
        if course:
            canvas.fill(0, canvas.width, z - 0.12, z + 0.06, trim, LEDGE)
        for k in range(count):
            x = 0.3 + (k + 0.5) * bay
            if accent[floor, k]:
                canvas.fill(x - bay / 2, x + bay / 2, z + 0.1, z + house.floor_height - 0.1, wood)
            _window(rng, paint, canvas, x, z + (house.floor_height - high) * 0.55, design, trim, wood)
            if design["balcony"][k] and floor:
                _balcony(canvas, x, z, bay, wood)


def _window(
    rng: np.random.Generator, paint: np.random.Generator, canvas: Canvas, x: float, z: float, design: dict,
    trim: Array, wood: Array,
) -> None:  # fmt: skip
    half, high, frame = design["wide"] / 2, design["high"], design["frame"]
    if frame:
        canvas.fill(x - half - frame, x + half + frame, z - frame, z + high + frame, trim)
    code = int(rng.integers(WINDOW, 256))
    canvas.fill(x - half, x + half, z, z + high, palettes.pick(rng, palettes.GLASS), code)
    canvas.shade(x - half, x + half, z + high * 0.55, z + high, 1.22)
    if rng.random() < 0.4:
        drop = high * rng.uniform(0.2, 0.8)
        canvas.fill(x - half, x + half, z + high - drop, z + high, palettes.pick(rng, palettes.CURTAIN), code)
    if design["arch"]:
        for step, part in ((0.0, 0.5), (0.12, 0.25)):
            for left in (x - half, x + half - half * part):
                canvas.fill(left, left + half * part, z + high - step - 0.12, z + high - step, trim)
    for bar in range(1, design["bars"]):
        middle = x - half + 2 * half * bar / design["bars"]
        canvas.fill(middle - 0.04, middle + 0.04, z, z + high, trim * 0.9)
    if design["cross"]:
        canvas.fill(x - half, x + half, z + high * 0.62, z + high * 0.62 + 0.07, trim * 0.9)
    if design["sill"]:
        canvas.fill(x - half - 0.15, x + half + 0.15, z - 0.2, z - 0.05, trim, LEDGE)
    canvas.shade(x - half, x + half, z + high - 0.12, z + high, 0.7)
    if design["shutter"]:
        for left in (x - half - 0.45, x + half + 0.05):
            canvas.fill(left, left + 0.4, z, z + high, wood)


def _balcony(canvas: Canvas, x: float, z: float, bay: float, wood: Array) -> None:
    canvas.fill(x - bay * 0.42, x + bay * 0.42, z + 0.02, z + 0.2, wood * 0.9, LEDGE)
    for rail in np.arange(x - bay * 0.42, x + bay * 0.42, 0.3):
        canvas.fill(rail, rail + 0.1, z + 0.2, z + 1.0, wood * 0.7)
    canvas.fill(x - bay * 0.42, x + bay * 0.42, z + 0.95, z + 1.08, wood * 0.7)


def _top(
    rng: np.random.Generator, paint: np.random.Generator, canvas: Canvas, house: House, face: int, trim: Array
) -> None:
    """Cornice and what rises above it: tiles with dormers, a gable with an attic window, or a parapet."""
    eaves, width = house.eaves, canvas.width
    if house.roof == MANSARD:
        tiles = palettes.pick(paint, palettes.ROOFS)
        canvas.fill(0, width, eaves, canvas.height, tiles, ROOF)
        for z in np.arange(eaves, canvas.height, 0.35):
            canvas.shade(0, width, z, z + 0.12, 0.84)
        if face != SIDE:
            for x in np.arange(1.4, width - 1.2, rng.uniform(2.2, 4.0)):
                canvas.fill(x - 0.55, x + 0.55, eaves + 0.2, eaves + 1.55, trim, PLAIN)
                canvas.fill(
                    x - 0.38, x + 0.38, eaves + 0.35, eaves + 1.35, (70, 84, 98), int(rng.integers(WINDOW, 256))
                )
    elif house.roof != FLAT and face != SIDE:
        x, z = width / 2, eaves + house.rise * 0.15
        canvas.fill(x - 0.5, x + 0.5, z, z + min(1.2, house.rise * 0.5), (66, 78, 90), int(rng.integers(WINDOW, 256)))
    if house.roof in (FLAT, MANSARD):
        deep = rng.uniform(0.25, 0.7)
        canvas.fill(0, width, eaves - deep, eaves, trim, PLAIN)
        canvas.fill(0, width, eaves - 0.15, eaves, trim * 1.05, LEDGE)
        canvas.shade(0, width, eaves - deep - 0.2, eaves - deep, 0.7)


def _grime(rng: np.random.Generator, canvas: Canvas) -> None:
    """Drain pipe, darker foot, stains: what makes two equal walls differ."""
    canvas.shade(0, canvas.width, 0, 0.35, 0.8)
    canvas.shade(0, 0.1, 0, canvas.height, 0.72)
    if rng.random() < 0.5:
        canvas.fill(0.22, 0.34, 0.2, canvas.height - 0.6, (88, 86, 84))
    columns = canvas.texels.shape[1]
    stains = 1 + 0.03 * np.repeat(rng.normal(0, 1, columns // 6 + 1), 6)[:columns]
    canvas.texels[..., :3] = np.clip(canvas.texels[..., :3] * stains[None, :, None], 0, 255)
