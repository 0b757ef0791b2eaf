"""The picture of an answer without a database: the photo, and its answers on a plan of the area."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxvpr.models.positions import Area, Located, metres_between
from jaxvpr.reports.pictures import GAP, INK, LINE, NEUTRAL, PAPER, RIGHT, WRONG, Picture, tile

AREA = (236, 239, 240)
MARK = 6  # pixels of the radius of a sure answer
MARGIN = 0.15  # of the plan's side around the area, where an answer outside is seen


def located_picture(photo: Picture, area: Area, answers: Located, *, side: int = 320) -> bytes:
    """A photo beside the plan of the area, north up, with its answers: the first green, or red where it lies outside,
    each as large as it is sure and with a line where it looks; answers beyond the plan lie at its border.

    Args:
      photo: path or uint8 [H, W, 3]; one that cannot be read is a grey tile.
      answers: of it, best first, float64 [k].
      side: pixels of the photo's longer side and of the plan's.

    Returns:
      A PNG file.
    """
    shown = tile(photo, side)
    width, height = _plan(area, side)
    sheet = Image.new("RGB", (3 * GAP + shown.width + width, 2 * GAP + max(shown.height, height) + 2 * LINE), PAPER)
    sheet.paste(shown, (GAP, GAP))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    left = 2 * GAP + shown.width
    inner = MARGIN * width, MARGIN * height, (1 - MARGIN) * width, (1 - MARGIN) * height
    draw.rectangle((left, GAP, left + width, GAP + height), outline=AREA)
    draw.rectangle((left + inner[0], GAP + inner[1], left + inner[2], GAP + inner[3]), fill=AREA)
    u, v = area.normalised(answers.north, answers.east)
    away = ~area.holds(answers.north, answers.east)
    for k in range(len(u))[::-1]:
        if not (np.isfinite(u[k]) and np.isfinite(v[k])):
            continue
        x = left + float(np.clip(MARGIN + (1 - 2 * MARGIN) * v[k], 0, 1)) * width
        y = GAP + float(np.clip(1 - MARGIN - (1 - 2 * MARGIN) * u[k], 0, 1)) * height
        colour = NEUTRAL if k else WRONG if away[k] else RIGHT
        sure = float(answers.confidence[k]) if np.isfinite(answers.confidence[k]) else 1.0
        radius = max(2.5, MARK * sure**0.5)
        if np.isfinite(answers.bearing[k]):
            angle = np.radians(answers.bearing[k])
            draw.line((x, y, x + 3 * MARK * np.sin(angle), y - 3 * MARK * np.cos(angle)), fill=colour, width=2)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline=PAPER)
    draw.text((GAP, sheet.height - GAP - LINE), _caption(area, answers, bool(away[0])), fill=INK, font=font)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _plan(area: Area, side: int) -> tuple[int, int]:
    """Pixels of the plan, at one scale in both directions; a narrow area is at least a fourth as wide as it is long."""
    middle_north, middle_east = (area.south + area.north) / 2, (area.west + area.east) / 2
    across = metres_between(area, *(np.float64(x) for x in (middle_north, area.west, middle_north, area.east)))
    up = metres_between(area, *(np.float64(x) for x in (area.south, middle_east, area.north, middle_east)))
    longest = max(across, up)
    return tuple(max(side // 4, round(side * length / longest)) for length in (across, up))  # type: ignore[return-value]


def _caption(area: Area, answers: Located, outside: bool) -> str:
    at = (
        f"{answers.east[0]:.1f} m east, {answers.north[0]:.1f} m north"
        if area.metres
        else f"{answers.north[0]:.5f}, {answers.east[0]:.5f}"
    )
    sure = f", confidence {answers.confidence[0]:.2f}" if np.isfinite(answers.confidence[0]) else ""
    return at + sure + ", outside" * outside
