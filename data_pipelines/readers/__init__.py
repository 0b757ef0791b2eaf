"""Readers, one module for each format: they turn files on disk into `Places`."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from data_pipelines import geo, parts
from data_pipelines.errors import DataError, short
from data_pipelines.places import Places
from data_pipelines.progress import slow
from data_pipelines.readers import (
    at_names,
    baidu_mall,
    classes,
    embedded,
    folder,
    frames,
    gsv_cities,
    msls,
    naver_labs,
    pairs,
    photos,
    records,
    table,
)

READERS: dict[str, Callable[..., Places]] = {
    "at_names": at_names.read,
    "baidu_mall": baidu_mall.read,
    "classes": classes.read,
    "csv": table.read,
    "folder": folder.read,
    "frames": frames.read,
    "gsv_cities": gsv_cities.read,
    "minicity": embedded.read,
    "msls": msls.read,
    "naver_labs": naver_labs.read,
    "pairs": pairs.read,
    "photos": photos.read,
    "records": records.read,
}
# Of every reader: which of the images it reads are kept.
OF_ALL = ("split", "zone", "within", "box", "heading", "turn", "most")
KINDS: dict[Any, tuple[Any, str]] = {
    str: (str | os.PathLike, "text"),
    int: (int, "an integer"),
    float: (int | float, "a number"),
    bool: (bool, "true or false"),
    dict: (Mapping, "names and their values, each as OPTION.NAME=VALUE"),
    tuple: (list | tuple, "several names, ('a', 'b')"),
}


def read(
    reader: str,
    root: str | os.PathLike[str],
    *,
    split: str | None = None,
    zone: int | str | None = None,
    within: Sequence[float] | None = None,
    box: Sequence[float] | None = None,
    heading: float | None = None,
    turn: float = parts.TURN,
    most: int | None = None,
    **options,
) -> Places:
    """Reads the data set at `root` with the reader of that name; its docstring lists its `options`.

    Args:
      reader: a key of `READERS`.
      root: the data set.
      split: read only the rows of this split; all rows where the data set names no splits.
      zone: UTM zone to put all positions into, such as "33north" (`Places.in_zone`), and that metres of a local frame
        lie in. None leaves each image in its own, which only suits data within one.
      within: (west, south, east, north) in metres; only the images in this part of the map, its western and southern
        edges included (`Places.within`).
      box: (south, west, north, east) in degrees, likewise (`parts.in_box`).
      heading: in degrees; only the images that look there, up to `turn` degrees to either side (`parts.looking`).
      most: so many images at most (`parts.some`).

    Raises:
      DataError: no such reader, an unknown option, or an error in the files.
    """
    check_options(reader, options)
    if split and "split" in options_of(reader):
        options["split"] = split
    # The embedded city is drawn first, under a bar of its own.
    with nullcontext() if reader == "minicity" else slow(f"reading {root}"):
        places = READERS[reader](root, **options)
    places = places.select(split=split) if split and (places.split >= 0).any() else places
    places = places if zone is None else places.in_zone(zone)
    places = places if within is None else places.within(within)
    places = places if box is None else parts.in_box(places, box)
    places = places if heading is None else parts.looking(places, heading, turn)
    return places if most is None else parts.some(places, most)


def check_options(reader: str, options: Mapping[str, Any]) -> None:
    """Raises DataError for a reader that does not exist, an unknown option, or a value of another type."""
    kinds = options_of(reader)
    known = list(dict.fromkeys((*kinds, *OF_ALL)))
    if unknown := sorted(set(options) - set(known)):
        raise DataError(f"the reader {reader} has no option {unknown}; it has {known}")
    for option, value in options.items():
        kind, what = KINDS.get(kinds.get(option, Any), (object, ""))
        if value is not None and not isinstance(value, kind):
            raise DataError(f"the reader {reader}: {option}={short(value)} is not {what}")
    if options.get("zone") is not None:
        geo.zone_number(options["zone"])


def options_of(reader: str) -> dict[str, type]:
    """The options of a reader by name, each with the type of its values: str, int, float, bool, dict or tuple.

    Raises:
      DataError: for a reader that does not exist.
    """
    if reader not in READERS:
        raise DataError(f"no reader {reader!r}; there are {sorted(READERS)}")
    names = {kind.__name__: kind for kind in (str, int, float, bool)} | {"Mapping": dict, "Sequence": tuple}
    _, *options = inspect.signature(READERS[reader]).parameters.values()
    return {option.name: names.get(re.split(r"\W", str(option.annotation))[0], object) for option in options}
