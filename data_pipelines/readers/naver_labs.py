"""The indoor data sets of NAVER LABS: Gangnam Station and Hyundai Department Store, a floor at a time (Lee et al., CVPR
2021, "Large-scale Localization Datasets in Crowded Indoor Spaces")."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines import poses
from data_pipelines.errors import DataError
from data_pipelines.places import ROLES, SPLITS, Paths, Places
from data_pipelines.readers import at_names, kapture, listing

MICROSECONDS = (10**15, 10**16)  # since 1970: from 2001 on


def read(
    root: str | os.PathLike[str],
    *,
    split: str | None = None,
    up: str | None = None,
    without_position: str = "error",
    name: str | None = None,
) -> Places:
    """Reads one floor, `<set>/<floor>[/release]/{mapping,validation,test}/sensors/...` as it is published (kapture).

    The images of `mapping` are the database, those of `validation` the queries. Positions are metres in the set's own
    frame (zone -1), heading is that of the camera on the ground, clockwise from north, with the axes of `poses.FRAMES`.
    Only the first image of each folder is looked for. A root in the format of '@' names, with its `images` or a
    folder of a split, is read as `at_names` reads it.

    Args:
      root: the floor.
      split: what all rows are called: the floors are not split, each serves one purpose. "test" takes the queries of
        the folder `test` instead, whose poses are not published: their position stays unknown.
      up: the axis of the world that points up ("z", "-y", ...); by default the one that the mapping cameras agree on.
      without_position: "error" refuses images of `mapping` and `validation` without a pose, "drop" leaves them out,
        "keep" leaves theirs unknown.
      name: what reports call the data set; by default the folders' names, as in `GangnamStation B1`.

    Raises:
      DataError: a missing folder, file or image, a row that cannot be read, an image without pose; names them.
    """
    if without_position not in ("error", "drop", "keep"):
        raise DataError(f"{without_position=} is one of error, drop, keep")
    if split is not None and split not in SPLITS:
        raise DataError(f"no split {split!r}; there are {list(SPLITS)}")
    root = listing.folder(root)
    base = root / "release" if (root / "release").is_dir() else root
    if not (base / "mapping").is_dir():
        if at_names.is_tree(root):
            return at_names.read(root, split=split, name=name)
        raise DataError(
            f"{root} is no floor of NAVER LABS: expected the folders mapping and validation, perhaps below release, "
            f"or '@' names in images or {list(SPLITS)}; it holds {sorted(p.name for p in root.iterdir())[:8]}"
        )
    floor = base.absolute().parent if base.name == "release" else base.absolute()
    name = name or f"{floor.parent.name} {floor.name}"
    queries = "test" if split == "test" else "validation"
    parts = {folder: kapture.read(base / folder) for folder in ("mapping", queries)}
    given = {"mapping": without_position, "validation": without_position, "test": "keep"}
    for folder, records in parts.items():
        _require(base / folder, records, given[folder])
    mapping = parts["mapping"]
    up = up or poses.upward(mapping.orientation[mapping.known], name)
    tables = []
    for role, (folder, records) in zip(("database", "query"), parts.items(), strict=True):
        code = SPLITS.index(split) if split else -1
        places = _places(name, base, folder, records, up, role=ROLES.index(role), split=code)
        tables.append(places.take(records.known) if given[folder] == "drop" else places)
    return Places.concat(tables, name)


def _require(folder: Path, records: kapture.Records, without_position: str) -> None:
    """The first image is there, and so are the poses that `without_position` asks for."""
    sensors = folder / "sensors"
    image = sensors / "records_data" / records.images[0]
    if not image.is_file():
        raise DataError(f"{sensors / 'records_camera.txt'} lists {image}, which is not there. Check the path.")
    if without_position == "error" and not records.known.all():
        unknown = np.flatnonzero(~records.known)
        raise DataError(
            f"{sensors / 'trajectories.txt'} has no pose for {records.images[unknown[0]]} and {len(unknown) - 1} more "
            f"of {len(records.images)} images, nor for a rig of theirs. Leave them out with without_position=drop."
        )


def _places(name: str, base: Path, folder: str, records: kapture.Records, up: str, **columns: Any) -> Places:
    stamp = records.timestamp
    moment = (stamp >= MICROSECONDS[0]) & (stamp < MICROSECONDS[1])
    time = np.where(moment, stamp.astype("datetime64[us]"), np.datetime64("NaT", "us")).astype("datetime64[s]")
    paths = Paths.of((f"{folder}/sensors/records_data/{image}" for image in records.images), base)
    ground = poses.on_the_ground(records.orientation, records.position, up)
    return Places.create(name, paths, time=time, **ground, **columns)
