"""Folders of frames of one route at different times, where the same file name is the same place, as in Nordland."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.conditions import condition_bits
from data_pipelines.errors import DataError
from data_pipelines.places import ROLES, SPLITS, Paths, Places
from data_pipelines.readers import listing


def read(
    root: str | os.PathLike[str],
    *,
    database: str = "summer",
    query: str = "winter",
    every: int = 1,
    first: int = 0,
    last: int | None = None,
    train: int = 0,
    per_place: int = 1,
    metres: float = 0.0,
    name: str | None = None,
) -> Places:
    """Reads the folders `database` and `query` of `root`, database rows first; both must hold the same names.

    Kept are the frames `first` up to (not including) `last` in sorted order of names, and of these every `every`-th;
    `frame` numbers the kept ones from 0, and `place` is `frame // per_place`, so that with `per_place=3` the classes
    are blocks of frames within two of each other. The first `train` kept frames (of both folders) are the split train,
    the others test. `condition` is the folder's name.

    With `metres` the line is straight: the frame k of the whole folder lies at k x `metres` east, and the camera looks
    there, along the line. So what works by metres works on it, and parts of one folder keep their places.

    Nordland's published protocols count a prediction as right within 1 or within 10 frames: report which.

    Raises:
      DataError: a missing or empty folder, names that only one folder has, or a range that keeps no frame.
    """
    if every < 1 or per_place < 1 or first < 0 or train < 0 or not 0 <= metres < np.inf:
        raise DataError(
            f"every and per_place start at 1, first, train and metres at 0: {every=} {per_place=} {first=} {train=} "
            f"{metres=}"
        )
    root = listing.folder(root)
    both = {folder: listing.images(root / folder) for folder in (database, query)}
    names = _common_names(both)[first:last:every]
    if not names or train > len(names):
        raise DataError(
            f"{root}: {len(names)} frames are kept by {first=} {last=} {every=}, which is too few for {train=}; "
            f"there are {len(both[database])} in each folder"
        )
    frame = np.arange(len(names))
    split = np.where(frame < train, SPLITS.index("train"), SPLITS.index("test"))
    name = name or Path(root).absolute().name
    conditions = tuple(dict.fromkeys((database, query)))
    along = metres * np.arange(len(both[database]))[first:last:every]
    where = {"east": along, "north": 0.0, "heading": 90.0} if metres else {}
    parts = []
    for folder, role in ((database, "database"), (query, "query")):
        paths = Paths.of((f"{folder}/{file}" for file in names), root)
        columns: dict[str, Any] = {
            "frame": frame,
            "place": frame // per_place,
            "split": split,
            "role": ROLES.index(role),
            **where,
        }
        columns["condition"] = condition_bits(conditions.index(folder))
        parts.append(Places.create(name, paths, conditions=conditions, **columns))
    return Places.concat(parts, name)


def _common_names(both: dict[str, Paths]) -> list[str]:
    """The sorted file names, which all folders must share."""
    names = [[paths.relative(row) for row in range(len(paths))] for paths in both.values()]
    alone = sorted(set(names[0]) ^ set(names[-1]))
    if alone:
        raise DataError(
            f"the folders {' and '.join(paths.root for paths in both.values())} must hold the same file names, but "
            f"{len(alone)} are in one only, such as {alone[:3]}"
        )
    return names[0]
