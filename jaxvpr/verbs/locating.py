"""What localize does without a database: the model's own head says where each photo was taken."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from data_pipelines import geo
from data_pipelines.atomic import replacing, shortened, write_bytes
from data_pipelines.image_source import why_unreadable
from data_pipelines.own_files import NAMES
from data_pipelines.places import Paths
from data_pipelines.progress import Bar
from jaxvpr import builders
from jaxvpr.errors import UserError
from jaxvpr.models import Variables
from jaxvpr.models.positions import Area, Coding, Located, metres_between
from jaxvpr.parallel import hosts
from jaxvpr.reports import geojson
from jaxvpr.reports.located import Marks, located_picture
from jaxvpr.reports.terminal import Figure, Row, show
from jaxvpr.retrieval import heads
from jaxvpr.runs import model_file, which

log = logging.getLogger(__name__)
TABLE, POINTS = "predictions.csv", "predictions.geojson"
WEIGHTS = (".safetensors", ".pth", ".pt")
COLUMNS = (
    "query", "rank", "confidence", "outside", "lat", "lon", "east", "north", "zone", "bearing", "error",
)  # fmt: skip
Rows = list[dict[str, Any]]


def chosen(config: ConfigDict, folder: Path, checkpoint: str, file: Path | None) -> which.Chosen:
    """The model that answers: that of a file of weights, else the one that `--checkpoint` names.

    A file that carries its recipe is taken with its own model and preprocessing, the rest of the recipe stays.

    Raises:
      UserError: as `which.chosen`.
    """
    if file is None and not config.model.get("position", ""):
        raise UserError(
            "localize needs --database=FILE.npy (jaxvpr extract), or a recipe whose model answers positions itself "
            "(model.position)"
        )
    if file is None:
        return which.chosen(config, folder, checkpoint)
    saved = model_file.saved_recipe(file) if file.is_file() else None
    if saved is None:
        return which.chosen(config, folder, str(file))
    theirs, variables = model_file.load_model(file)
    own = config.copy_and_resolve_references().unlock()
    for key in ("name", "method", "model", "image", "pca"):
        own[key] = theirs[key]
    return which.Chosen(str(file), own.lock(), variables)


def run(model: which.Chosen, images: Sequence[str], paths: Paths, top: int, out: Path) -> Rows:
    """Answers each photo by the head of a model; prints the answers, and writes `TABLE`, a picture of each photo, and
    `POINTS` where they have latitude and longitude.

    An answer outside the area that the head was trained on is flagged: nothing was learned there. A photo that cannot
    be read has a row that says why.

    Args:
      images: what the user gave, for messages.
      top: answers of each photo: the likeliest cells, or the heaviest hypotheses of a mixture; other heads have one.

    Returns:
      One dict of `COLUMNS` for each photo and rank.

    Raises:
      UserError: for a model without a head or an area, or where no photo can be read.
    """
    coding = builders.coding(model.config, model.variables)
    found, missing = _found(model.config, model.variables, coding, paths, top)
    unread: Rows = [{"query": paths[q], "error": why_unreadable(paths[q])} for q in missing]
    if len(unread) == len(paths):
        raise UserError(f"no photo of {', '.join(images)} can be read; the first: {unread[0]['error']}")
    answered = np.setdiff1d(np.arange(len(paths)), missing)
    away = ~coding.area.holds(found.north, found.east)
    rows = [
        {"query": paths[query], "rank": rank + 1, "outside": int(away[k, rank]), **_row(coding.area, found, k, rank)}
        for k, query in enumerate(answered)
        for rank in range(found.north.shape[1])
    ]
    if hosts.is_first():
        _write(out, rows, unread)
        _show(rows, coding.area)
        with Bar("drawing pictures", len(answered), "photos") as bar:
            for k, query in enumerate(answered):
                first, of_photo = rows[k * found.north.shape[1]], Located(*(column[k] for column in found))
                picture = _picture(paths[query], coding.area, of_photo, first)
                name = f"{query:04d}_{shortened(Path(paths[query]).stem)}.png"
                (out / name).write_bytes(picture)
                bar.advance()
        _tell(out, coding.area, rows, len(unread), len(paths))
    return rows


def _found(
    config: ConfigDict, variables: Variables, coding: Coding, paths: Paths, top: int
) -> tuple[Located, np.ndarray]:
    """Answers [answered, k], and the photos that cannot be read."""
    config = config.copy_and_resolve_references()
    config.loader.on_error = "skip"
    described = builders.describer(config, builders.mesh(config))(variables, paths)
    read = np.setdiff1d(np.arange(len(paths)), described.missing)
    if not len(read):
        return Located(*[np.zeros((0, 1))] * 4), described.missing
    try:
        found = heads.answers(builders.head(config), coding, variables, described.descriptors[read], top)
    except ValueError as error:
        raise UserError(f"the head of {config.name} cannot answer: {error}") from error
    return found, described.missing


def _row(area: Area, found: Located, photo: int, rank: int) -> dict[str, Any]:
    """The columns of an answer that say where; what is not known is left out."""
    north, east, bearing, confidence = (float(column[photo, rank]) for column in found)
    row = {name: value for name, value in (("confidence", confidence), ("bearing", bearing)) if np.isfinite(value)}
    if area.metres:
        return row | {"east": east, "north": north}
    row |= {"lat": north, "lon": east}
    if not abs(north) <= 84:
        return row  # no UTM there
    x, y, zone = geo.to_utm(np.array([north]), np.array([east]))
    return row | {"east": float(x[0]), "north": float(y[0]), "zone": int(zone[0])}


def _picture(photo: str, area: Area, one: Located, first: dict[str, Any]) -> bytes:
    """The photo beside the area's plan, with the first answer in words."""
    north, east = np.array([area.south, area.north]), np.array([area.west, area.east])
    up = metres_between(area, north[:1], east.mean(keepdims=True), north[1:], east.mean(keepdims=True))
    across = metres_between(area, north.mean(keepdims=True), east[:1], north.mean(keepdims=True), east[1:])
    away = ~area.holds(one.north, one.east)
    marks = Marks(*area.normalised(one.north, one.east), one.bearing, one.confidence, away)
    words = in_words(first) + (f"\nconfidence {first['confidence']:.2f}" if "confidence" in first else "")
    return located_picture(photo, marks, (float(up[0]), float(across[0])), words)


