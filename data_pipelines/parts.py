"""Parts of a data set: a box of latitude and longitude, a direction of view, a number of images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_pipelines import geo
from data_pipelines.errors import DataError, short
from data_pipelines.places import Places

Array = np.ndarray
TURN = 15.0  # degrees to either side, a sector of twelve


def in_box(places: Places, box: Sequence[float]) -> Places:
    """The images in a box of latitude and longitude, its southern and western edges included.

    Args:
      box: (south, west, north, east) in degrees; west above east is a box across the 180th meridian.

    Raises:
      DataError: for something else than four such numbers; where no image lies in it, or none has degrees.
    """
    south, west, north, east = _degrees(places.name, box)
    known = np.flatnonzero(places.located & (places.zone > 0))
    if not len(known):
        raise DataError(
            f"{places.name}: box={tuple(box)} is in degrees, and no image has any: positions are metres of a frame of "
            f"their own, or unknown. Take within=(west, south, east, north) in metres"
        )
    latitude, longitude = geo.from_utm(places.east[known], places.north[known], places.zone[known])
    width = 360.0 if east - west >= 360 else (east - west) % 360
    inside = (latitude >= south) & (latitude < north) & ((longitude - west) % 360 < width)
    if not inside.any():
        spans = (f"{values.min():.5f} to {values.max():.5f}" for values in (latitude, longitude))
        raise DataError(
            f"{places.name}: none of {len(places):,} images lies in box={tuple(box)}, (south, west, north, east); "
            f"their degrees of latitude and longitude are {' and '.join(spans)}"
        )
    return places.take(known[inside])


def _degrees(name: str, box: Sequence[float]) -> tuple[float, float, float, float]:
    if isinstance(box, list | tuple) and len(box) == 4 and all(map(_is_number, box)):
        south, west, north, east = map(float, box)
        if -90 <= south < north <= 90 and max(abs(west), abs(east)) <= 360 and west != east:
            return south, west, north, east
    raise DataError(
        f"{name}: box={short(box)} must be (south, west, north, east) in degrees, latitudes within ±90 and "
        "longitudes within ±360. Metres go into within=(west, south, east, north)"
    )


def looking(places: Places, heading: float, turn: float = TURN) -> Places:
    """The images that look in one direction; those whose heading is unknown do not.

    Args:
      heading: the middle, in degrees clockwise from north.
      turn: degrees to either side, both ends included.

    Raises:
      DataError: for a direction that is none, or where no image looks there; tells how many look where.
    """
    if not (_is_number(heading) and _is_number(turn) and 0 <= turn <= 180):
        raise DataError(
            f"{places.name}: heading={short(heading)} and turn={short(turn)} must be degrees clockwise from north, and "
            "0 to 180 degrees to either side of it"
        )
    known = np.isfinite(places.heading)
    # Headings are float32: at 359.99 their steps are 3e-5 degrees, and one on the edge is within it.
    inside = known & (geo.turn(places.heading.astype(np.float64), np.array(heading % 360.0)) <= turn + 1e-4)
    if not inside.any():
        raise DataError(
            f"{places.name}: none of {len(places):,} images looks at heading={heading:g}, {turn:g} degrees to either "
            f"side; {_where(places.heading[known])}"
        )
    return places.take(inside)


def some(places: Places, most: int) -> Places:
    """`most` images at most, drawn at random: the same ones each time, and of a larger number all of a smaller.

    Raises:
      DataError: for something else than a number of images.
    """
    if not isinstance(most, int) or most < 1:
        raise DataError(f"{places.name}: most={short(most)} must be a number of images, 1 or more")
    return places.take(np.sort(np.random.default_rng(0).permutation(len(places))[:most]))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))


def _where(headings: Array) -> str:
    if not len(headings):
        return "none has a heading"
    sectors, counts = np.unique((np.floor(headings / 30) * 30).astype(int), return_counts=True)
    return "headings from " + ", ".join(
        f"{sector} to {sector + 30}: {count:,}" for sector, count in zip(sectors, counts, strict=True)
    )
