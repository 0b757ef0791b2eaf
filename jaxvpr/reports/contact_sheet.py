"""A sheet of small images with captions, for people to look at what a model is shown."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

INK, QUIET, PAPER, EMPTY = (28, 34, 39), (98, 108, 117), (255, 255, 255), (226, 229, 232)
GAP, LINE = 10, 18


class Tile(NamedTuple):
    """An image, uint8 [H, W, 3] RGB, or None for an empty place; and the line below it."""

    image: np.ndarray | None
    caption: str = ""


def contact_sheet(title: str, rows: Sequence[Sequence[Tile]], *, side: int = 128) -> bytes:
    """A PNG file of rows of images; small ones are enlarged without smoothing, so that pixels can be seen.

    Args:
      title: one line above; cut where the sheet is narrower.
      side: pixels of an image's longer side on the sheet.
    """
    shapes = [tile.image.shape[:2] for row in rows for tile in row if tile.image is not None] or [(side, side)]
    longest = max(max(shape) for shape in shapes)
    height, width = (max(1, round(side * max(shape[axis] for shape in shapes) / longest)) for axis in (0, 1))
    columns = max(map(len, rows), default=1)
    step = (width + GAP, height + LINE + GAP)
    sheet = Image.new("RGB", (max(GAP + columns * step[0], 4 * side), GAP + 2 * LINE + len(rows) * step[1]), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    draw.text((GAP, GAP), _fitting(title, font, sheet.width - 2 * GAP), fill=INK, font=font)
    for number, row in enumerate(rows):
        for column, tile in enumerate(row):
            x, y = GAP + column * step[0], GAP + 2 * LINE + number * step[1]
            _paste(sheet, draw, tile, (x, y, width, height))
            draw.text((x, y + height + 2), _fitting(tile.caption, font, width), fill=QUIET, font=font)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def in_rows(tiles: Sequence[Tile], columns: int = 8) -> list[Sequence[Tile]]:
    """Tiles one after the other, in rows of so many."""
    return [tiles[first : first + columns] for first in range(0, len(tiles), columns)]


def _paste(sheet: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, box: tuple[int, int, int, int]) -> None:
    x, y, width, height = box
    if tile.image is None:
        draw.rectangle((x, y, x + width - 1, y + height - 1), fill=EMPTY)
        return
    image = Image.fromarray(tile.image)
    factor = min(width / image.width, height / image.height)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    sheet.paste(image.resize(size, Image.Resampling.NEAREST if factor > 1 else Image.Resampling.LANCZOS), (x, y))


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, or its beginning with an ellipsis where that is wider."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
