"""The indoor data sets of NAVER LABS: Gangnam Station and Hyundai Department Store, a floor at a time (Lee et al., CVPR
2021, "Large-scale Localization Datasets in Crowded Indoor Spaces")."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines import poses
from data_pipelines.errors import DataError
from data_pipelines.places import ROLES, SPLITS, Paths, Places, index_of
from data_pipelines.readers import at_names, kapture, listing, text

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
    Only the first image of each folder must exist. A root in the format of '@' names, with its `images` or a
    folder of a split, is read as `at_names` reads it.

    Args:
      root: the floor.
      split: of all rows: the floors are not split. "test" takes the queries of the folder `test` instead, whose poses
        are not published: their position stays unknown.
      up: the axis of the world that points up ("z", "-y", ...); by default the one that the mapping cameras agree on.
      without_position: "error" refuses images of `mapping` and `validation` without a pose, "drop" leaves them out,
        "keep" leaves theirs unknown.
      name: of the data set, for reports; by default the folders' names, as in `GangnamStation B1`.

    Raises:
      DataError: a missing folder, file or image, a row that cannot be read, an image without pose; names them.
    """
    listing.check_choice("without_position", without_position, listing.WITHOUT_POSITION)
    code = index_of("split", split, SPLITS)
    root = listing.folder(root)
    base = root / "release" if (root / "release").is_dir() else root
    if not (base / "mapping").is_dir():
        if at_names.is_tree(root):
            return at_names.read(root, split=split, name=name)
        raise DataError(
            f"{root} is not a floor of NAVER LABS: expected the folders mapping and validation, perhaps below release, "
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
        places = _places(name, base, folder, records, up, role=ROLES.index(role), split=code)
        tables.append(places.take(records.known) if given[folder] == "drop" else places)
    return Places.concat(tables, name)


def _require(folder: Path, records: kapture.Records, without_position: str) -> None:
    """Checks that the first image exists, and with `without_position="error"` that every image has a pose."""
    sensors = folder / "sensors"
    image = sensors / "records_data" / records.images[0]
    if not text.is_file(image):
        raise DataError(f"{sensors / 'records_camera.txt'} lists {image}, which does not exist. Check the path.")
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
