"""Small pictures for people: embedded thumbnails, and a query beside its first predictions."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_pipelines.images import ImageError, decode

# A file, an array, or the frames of a clip.
Picture: TypeAlias = "str | os.PathLike[str] | np.ndarray | tuple[str, ...]"

RIGHT, WRONG, NEUTRAL = (20, 133, 90), (204, 53, 48), (98, 108, 117)
INK, PAPER = (28, 34, 39), (255, 255, 255)
GAP, FRAME, LINE = 14, 5, 20
LONG, SEAM = 5, 2  # a strip is so many pictures long at most; pixels between its frames


def small(picture: Picture, side: int) -> Image.Image:
    """The picture as RGB with its EXIF rotation applied, at most `side` pixels wide and high.

    Args:
      picture: path of an image file, or uint8 [H, W, 3] RGB; or the paths of a clip's frames, which become a strip:
        from left to right, at most `side` high and `LONG` times as wide.

    Raises:
      ImageError: where a file is missing or not an image.
    """
    if isinstance(picture, tuple):
        return _strip([small(frame, max(1, min(side, LONG * side // len(picture)))) for frame in picture])
    image = Image.fromarray(picture if isinstance(picture, np.ndarray) else decode(picture, (side, side)))
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image


def _strip(frames: Sequence[Image.Image]) -> Image.Image:
    ends = np.cumsum([frame.width + SEAM for frame in frames])
    strip = Image.new("RGB", (int(ends[-1]) - SEAM, max(frame.height for frame in frames)), PAPER)
    for frame, end in zip(frames, ends.tolist(), strict=True):
        strip.paste(frame, (end - SEAM - frame.width, 0))
    return strip


def named(picture: Picture) -> Any:
    """What a picture is called: itself, or the first and last frame of a clip."""
    return f"{picture[0]} to {picture[-1]}" if isinstance(picture, tuple) else picture


def data_uri(picture: Picture, side: int) -> str | None:
    """The picture as a JPEG inside a `data:` address, or None where it cannot be read."""
    try:
        image = small(picture, side)
    except ImageError:
        return None
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=72, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def predictions_picture(
    query: Picture,
    predictions: Sequence[Picture],
    right: Sequence[bool] | None = None,
    captions: Sequence[str] = (),
    *,
    side: int = 240,
) -> bytes:
    """A query beside its ranked predictions, framed green where right and red where wrong.

    Args:
      query, predictions: paths or uint8 [H, W, 3] RGB arrays; an unreadable one becomes a grey tile.
      right: one truth value a prediction; None (the truth is not known) frames them grey.
      captions: text under each prediction, may have several lines.
      side: pixels of a tile's longer side.

    Returns:
      A PNG file.
    """
    colours = [INK] + [NEUTRAL if right is None else RIGHT if right[i] else WRONG for i in range(len(predictions))]
    marks = ["" if right is None else " right" if right[i] else " wrong" for i in range(len(predictions))]
    texts = ["query"] + [
        f"{i + 1}{mark}" + (f"\n{captions[i]}" if i < len(captions) else "") for i, mark in enumerate(marks)
    ]
    tiles = [enlarged(picture, side) for picture in (query, *predictions)]
    texts = [_wrapped(text, side) for text in texts]
    step = side + 2 * FRAME + GAP
    height = max(tile.height + LINE * (text.count("\n") + 1) for tile, text in zip(tiles, texts, strict=True))
    sheet = Image.new("RGB", (GAP + step * len(tiles), 2 * GAP + 2 * FRAME + height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, (tile, text, colour) in enumerate(zip(tiles, texts, colours, strict=True)):
        x = GAP + i * step
        draw.rectangle((x, GAP, x + tile.width + 2 * FRAME - 1, GAP + tile.height + 2 * FRAME - 1), fill=colour)
        sheet.paste(tile, (x + FRAME, GAP + FRAME))
        draw.multiline_text((x, GAP + tile.height + 2 * FRAME + 4), text, fill=colour, font=_font(), spacing=5)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", compress_level=1)  # in a third of the time of the usual 6, an eighth larger
    return buffer.getvalue()


def enlarged(picture: Picture, side: int) -> Image.Image:
    """The picture scaled so that its longer side is `side`: small ones are enlarged."""
    try:
        image = small(picture, side)
    except ImageError:
        image = Image.new("RGB", (side, side * 3 // 4), (200, 204, 208))
        ImageDraw.Draw(image).text((12, 12), "not readable", fill=INK, font=_font())
    factor = side / max(image.size)
    return image if factor == 1 else image.resize([max(1, round(n * factor)) for n in image.size])


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(14)


def _wrapped(text: str, width: int) -> str:
    """Breaks lines (of words or of long paths) so that none is wider than a tile."""
    font, result = _font(), []
    for line in text.split("\n"):
        rest = line
        while rest:
            fits = next(n for n in range(len(rest), 0, -1) if n == 1 or font.getlength(rest[:n]) <= width)
            space = rest.rfind(" ", 1, fits) if fits < len(rest) else -1
            cut = space if space > 0 else fits
            result.append(rest[:cut])
            rest = rest[cut:].lstrip(" ")
    return "\n".join(result)
