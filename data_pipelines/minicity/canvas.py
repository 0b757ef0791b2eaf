"""A wall to draw on, in metres from its lower left corner."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from data_pipelines.minicity.randomness import Array

# What a texel is, in the alpha channel: it decides what night and snow do to it. Codes from WINDOW on are glass; each
# window has a code of its own, so that a few are lit at night.
PLAIN, LEDGE, ROOF, SIGN, SHOP, WINDOW = 0, 1, 2, 3, 4, 16


class Canvas:
    """A façade of `width` x `height` metres as uint8 RGBA `texels` [rows, columns, 4], row 0 at the top.

    Attributes:
      scale: texels a metre.
    """

    def __init__(self, width: float, height: float, scale: float, colour: Array):
        self.width, self.height, self.scale = width, height, scale
        rows, columns = max(4, round(height * scale)), max(4, round(width * scale))
        self.texels = np.zeros((rows, columns, 4), np.uint8)
        self.texels[..., :3] = np.clip(colour, 0, 255)

    def part(self, x0: float, x1: float, z0: float, z1: float) -> Array:
        """The texels of a rectangle (a view, maybe empty); at least one texel wide and high where it lies inside."""
        rows = self.texels.shape[0]
        a, b = max(0, round(x0 * self.scale)), round(x1 * self.scale)
        top, bottom = rows - round(z1 * self.scale), rows - round(z0 * self.scale)
        return self.texels[max(0, min(top, bottom - 1)) : bottom, a : max(b, a + 1)]

    def fill(self, x0: float, x1: float, z0: float, z1: float, colour: ArrayLike, code: int = PLAIN) -> None:
        """Paints a rectangle."""
        part = self.part(x0, x1, z0, z1)
        part[..., :3] = np.clip(colour, 0, 255)
        part[..., 3] = code

    def shade(self, x0: float, x1: float, z0: float, z1: float, factor: float | Array) -> None:
        """Darkens or lightens a rectangle; its codes stay."""
        part = self.part(x0, x1, z0, z1)
        part[..., :3] = np.clip(part[..., :3] * np.asarray(factor), 0, 255)
