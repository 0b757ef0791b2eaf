"""What a data set holds, in a few numbers, to check before a run."""

from __future__ import annotations

import numpy as np

from data_pipelines.places import COLUMNS, ROLES, SPLITS, Places

Array = np.ndarray


def audit(places: Places) -> dict:
    """A summary of `places` that json can write.

    Returns:
      A dict of
        name, images: of the data set, and how many it has.
        counts: {split: {role: images}}; "-" where neither is meant.
        conditions: {condition: images}; "-" where unknown. An image of two conditions counts for both.
        zones: {UTM zone: images}; "local" for the data set's own frame.
        extent_metres: {zone: [east span, north span]} of the known positions.
        unknown: {column: images without a value}, for the columns that some images lack; a column that all lack is in
          `absent` instead.
        places: number of places and [fewest, median, most] images of one, where `place` is known.
        time: [first, last] as ISO 8601, where known.
    """
    time = places.time[~np.isnat(places.time)]
    missing = {column: int(np.count_nonzero(_unknown(places, column))) for column in COLUMNS}
    return {
        "name": places.name,
        "images": len(places),
        "counts": _counts(places),
        "conditions": _conditions(places),
        "zones": {_zone(z): int(np.count_nonzero(places.zone == z)) for z in np.unique(places.zone)},
        "extent_metres": _extent(places),
        "unknown": {c: n for c, n in missing.items() if 0 < n < len(places) and c not in ("zone", "split", "role")},
        "absent": [c for c, n in missing.items() if n == len(places) and c != "zone"],
        "places": _images_per_place(places.place),
        "time": [str(time.min()), str(time.max())] if len(time) else [],
    }


def _unknown(places: Places, column: str) -> Array:
    values = getattr(places, column)
    if column == "condition":
        return values == 0
    if values.dtype.kind == "M":
        return np.isnat(values)
    return np.isnan(values) if values.dtype.kind == "f" else values < 0


def _counts(places: Places) -> dict:
    names = [("-", *SPLITS), ("-", *ROLES)]
    table = np.zeros((len(names[0]), len(names[1])), np.int64)
    np.add.at(table, (places.split + 1, places.role + 1), 1)
    return {
        split: {role: int(n) for role, n in zip(names[1], row, strict=True) if n}
        for split, row in zip(names[0], table, strict=True)
        if row.any()
    }


def _conditions(places: Places) -> dict[str, int]:
    unknown = _unknown(places, "condition")
    counts = {"-": unknown, **{name: places.having(name) for name in places.conditions}}
    return {name: int(rows.sum()) for name, rows in counts.items() if rows.any()}


def _zone(zone: int) -> str:
    return "local" if zone < 0 else f"{zone % 100}{'S' if zone > 100 else 'N'}"


def _extent(places: Places) -> dict[str, list[float]]:
    known = np.isfinite(places.east) & np.isfinite(places.north)
    extent = {}
    for zone in np.unique(places.zone[known]):
        rows = known & (places.zone == zone)
        extent[_zone(zone)] = [round(float(np.ptp(values[rows])), 2) for values in (places.east, places.north)]
    return extent


def _images_per_place(place: Array) -> dict:
    counts = np.unique(place[place >= 0], return_counts=True)[1]
    if not len(counts):
        return {"number": 0}
    spread = [int(counts.min()), float(np.median(counts)), int(counts.max())]
    return {"number": len(counts), "images_min_median_max": spread}


def line(places: Places) -> str:
    """The same in one line for the console, such as `city: 7,488 images, 300 x 250 m in 33N, day 1,872`."""
    facts = audit(places)
    parts = [f"{facts['images']:,} images"]
    parts += [f"{east:.0f} x {north:.0f} m in {zone}" for zone, (east, north) in facts["extent_metres"].items()]
    parts += [f"{name} {count:,}" for name, count in facts["conditions"].items() if name != "-"]
    parts += [f"{count:,} without {column}" for column, count in facts["unknown"].items()]
    return f"{facts['name']}: {', '.join(parts)}"