def _write(out: Path, rows: Rows, unread: Rows) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / TABLE) as part, part.open("w", newline="", **NAMES) as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(sorted([*rows, *unread], key=lambda row: row["query"]))
    if any("lat" in row for row in rows):
        latitude, longitude = ([row["lat"] for row in rows], [row["lon"] for row in rows])
        write_bytes(out / POINTS, geojson.points(rows, latitude, longitude).encode())
    else:
        (out / POINTS).unlink(missing_ok=True)


def _show(rows: Rows, area: Area) -> None:
    for photo, ranked in groupby(rows, key=lambda row: row["query"]):
        shown: list[Row] = [
            (str(one["rank"]), (in_words(one), Figure(f"{one['confidence']:.3f}" if "confidence" in one else "–")))
            for one in ranked
        ]
        show(Path(photo).name, ("rank", "place", "confidence"), shown)


def in_words(row: dict[str, Any]) -> str:
    """An answer in words."""
    at = (
        f"{row['lat']:.6f}, {row['lon']:.6f}"
        if "lat" in row
        else f"{row['east']:.1f} m east, {row['north']:.1f} m north"
    )
    facing = f", facing {row['bearing']:.0f}°" if "bearing" in row else ""
    return at + facing + ", outside the trained area" * row["outside"]


def _tell(out: Path, area: Area, rows: Rows, unread: int, photos: int) -> None:
    points = f", {out / POINTS}" * (not area.metres)
    print(f"wrote {out / TABLE}{points} and a picture for each photo")
    if outside := sum(row["outside"] for row in rows if row["rank"] == 1):
        print(f"{outside} of {photos - unread} answers lie outside the area that the head was trained on: {_box(area)}")
    if unread:
        print(f"{unread} of {photos} photos could not be read; their rows say why")


def _box(area: Area) -> str:
    unit, digits = (" m", 1) if area.metres else ("°", 6)
    south, west, north, east = (f"{side:.{digits}f}{unit}" for side in area[:4])
    return f"{south} to {north} north, {west} to {east} east"
