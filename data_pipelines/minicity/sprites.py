"""Pictures of what stands in the streets: trees, lamps, kiosks, benches, letter boxes, cars, people.

A picture is uint8 RGBA with colour multiplied by alpha, upright, with its foot at the lower edge; `pictures` keeps each
with its halvings, so that far things do not flicker.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from data_pipelines.minicity.layout import BENCH, CAR, KIOSK, LAMP, PERSON, POST, TREE
from data_pipelines.minicity.palettes import SIGNS, pick
from data_pipelines.minicity.randomness import Array, generator

VARIANTS = 8
DETAIL = 4  # pictures are drawn this many times finer, then reduced, so that edges are smooth
CAR_LENGTH, CAR_WIDTH = 4.3, 1.8
_PAINT = (
    (186, 188, 190), (60, 62, 66), (128, 132, 136), (150, 44, 42), (52, 78, 118), (222, 222, 218), (84, 98, 84),
    (146, 130, 104),
)  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """`levels`: RGBA pictures, each half of the one before. `width`, `height` in metres."""

    levels: list[Array]
    width: float
    height: float


def pictures() -> dict[tuple[int, int, int], Picture]:
    """All pictures by (kind, variant, look); look is 1 for trees in winter and for cars seen from their end."""
    made = {}
    for variant in range(VARIANTS):
        for look in (0, 1):
            made[TREE, variant, look] = _tree(variant, bare=bool(look))
            made[CAR, variant, look] = _car_end(variant) if look else _car_side(variant)
        made[LAMP, variant, 0] = _lamp(variant)
        made[KIOSK, variant, 0] = _kiosk(variant)
        made[BENCH, variant, 0] = _bench(variant)
        made[POST, variant, 0] = _post(variant)
        made[PERSON, variant, 0] = _person(variant)
    return made


class _Drawing:
    """A transparent sheet of `width` x `height` metres with the origin at the middle of its foot."""

    def __init__(self, width: float, height: float, scale: float):
        self.width, self.height, self.scale = width, height, scale * DETAIL
        self.sheet = np.zeros((round(height * self.scale), round(width * self.scale), 4), np.uint8)

    def _at(self, x: float, z: float) -> tuple[int, int]:
        return round((x + self.width / 2) * self.scale), round((self.height - z) * self.scale)

    def box(self, x0: float, x1: float, z0: float, z1: float, colour) -> None:
        cv2.rectangle(self.sheet, self._at(x0, z1), self._at(x1, z0), (*map(float, colour), 255), -1)

    def blob(self, x: float, z: float, rx: float, rz: float, colour, alpha: int = 255) -> None:
        axes = max(1, round(rx * self.scale)), max(1, round(rz * self.scale))
        cv2.ellipse(self.sheet, self._at(x, z), axes, 0, 0, 360, (*map(float, colour), alpha), -1)

    def shape(self, points: list[tuple[float, float]], colour) -> None:
        cv2.fillPoly(self.sheet, [np.array([self._at(*p) for p in points], np.int32)], (*map(float, colour), 255))

    def line(self, a: tuple[float, float], b: tuple[float, float], wide: float, colour) -> None:
        cv2.line(self.sheet, self._at(*a), self._at(*b), (*map(float, colour), 255), max(1, round(wide * self.scale)))

    def done(self) -> Picture:
        alpha = self.sheet[..., 3:].astype(np.uint16)
        self.sheet[..., :3] = (self.sheet[..., :3] * alpha // 255).astype(np.uint8)
        size = [max(1, n // DETAIL) for n in self.sheet.shape[1::-1]]
        levels = [cv2.resize(self.sheet, size, interpolation=cv2.INTER_AREA)]
        while min(levels[-1].shape[:2]) > 8:
            half = [n // 2 for n in levels[-1].shape[1::-1]]
            levels.append(cv2.resize(levels[-1], half, interpolation=cv2.INTER_AREA))
        return Picture(levels, self.width, self.height)


def _tree(variant: int, bare: bool) -> Picture:
    """A street tree with a raised, airy crown; in winter branches only."""
    rng = generator(101, variant)
    high, wide, stem = rng.uniform(5.2, 7.5), rng.uniform(2.6, 3.6), rng.uniform(2.3, 2.9)
    draw = _Drawing(wide + 0.3, high, 20)
    bark = np.array((88, 72, 58)) * rng.uniform(0.7, 1.15)
    draw.shape([(-0.16, 0), (0.16, 0), (0.09, stem + 0.6), (-0.09, stem + 0.6)], bark)
    middle, half = (stem + high) / 2, (high - stem) / 2
    for _ in range(26 if bare else 9):
        angle, reach = rng.uniform(0.1, np.pi - 0.1), rng.uniform(0.5, 0.95)
        tip = (np.cos(angle) * reach * wide / 2, middle + np.sin(angle) * reach * half)
        draw.line((rng.uniform(-0.05, 0.05), rng.uniform(stem - 0.2, middle)), tip, rng.uniform(0.03, 0.09), bark)
    if bare:
        return draw.done()
    green = np.array(((78, 104, 54), (92, 112, 60), (66, 94, 62), (108, 112, 56))[rng.integers(4)], float)
    lumps = [(rng.uniform(-0.28, 0.28) * wide, middle + rng.uniform(-0.55, 0.6) * half) for _ in range(9)]
    for k in range(260):
        x, z = lumps[k % len(lumps)]
        radius, angle = np.sqrt(rng.uniform(0, 1)), rng.uniform(0, 2 * np.pi)
        x, z = x + np.cos(angle) * radius * wide * 0.22, z + np.sin(angle) * radius * half * 0.4
        up, lift = (z - stem) / (high - stem), np.sin(angle) * radius
        lightness = rng.uniform(0.7, 0.95) + 0.24 * up + 0.16 * lift - (0.18 if k < 90 else 0.0) - 0.12 * (x / wide)
        size = rng.uniform(0.08, 0.2)
        draw.blob(x, z, size * 1.25, size, np.clip(green * lightness, 0, 255))
    return draw.done()


def _lamp(variant: int) -> Picture:
    high, iron = 4.6 + 0.1 * variant, (58, 60, 62)
    draw = _Drawing(1.3, high, 20)
    draw.box(-0.06, 0.06, 0, high - 0.3, iron)
    draw.box(-0.12, 0.12, 0, 0.5, iron)
    draw.line((0, high - 0.35), (0.0, high - 0.15), 0.08, iron)
    draw.box(-0.45, 0.45, high - 0.16, high - 0.08, iron)
    for x in (-0.42, 0.42):
        draw.blob(x, high - 0.3, 0.17, 0.17, (236, 230, 204))
    return draw.done()


def _kiosk(variant: int) -> Picture:
    """An advertising column or a small stall, with posters of its own."""
    rng = generator(102, variant)
    body = pick(rng, SIGNS) * 0.8
    draw = _Drawing(1.9, 2.9, 24)
    draw.box(-0.75, 0.75, 0, 2.4, body)
    draw.box(-0.9, 0.9, 2.4, 2.55, (70, 72, 74))
    draw.shape([(-0.8, 2.55), (0.8, 2.55), (0.3, 2.85), (-0.3, 2.85)], (92, 94, 96))
    for x in (-0.68, 0.04):
        poster = pick(rng, SIGNS)
        draw.box(x, x + 0.62, 0.7, 2.2, poster)
        draw.blob(x + 0.31, rng.uniform(1.2, 1.8), 0.2, 0.28, pick(rng, SIGNS))
        draw.box(x + 0.08, x + 0.5, 0.85, 0.95, (236, 232, 220))
    return draw.done()


def _bench(variant: int) -> Picture:
    wood = np.array((128, 88, 56)) * (0.7 + 0.05 * variant)
    draw = _Drawing(1.9, 0.95, 24)
    for z in (0.42, 0.62, 0.8):
        draw.box(-0.9, 0.9, z, z + 0.1, wood)
    for x in (-0.75, 0.75):
        draw.box(x - 0.05, x + 0.05, 0, 0.9, (60, 60, 62))
    return draw.done()


def _post(variant: int) -> Picture:
    colour = ((196, 162, 40), (164, 44, 40), (64, 84, 66), (70, 72, 78))[variant % 4]
    draw = _Drawing(0.8, 1.5, 28)
    draw.box(-0.06, 0.06, 0, 0.7, (66, 66, 68))
    draw.box(-0.32, 0.32, 0.6, 1.4, colour)
    draw.box(-0.22, 0.22, 1.15, 1.22, (40, 40, 42))
    draw.box(-0.2, 0.2, 0.75, 1.0, np.array(colour) * 0.8)
    return draw.done()


def _car_side(variant: int) -> Picture:
    paint, van = np.array(_PAINT[variant], float), variant % 4 == 3
    high = 1.9 if van else 1.46
    draw = _Drawing(CAR_LENGTH + 0.2, high, 28)
    draw.blob(0, 0.06, 2.1, 0.09, (18, 18, 20), 170)
    draw.shape([(-2.1, 0.3), (2.1, 0.3), (2.13, 0.62), (1.75, 0.86), (-1.95, 0.92), (-2.13, 0.7)], paint)
    roof = [(-1.75, 0.85), (-1.3, high - 0.02), (0.35 + 0.5 * van, high - 0.02), (1.15, 0.85)]
    draw.shape(roof, paint * 0.96)
    for x0, x1 in ((-1.42, -0.42), (-0.34, 0.8)):
        lean = 0.22 if x0 < -1 else 0.0
        fall = 0.3 if x1 > 0 else 0.0
        glass = [(x0, 0.93), (x0 + lean, high - 0.12), (x1 - fall, high - 0.12), (x1, 0.93)]
        draw.shape(glass, (56, 66, 76))
    draw.box(-2.1, 2.1, 0.3, 0.42, paint * 0.6)
    draw.box(-0.4, -0.36, 0.45, 0.92, paint * 0.7)
    draw.box(-2.13, -1.98, 0.62, 0.78, (170, 40, 36))
    draw.box(1.98, 2.12, 0.58, 0.72, (232, 228, 204))
    for x in (-1.32, 1.32):
        draw.blob(x, 0.32, 0.33, 0.32, (26, 26, 28))
        draw.blob(x, 0.32, 0.18, 0.18, (134, 136, 140))
    return draw.done()


def _car_end(variant: int) -> Picture:
    paint, high = np.array(_PAINT[variant], float), 1.9 if variant % 4 == 3 else 1.46
    draw = _Drawing(CAR_WIDTH + 0.1, high, 28)
    draw.blob(0, 0.07, 0.85, 0.09, (18, 18, 20), 170)
    draw.box(-0.78, -0.52, 0, 0.5, (26, 26, 28))
    draw.box(0.52, 0.78, 0, 0.5, (26, 26, 28))
    draw.shape([(-0.88, 0.28), (0.88, 0.28), (0.88, 0.82), (0.7, 0.95), (-0.7, 0.95), (-0.88, 0.82)], paint)
    draw.shape([(-0.74, 0.9), (-0.56, high - 0.02), (0.56, high - 0.02), (0.74, 0.9)], paint * 0.95)
    draw.shape([(-0.62, 0.96), (-0.48, high - 0.12), (0.48, high - 0.12), (0.62, 0.96)], (58, 68, 78))
    draw.box(-0.88, 0.88, 0.28, 0.42, paint * 0.6)
    for x in (-0.68, 0.68):
        draw.box(x - 0.16, x + 0.16, 0.62, 0.78, (178, 44, 38) if variant % 2 else (232, 228, 206))
    draw.box(-0.26, 0.26, 0.46, 0.57, (222, 220, 210))
    return draw.done()


def _person(variant: int) -> Picture:
    rng = generator(103, variant)
    coat, legs = pick(rng, SIGNS) * 0.75, np.array((52, 54, 66)) * rng.uniform(0.7, 1.5)
    skin, tall = np.array((206, 166, 138)) * rng.uniform(0.5, 1.05), rng.uniform(1.6, 1.85)
    draw = _Drawing(0.8, tall, 30)
    step = rng.uniform(0.03, 0.22)
    for side in (-1, 1):
        draw.line((side * 0.06, tall * 0.5), (side * step, 0.02), 0.14, legs)
        draw.line((side * 0.2, tall * 0.78), (side * (0.24 + step * 0.4), tall * 0.46), 0.1, coat * 0.85)
    draw.shape([(-0.2, tall * 0.82), (0.2, tall * 0.82), (0.17, tall * 0.45), (-0.17, tall * 0.45)], coat)
    draw.blob(0, tall * 0.91, 0.1, 0.125, skin)
    draw.blob(0, tall * 0.95, 0.11, 0.08, np.array((62, 48, 38)) * rng.uniform(0.6, 2.0))
    return draw.done()
