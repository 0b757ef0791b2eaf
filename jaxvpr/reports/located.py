"""The picture of an answer without a database: the photo, and its answers on a plan of the area."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxvpr.reports.pictures import GAP, INK, LINE, NEUTRAL, PAPER, RIGHT, WRONG, Picture, enlarged

GROUND = (236, 239, 240)
MARK = 6  # pixels of the radius of a sure answer
MARGIN = 0.15  # of the plan's sides around the area, where an answer outside is seen


class Marks(NamedTuple):
    """Answers on the plan of an area, best first, float64 [k] each.

    Attributes:
      north, east: parts of the area's height and width, from its south-west corner.
      bearing: degrees clockwise from north; NaN where unknown.
      confidence: in [0, 1]; NaN where unknown.
      outside: bool [k], whether an answer lies outside the area.
    """

    north: np.ndarray
    east: np.ndarray
    bearing: np.ndarray
    confidence: np.ndarray
    outside: np.ndarray


def located_picture(
    photo: Picture, marks: Marks, metres: tuple[float, float], caption: str, *, side: int = 320
) -> bytes:
    """A photo beside the plan of the area, north up, with its answers: the first green, or red where it lies outside,
    each as large as it is sure and with a line where it looks; answers beyond the plan lie at its border.

    Args:
      photo: path or uint8 [H, W, 3]; one that cannot be read is a grey tile.
      metres: height and width of the area.
      caption: below, in two lines at most.
      side: pixels of the photo's longer side and of the plan's.

    Returns:
      A PNG file.
    """
    shown = enlarged(photo, side)
    # One scale in both directions, but for areas that are a line.
    height, width = (max(side // 4, round(side * length / max(metres))) for length in metres)
    sheet = Image.new("RGB", (3 * GAP + shown.width + width, 2 * GAP + max(shown.height, height) + 2 * LINE), PAPER)
    sheet.paste(shown, (GAP, GAP))
    draw, left = ImageDraw.Draw(sheet), 2 * GAP + shown.width
    draw.rectangle((left, GAP, left + width, GAP + height), outline=GROUND)
    draw.rectangle(
        (left + MARGIN * width, GAP + MARGIN * height, left + (1 - MARGIN) * width, GAP + (1 - MARGIN) * height),
        fill=GROUND,
    )
    x = left + width * np.clip(MARGIN + (1 - 2 * MARGIN) * marks.east, 0, 1)
    y = GAP + height * np.clip(1 - MARGIN - (1 - 2 * MARGIN) * marks.north, 0, 1)
    for k in np.flatnonzero(np.isfinite(x) & np.isfinite(y))[::-1]:
        colour = NEUTRAL if k else WRONG if marks.outside[k] else RIGHT
        _mark(draw, float(x[k]), float(y[k]), float(marks.bearing[k]), float(marks.confidence[k]), colour)
    draw.multiline_text((GAP, sheet.height - 4 - 2 * LINE), caption, fill=INK, font=ImageFont.load_default(13))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _mark(
    draw: ImageDraw.ImageDraw, x: float, y: float, bearing: float, confidence: float, colour: tuple[int, int, int]
) -> None:
    radius = max(2.5, MARK * (confidence if np.isfinite(confidence) else 1.0) ** 0.5)
    if np.isfinite(bearing):
        angle, length = np.radians(bearing), 3 * MARK
        draw.line((x, y, x + length * np.sin(angle), y - length * np.cos(angle)), fill=colour, width=2)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline=PAPER)
