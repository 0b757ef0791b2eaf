"""A database on disk: descriptors (.npy), a table of where they were seen (.csv), and whose they are (.json).

`extract` writes one of photos, a training that localises by classification one of its classes. `localize` searches
either. The .json also holds the checksums of the other two: descriptors beside another table would be wrong places.
A model whose clusters are of these very photos lies beside them (.safetensors).
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from configs import common
from data_pipelines.atomic import replacing, write_json
from data_pipelines.clips import Clips, Cutting
from data_pipelines.errors import DataError
from data_pipelines.geo import from_utm
from data_pipelines.own_files import NAMES, MatrixFile, digest, read_json, read_matrix, read_table
from data_pipelines.places import Paths, Places
from jaxvpr.errors import UserError
from jaxvpr.models import Variables
from jaxvpr.parallel import hosts
from jaxvpr.retrieval.classes import Classes
from jaxvpr.retrieval.extract import Table

log = logging.getLogger(__name__)
# Of a clip they are those of its middle (or last) frame, but for the last two.
COLUMNS = (
    "path", "east", "north", "zone", "lat", "lon", "heading", "time", "place", "sequence", "first_frame", "last_frame",
)  # fmt: skip
NUMBERS = (*COLUMNS[1:7], *COLUMNS[9:])
MODEL = ".safetensors"
LATER = 4  # columns that databases of before do not have
CLASSES_FILE = "classes.npy"
PARTS = (".npy", ".csv", ".json")
AGAIN = (
    "Write the database again: jaxvpr extract --config=RECIPE --images=FOLDER --out=FILE.npy --overwrite (classes.npy "
    "of a run: the command that trained it)"
)


class Database(NamedTuple):
    """What `write` wrote: descriptors [N, D], memory-mapped, one dict of `COLUMNS` a row, and how clips were cut; None
    where the rows are images or classes."""

    descriptors: np.ndarray
    rows: list[dict[str, str]]
    cutting: Cutting | None = None


class _Elsewhere:
    """The table of descriptors in a process that does not write."""

    def __init__(self, shape: tuple[int, int]):
        self.shape = shape

    def __setitem__(self, rows: np.ndarray, values: np.ndarray) -> None:
        pass


def write(
    file: Path, config: ConfigDict, variables: Variables, descriptors: np.ndarray, places: Places, of: str = "photos"
) -> None:
    """Writes `file` (.npy, float32 [N, D]), and beside it its table and the name of the model.

    Args:
      config, variables: the model that the descriptors are of.
      places: what each row is.
      of: "photos" or "classes".
    """
    with writing(file, config, variables, places, of) as table:
        table(descriptors.shape)[np.arange(len(descriptors))] = descriptors


def in_words(row: Mapping[str, Any]) -> str:
    """Where a row of a database is, for people."""
    if row["lat"] and row["lon"]:
        return f"{float(row['lat']):.6f}, {float(row['lon']):.6f}"
    if row["east"] and row["north"]:
        return f"east {float(row['east']):.1f} m, north {float(row['north']):.1f} m"
    return f"place {row['place']}" if row["place"] else "no coordinates"


@contextmanager
def writing(
    file: Path,
    config: ConfigDict,
    variables: Variables,
    places: Places | Clips,
    of: str = "photos",
    cutting: Cutting | None = None,
) -> Iterator[Table]:
    """As `write`, of descriptors that come one after the other: yields what makes the table that they are put into.

    The rows may be clips, and `cutting` says how they were cut.

    The first process writes them as they come, so that none holds them all. The others do not write: of two that write
    to one page of a file on a network disk, one may undo what the other wrote.
    """
    if not hosts.is_first():
        yield _Elsewhere
        return
    table, described = (file.with_suffix(suffix) for suffix in PARTS[1:])
    file.parent.mkdir(parents=True, exist_ok=True)
    # They take their places when all three are written, the .json last.
    with replacing(described) as last, replacing(table) as second, replacing(file) as first:
        with first.open("wb") as stream:
            yield partial(MatrixFile, stream)
        _write_rows(second, places)
        about = _identity(config, variables, of) | {"parts": {".npy": digest(first), ".csv": digest(second)}}
        write_json(last, about | ({"clips": asdict(cutting)} if cutting else {}))


def read(file: Path, config: ConfigDict, variables: Variables) -> Database:
    """The inverse of `write`.

    Raises:
      UserError: if a part is missing or not the one that was written, or it is of another model or other weights.
      DataError: if a part cannot be read.
    """
    if file.suffix != ".npy":
        raise UserError(f"{file}: a database is named by its .npy file, with .csv and .json beside it")
    parts = [file.with_suffix(suffix) for suffix in PARTS]
    for needed in parts:
        if not needed.is_file():
            raise UserError(f"{needed} is missing. {AGAIN}")
    about = read_json(parts[2], AGAIN)
    if differ := _differences(about, config, variables):
        raise UserError(
            f"{file} was extracted with another model, so distances would mean nothing:\n  "
            + "\n  ".join(f"{key}: {theirs!r} there, {ours!r} here" for key, (theirs, ours) in differ.items())
            + f"\nGive the recipe, --workdir and --checkpoint that it was extracted with. {AGAIN}"
        )
    sums = about.get("parts")
    if sums is None:
        log.warning("%s was written before databases had checksums: its parts are taken to belong together", file)
    elif changed := _changed(parts[:2], sums):
        raise UserError(
            f"{changed[0]} is not the one that was written with {parts[2]}: it was changed, or writing was "
            f"interrupted. {AGAIN}"
        )
    # What has its checksum is what was written, and that was finite.
    rows, descriptors = read_table(parts[1], COLUMNS, NUMBERS, AGAIN, LATER), read_matrix(file, AGAIN, sums is None)
    if len(rows) != len(descriptors):
        raise UserError(f"{file} has {len(descriptors)} descriptors but its table {len(rows)} rows. {AGAIN}")
    return Database(descriptors, rows, _cutting(parts[2], about.get("clips")))


def _cutting(file: Path, keys: Any) -> Cutting | None:
    try:
        return Cutting(**keys) if keys else None
    except (TypeError, DataError) as error:
        raise DataError(f"{file}: its clips cannot be read: {error}. {AGAIN}") from error


def _changed(files: Sequence[Path], sums: Any) -> list[Path]:
    """Which files do not have their checksums; the first process reads them for all."""

    def look() -> np.ndarray:
        wrong = [not isinstance(sums, dict) or sums.get(file.suffix) != digest(file) for file in files]
        return np.array(wrong, np.int32)

    return [file for file, changed in zip(files, hosts.of_first(look, (len(files),)), strict=True) if changed]


def classes_in(folder: Path, config: ConfigDict, variables: Variables) -> Classes | None:
    """The class database that a training left in its folder; None where there is none of these weights."""
    file = folder / CLASSES_FILE
    if not file.is_file():
        return None
    about = file.with_suffix(".json")
    if about.is_file() and (differ := _differences(read_json(about, AGAIN), config, variables)):
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
        east=east, north=north, heading=heading, zone=[int(float(row["zone"] or -1)) for row in found.rows],
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


def _differences(theirs: dict[str, Any], config: ConfigDict, variables: Variables) -> dict[str, Any]:
    """What differs between the model of a database and this one: key -> (theirs, ours)."""
    ours = _identity(config, variables, theirs.get("of", "photos"))
    theirs = {"of": "photos", **theirs}
    if isinstance(model := theirs.get("model"), dict):  # one of before a key came to be has the key's default
        theirs["model"] = {**json.loads(common.base().model.to_json()), **model}
    flat_theirs, flat_ours = (flatten_dict(one, sep=".") for one in (theirs, ours))
    keys = sorted((set(flat_ours) | {key for key in flat_theirs if key.partition(".")[0] in ours}) - {"recipe"})
    both = {key: (flat_theirs.get(key, "absent"), flat_ours.get(key, "absent")) for key in keys}
    return {key: pair for key, pair in both.items() if pair[0] != pair[1]}


def _write_rows(file: Path, rows: Places | Clips) -> None:
    places = rows if isinstance(rows, Places) else rows.places
    first, last = (rows.frame, rows.frame) if isinstance(rows, Places) else rows.images.frame[rows.rows[:, [0, -1]]].T
    lat, lon = np.full(len(places), np.nan), np.full(len(places), np.nan)
    on_earth = (places.zone > 0) & places.located
    lat[on_earth], lon[on_earth] = from_utm(places.east[on_earth], places.north[on_earth], places.zone[on_earth])
    columns = {
        "east": places.east, "north": places.north, "zone": places.zone,
        "lat": lat, "lon": lon, "heading": places.heading,
    }  # fmt: skip
    numbers = {"sequence": places.sequence, "first_frame": first, "last_frame": last}
    with file.open("w", newline="", **NAMES) as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        for row in range(len(places)):
            known = {name: _text(values[row]) for name, values in columns.items()}
            counted = {name: "" if values[row] < 0 else int(values[row]) for name, values in numbers.items()}
            time = "" if np.isnat(places.time[row]) else str(places.time[row])
            writer.writerow({"path": places.path[row], "time": time, "place": places.place_of(row), **known, **counted})


def _text(value: Any) -> str:
    return "" if np.isnan(value) else f"{value:.7f}".rstrip("0").rstrip(".")
