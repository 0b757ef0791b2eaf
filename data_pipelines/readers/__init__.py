"""Readers, one module for each format: they turn files on disk into `Places`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable
from contextlib import nullcontext

from data_pipelines.errors import DataError
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
    naver_labs,
    pairs,
    photos,
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
    "naver_labs": naver_labs.read,
    "pairs": pairs.read,
    "photos": photos.read,
}


def read(
    reader: str,
    root: str | os.PathLike[str],
    *,
    split: str | None = None,
    zone: int | str | None = None,
    **options,
) -> Places:
    """Reads the data set at `root` with the reader of that name; its docstring lists its `options`.

    Args:
      reader: a key of `READERS`.
      root: the data set.
      split: read only the rows of this split; all rows where the data set names no splits.
      zone: UTM zone to put all positions into, such as "33north" (`Places.in_zone`), and that metres of a local frame
        lie in. None leaves each image in its own, which only suits data within one.

    Raises:
      DataError: no such reader, an unknown option, or an error in the files.
    """
    check_options(reader, options)
    if split and "split" in _options_of(reader):
        options["split"] = split
    # The embedded city is drawn first, under a bar of its own.
    with nullcontext() if reader == "minicity" else slow(f"reading {root}"):
        places = READERS[reader](root, **options)
    places = places.select(split=split) if split and (places.split >= 0).any() else places
    return places if zone is None else places.in_zone(zone)


def check_options(reader: str, options: Iterable[str]) -> None:
    """Raises DataError for a reader that does not exist, or an option that it does not have."""
    if reader not in READERS:
        raise DataError(f"no reader {reader!r}; there are {sorted(READERS)}")
    known = list(dict.fromkeys((*_options_of(reader), "split", "zone")))
    if unknown := sorted(set(options) - set(known)):
        raise DataError(f"the reader {reader} has no option {unknown}; it has {known}")


def _options_of(reader: str) -> list[str]:
    return list(inspect.signature(READERS[reader]).parameters)[1:]
