"""A database on disk: descriptors (.npy), a table of where they were seen (.csv), and whose they are (.json).

`extract` writes one of photos, a training that localises by classification one of its classes. `localize` searches
either.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from data_pipelines.atomic import write_json
from data_pipelines.geo import from_utm
from data_pipelines.places import Paths, Places
from jaxvpr.errors import UserError
from jaxvpr.models import Variables
from jaxvpr.retrieval.classes import Classes

log = logging.getLogger(__name__)
COLUMNS = ("path", "east", "north", "zone", "lat", "lon", "heading", "time")
CLASSES_FILE = "classes.npy"


class Database(NamedTuple):
    """What `write` wrote: descriptors [N, D], memory-mapped, and one dict of `COLUMNS` a row."""

    descriptors: np.ndarray
    rows: list[dict[str, str]]


def write(
    file: Path, config: ConfigDict, variables: Variables, descriptors: np.ndarray, places: Places, of: str = "photos"
) -> None:
    """Writes `file` (.npy, float32 [N, D]), and beside it its table and the name of the model.

    Args:
      config, variables: the model that the descriptors are of.
      places: what each row is.
      of: "photos" or "classes".
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, descriptors)
    _write_rows(file.with_suffix(".csv"), places)
    write_json(file.with_suffix(".json"), _identity(config, variables, of))


def read(file: Path, config: ConfigDict, variables: Variables) -> Database:
    """The inverse of `write`.

    Raises:
      UserError: if a part is missing, or it was written with another model or other weights.
    """
    for needed in (file, file.with_suffix(".csv"), file.with_suffix(".json")):
        if not needed.is_file():
            raise UserError(
                f"{needed} is missing; write the database with: jaxvpr extract --images=FOLDER --out={file}"
            )
    differ = _differences(file, config, variables)
    if differ:
        raise UserError(f"{file} was extracted with another model, so distances would mean nothing: {differ}")
    with file.with_suffix(".csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    descriptors = np.load(file, mmap_mode="r")
    if len(rows) != len(descriptors):
        raise UserError(f"{file} has {len(descriptors)} descriptors but its table {len(rows)} rows; extract again")
    return Database(descriptors, rows)


def classes_in(folder: Path, config: ConfigDict, variables: Variables) -> Classes | None:
    """The class database that a training left in its folder; None where there is none of these weights."""
    file = folder / CLASSES_FILE
    if not file.is_file():
        return None
    if file.with_suffix(".json").is_file() and (differ := _differences(file, config, variables)):
        log.warning(
            "%s is of another model: nothing is localised by classification (%s differ)", file, ", ".join(differ)
        )
        return None
    found = read(file, config, variables)
    east, north, heading = (
        np.array([float(row[column] or "nan") for row in found.rows]) for column in ("east", "north", "heading")
    )
    places = Places.create(
        str(file), Paths.of((row["path"] for row in found.rows), ""),
        east=east, north=north, heading=heading, zone=[int(row["zone"]) for row in found.rows],
    )  # fmt: skip
    return Classes(np.asarray(found.descriptors), places)


def _identity(config: ConfigDict, variables: Variables, of: str) -> dict[str, Any]:
    """Names a model, its weights and its preprocessing; that of classes fits whatever size photos are shown at."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(variables):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    shape = {"model": config.model.to_dict(), "image": config.image.to_dict()}
    if of == "classes":
        shape["image"].pop("size")
    return json.loads(json.dumps({"recipe": config.name, "weights": digest.hexdigest()[:16], "of": of, **shape}))


def _differences(file: Path, config: ConfigDict, variables: Variables) -> dict[str, Any]:
    """What differs between the model of a database and this one: key -> (theirs, ours)."""
    theirs = json.loads(file.with_suffix(".json").read_text())
    ours = _identity(config, variables, theirs.setdefault("of", "photos"))
    differ = {key: (theirs.get(key), ours[key]) for key in ours if theirs.get(key) != ours[key]}
    differ.pop("recipe", None)
    return differ


def _write_rows(file: Path, places: Places) -> None:
    lat, lon = np.full(len(places), np.nan), np.full(len(places), np.nan)
    on_earth = places.zone > 0
    lat[on_earth], lon[on_earth] = from_utm(places.east[on_earth], places.north[on_earth], places.zone[on_earth])
    columns = {
        "east": places.east, "north": places.north, "zone": places.zone,
        "lat": lat, "lon": lon, "heading": places.heading,
    }  # fmt: skip
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        for row in range(len(places)):
            known = {name: _text(values[row]) for name, values in columns.items()}
            time = "" if np.isnat(places.time[row]) else str(places.time[row])
            writer.writerow({"path": places.path[row], "time": time, **known})


def _text(value: Any) -> str:
    return "" if np.isnan(value) else f"{value:.7f}".rstrip("0").rstrip(".")
