"""The verb localize: where photos were taken."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from data_pipelines.atomic import replacing, shortened
from data_pipelines.image_source import why_unreadable
from data_pipelines.own_files import NAMES
from data_pipelines.places import Paths
from data_pipelines.progress import Bar
from jaxvpr import builders
from jaxvpr.cli.reader_flag import Reader
from jaxvpr.errors import UserError
from jaxvpr.parallel import hosts
from jaxvpr.reports.pictures import predictions_picture
from jaxvpr.reports.terminal import Figure, Row, show
from jaxvpr.retrieval.where import nearest
from jaxvpr.runs import database_file, outputs, which
from jaxvpr.runs.database_file import AGAIN, COLUMNS, Database

log = logging.getLogger(__name__)
TABLE = "predictions.csv"


def run(
    config: ConfigDict,
    folder: Path,
    checkpoint: str,
    images: Sequence[str],
    reader: Reader,
    database: Path,
    out: Path | None = None,
    top: int = 5,
    overwrite: bool = False,
) -> list[dict[str, Any]]:
    """Ranks the places of a database for every photo; prints them, and writes a table and pictures to `out`,
    by default `localize` in the run's folder.

    The database is of photos (`extract`) or of the classes that a training left (`runs/NAME/classes.npy`). A photo that
    cannot be read does not stop the others: its row of the table has why in the column `error`, and nothing else.

    Returns:
      One dict for each photo and rank: query, rank, path, east, north, lat, lon, distance.

    Raises:
      UserError: if the database was extracted with another model or other weights, no image of it could be read, `top`
        is below 1, no photo can be read, or `out` has answers (not with `overwrite`).
      DataError: for a database that cannot be read.
    """
    if top < 1:
        raise UserError(f"--top={top} must be at least 1")
    out = out or folder / "localize"
    outputs.refuse_existing(out / TABLE, overwrite=overwrite)
    what, config, variables, _ = which.chosen(config, folder, checkpoint)
    log.info("weights: %s", what)
    known = database_file.read(database, config, variables)
    mesh = builders.mesh(config)
    kept = builders.where(config).kept(str(database), known.descriptors, mesh)
    if len(kept.missing) == len(known.rows):
        raise UserError(f"{database} has no place: none of its {len(known.rows)} images could be read. {AGAIN}")
    paths = builders.photos(images, reader)
    config = config.copy_and_resolve_references()
    config.loader.on_error = "skip"
    found = builders.describer(config, mesh)(variables, paths)
    unread = [{"query": paths[q], "error": why_unreadable(paths[q])} for q in found.missing]
    if len(unread) == len(paths):
        raise UserError(f"no photo of {', '.join(images)} can be read; the first: {unread[0]['error']}")
    if known.descriptors.shape[1] != found.descriptors.shape[1]:
        widths = known.descriptors.shape[1], found.descriptors.shape[1]
        raise UserError(f"{database} has {widths[0]} numbers a descriptor, the model {widths[1]}. {AGAIN}")
    top = min(top, len(known.rows) - len(kept.missing))
    distances, ranked = nearest(kept, found.descriptors, top)
    answered = np.setdiff1d(np.arange(len(paths)), found.missing)
    answers = [
        {"query": paths[q], "rank": rank + 1, "distance": float(distances[q, rank]), **known.rows[row]}
        for q in answered
        for rank, row in enumerate(ranked[q])
    ]
    if hosts.is_first():
        _show(answers, unread, out)
        with Bar("drawing pictures", len(answered), "photos") as bar:
            for query in answered:
                _draw(query, paths, ranked[query], distances[query], known, out)
                bar.advance()
        print(f"wrote {out / TABLE} and a picture for each photo")
        if len(found.missing):
            print(f"{len(found.missing)} of {len(paths)} photos could not be read; their rows say why")
    return answers


def _show(answers: list[dict[str, Any]], unread: list[dict[str, Any]], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with replacing(out / TABLE) as part, part.open("w", newline="", **NAMES) as stream:
        writer = csv.DictWriter(stream, ("query", "rank", "distance", *COLUMNS, "error"))
        writer.writeheader()
        writer.writerows(sorted([*answers, *unread], key=lambda row: row["query"]))
    for photo, ranked in groupby(answers, key=lambda answer: answer["query"]):
        rows: list[Row] = [
            (str(one["rank"]), (_where(one), Figure(f"{one['distance']:.3f}"), Path(one["path"]).name))
            for one in ranked
        ]
        show(Path(photo).name, ("rank", "place", "distance", "image"), rows)


def _where(answer: dict[str, Any]) -> str:
    if answer["lat"] and answer["lon"]:
        return f"{float(answer['lat']):.6f}, {float(answer['lon']):.6f}"
    if answer["east"] and answer["north"]:
        return f"east {float(answer['east']):.1f} m, north {float(answer['north']):.1f} m"
    return f"place {answer['place']}" if answer["place"] else "no coordinates"


def _draw(query: int, paths: Paths, ranked: np.ndarray, distances: np.ndarray, known: Database, out: Path) -> None:
    rows = [known.rows[row] for row in ranked]
    captions = [f"{_where(row)}\ndistance {d:.2f}" for row, d in zip(rows, distances, strict=True)]
    picture = predictions_picture(paths[query], [row["path"] for row in rows], None, captions)
    (out / f"{query:04d}_{shortened(Path(paths[query]).stem)}.png").write_bytes(picture)
