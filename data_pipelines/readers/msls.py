"""Mapillary Street-Level Sequences as it is downloaded: four tables and a folder of images for each side of a city.

Warburg et al., "Mapillary Street-Level Sequences: A Dataset for Lifelong Place Recognition", CVPR 2020. What is kept is
what the official toolkit keeps: no panoramas; of a city to measure on, the images of a subtask.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from data_pipelines import geo
from data_pipelines.errors import DataError, option_of, short
from data_pipelines.places import ROLES, SPLITS, VIEWS, Paths, Places, index_of
from data_pipelines.readers import frame_names, listing, text

Array = np.ndarray
T = TypeVar("T")
CITIES = {
    "train": (
        "amman", "amsterdam", "austin", "bangkok", "berlin", "boston", "budapest", "goa", "helsinki", "london",
        "manila", "melbourne", "moscow", "nairobi", "ottawa", "paris", "phoenix", "saopaulo", "tokyo", "toronto",
        "trondheim", "zurich",
    ),
    "val": ("cph", "sf"),
    "test": ("athens", "bengaluru", "buenosaires", "kampala", "miami", "stockholm"),
}  # fmt: skip
PROTOCOLS = ("official", "all")
SUBTASKS = ("all", "s2w", "w2s", "o2n", "n2o", "d2n", "n2d")
# The images of subtask "all" have the condition "official": all of them would be another word for none.
CONDITIONS = ("day", "night", "control_panel", "official", *SUBTASKS[1:])


def read(
    root: str | os.PathLike[str],
    *,
    split: str | None = None,
    cities: Sequence[str] | None = None,
    protocol: str = "",
    subtask: str = "all",
    panoramas: bool = False,
    name: str | None = None,
) -> Places:
    """Reads `{train_val,test}/<city>/{database,query}/{images/<key>.jpg,raw,postprocessed,seq_info,subtask_index.csv}`.

    `east` and `north` are the published ones, in the zone of latitude and longitude; `heading` is the camera's compass
    angle, `view` where it looks on its vehicle, `time` the day. Conditions are day and night, control_panel, and the
    subtasks that an image belongs to, with `official` for "all". Of test cities only sequences and subtasks are known.

    Args:
      root: the data set.
      split: read only the official cities of train, val or test; with `cities`, the split of these.
      cities: read only these; None reads all that are there.
      protocol: what is kept of cities to measure on, which are all but those of the split train: "official" keeps the
        images of `subtask`, in val some 740 queries with an answer; "all" keeps every image, in val some 11,000
        queries. Their recalls are not comparable, so it has to be said.
      subtask: one of `SUBTASKS`: all, or summer to winter, old to new, day to night, and each the other way round.
      panoramas: keep them too.
      name: of the data set, for reports; the folder's name by default.

    Raises:
      DataError: a missing city, table, column or image, tables that do not belong together, a bad cell (names file,
        line and column), a frame that is there twice, no protocol, or no image that is kept.
    """
    index_of("split", split, SPLITS)
    listing.check_choice("subtask", subtask, SUBTASKS)
    if protocol:
        listing.check_choice("protocol", protocol, PROTOCOLS)
    if subtask != "all" and protocol != "official":
        raise DataError(f"subtask={subtask} of MSLS belongs to protocol=official, not to protocol={protocol or 'none'}")
    root = listing.folder(root)
    parts = []
    for folder in _folders(root, split, cities):
        part = split or _split_of(folder.name)
        if not protocol and part != "train":
            raise DataError(
                f"{folder}: MSLS is measured by two protocols whose recalls are not comparable. Say which: "
                f"{option_of('msls', 'protocol=official')}, in val some 740 queries with an answer; or protocol=all, "
                "some 11,000"
            )
        kept = subtask if protocol == "official" and part != "train" else None
        for side, role in (("database", "database"), ("query", "query")):
            parts.append(_side(folder / side, part, role, subtask=kept, panoramas=panoramas))
    places = Places.concat(parts, name or root.absolute().name)
    if not len(places):
        raise DataError(f"{root}: no image of cities {cities or 'any'} is left of {protocol=} {subtask=}")
    return places


def _split_of(city: str) -> str | None:
    return next((split for split, cities in CITIES.items() if city in cities), None)


def _folders(root: Path, split: str | None, cities: Sequence[str] | None) -> list[Path]:
    """The folders of the cities that are asked for, sorted by name."""
    there = {p.name: p for half in ("train_val", "test") for p in (root / half).glob("*") if p.is_dir()}
    if not there:
        raise DataError(f"{root} has no folder train_val/<city> or test/<city>, as MSLS is unpacked. Check the path.")
    wanted = cities if cities is not None else [city for city in there if split in (None, _split_of(city))]
    missing = sorted(set(wanted) - set(there))
    if missing or not wanted:
        raise DataError(f"{root} has no city {missing or f'of the split {split!r}'}; it has {sorted(there)}")
    return [there[city] for city in sorted(set(wanted))]


def _side(folder: Path, split: str | None, role: str, *, subtask: str | None, panoramas: bool) -> Places:
    """The images of one side of a city that are kept; a `subtask` keeps its own only."""
    listing.folder(folder, "one side of a city of MSLS")
    info = _Table(folder / "seq_info.csv")
    keys = info.of("key", _word, "a key")
    sequences = info.of("sequence_key" if "sequence_key" in info.header else "sequence_id", _word, "a sequence")
    number = {name: frame_names.sequence_of(os.fsencode(name)) for name in set(sequences)}
    columns: dict[str, Any] = {
        "sequence": np.array([number[name] for name in sequences], np.int64),
        "frame": np.array(info.of("frame_number", _frame, "a frame number, an integer from 0"), np.int64),
    }
    flags: dict[str, Array] = {}
    keep = np.ones(len(keys), bool)
    if folder.parent.parent.name != "test":
        more, flags, panorama = _described(folder, keys)
        columns |= more
        keep &= panoramas | ~panorama
    if subtask or text.is_file(folder / "subtask_index.csv"):
        of = _subtasks(folder, keys)
        keep &= of[subtask] if subtask else True
        flags |= {"official" if name == "all" else name: flag for name, flag in of.items()}
    paths = Paths.of([f"{key}.jpg" for key in keys], folder / "images")
    if not text.is_file(paths[0]):
        raise DataError(
            f"{info.file}, line {info.lines[0]}: there is no image {paths[0]}. Unpack all volumes of images."
        )
    frame_names.check_single(paths, columns["sequence"], columns["frame"])
    bits = sum((flag.astype(np.int64) << CONDITIONS.index(name) for name, flag in flags.items()), np.int64(0))
    places = Places.create(
        folder.parent.name, paths, split=index_of("split", split, SPLITS), role=ROLES.index(role), condition=bits,
        conditions=CONDITIONS, **columns,
    )  # fmt: skip
    return places.take(keep)


def _described(folder: Path, keys: list[str]) -> tuple[dict[str, Any], dict[str, Array], Array]:
    """What the tables of a city with positions say: columns of `Places`, conditions, and which images are panoramas."""
    raw, post = _Table(folder / "raw.csv", keys), _Table(folder / "postprocessed.csv", keys)
    latitude = np.array(raw.of("lat", _degrees(84), "degrees within ±84"))
    longitude = np.array(raw.of("lon", _degrees(180), "degrees within ±180"))
    night = np.array(post.of("night", _flag, "True or False"))
    views = {name.title(): code for code, name in enumerate(VIEWS)}
    columns = {
        "east": np.array(post.of("easting", _number, "metres")),
        "north": np.array(post.of("northing", _number, "metres")),
        "zone": geo.zone_of(latitude, longitude),
        "heading": geo.wrapped(np.array(raw.of("ca", lambda cell: _number(cell) if cell else np.nan, "degrees"))),
        "time": np.array(raw.of("captured_at", _day, "a day such as 2018-03-16"), "datetime64[s]"),
        "view": np.array(post.of("view_direction", views.__getitem__, f"one of {list(views)}"), np.int8),
    }
    control_panel = np.array(post.of("control_panel", _flag, "True or False"))
    flags = {"day": ~night, "night": night, "control_panel": control_panel}
    return columns, flags, np.array(raw.of("pano", _flag, "True or False"))


def _subtasks(folder: Path, keys: list[str]) -> dict[str, Array]:
    table = _Table(folder / "subtask_index.csv", keys)
    return {name: np.array(table.of(name, _flag, "True or False")) for name in SUBTASKS}


class _Table:
    """One table of a folder: its cells by column, and errors that name file, line and column."""

    def __init__(self, file: Path, keys: list[str] | None = None):
        """With `keys`, which the images of the folder have in `seq_info.csv`, it must have the same rows."""
        self.file = file
        self.header, self.rows, self.lines = text.table(file, "a table of MSLS")
        if keys is None:
            return
        if len(self.rows) != len(keys):
            raise DataError(f"{file} has {len(self.rows)} rows, seq_info.csv beside it {len(keys)}: unpack both again")
        own = self.of("key", _word, "a key") if "key" in self.header else keys
        for line, mine, other in zip(self.lines, own, keys, strict=True):
            if mine != other:
                raise DataError(
                    f"{file}, line {line}, column key: {short(mine)}, but {short(other)} in seq_info.csv beside it: "
                    "unpack both again"
                )

    def of(self, column: str, convert: Callable[[str], T], expected: str) -> list[T]:
        """The values of a column."""
        if column not in self.header:
            raise DataError(f"{self.file} has no column {column}; its header is {short(self.header)}")
        k, row = self.header.index(column), 0
        values = []
        try:
            for row, cells in enumerate(self.rows):  # noqa: B007
                values.append(convert(cells[k]))
        except (ValueError, KeyError, OverflowError):
            cell = short(self.rows[row][k])
            raise DataError(f"{self.file}, line {self.lines[row]}, column {column}: {cell} is not {expected}") from None
        return values


def _word(cell: str) -> str:
    if not 0 < len(cell) <= 200 or "/" in cell:
        raise ValueError(cell)
    return cell


def _number(cell: str) -> float:
    value = float(cell)
    if not np.isfinite(value):
        raise ValueError(cell)
    return value


def _degrees(most: float) -> Callable[[str], float]:
    def convert(cell: str) -> float:
        value = _number(cell)
        if abs(value) > most:
            raise ValueError(cell)
        return value

    return convert


def _frame(cell: str) -> int:
    if not (cell.isascii() and cell.isdigit() and len(cell) < 19):
        raise ValueError(cell)
    return int(cell)


def _flag(cell: str) -> bool:
    return {"True": True, "False": False}[cell]


def _day(cell: str) -> np.datetime64:
    return np.datetime64(datetime.date.fromisoformat(cell), "s")
