"""The verb localize: where photos were taken, or where a drive went."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Sequence
from functools import partial
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
from data_pipelines.video import Every, is_video
from jaxvpr import builders
from jaxvpr.cli import checks
from jaxvpr.cli.reader_flag import Reader
from jaxvpr.errors import UserError
from jaxvpr.parallel import hosts
from jaxvpr.reports.pictures import predictions_picture
from jaxvpr.reports.terminal import Figure, Row, show
from jaxvpr.retrieval.extract import Described
from jaxvpr.retrieval.where import nearest
from jaxvpr.runs import database_file, outputs, which
from jaxvpr.runs.database_file import AGAIN, COLUMNS, Database, in_words
from jaxvpr.verbs import locating, tracking

log = logging.getLogger(__name__)
TABLE = "predictions.csv"


def run(
    config: ConfigDict,
    folder: Path,
    checkpoint: str,
    images: Sequence[str],
    reader: Reader,
    database: Path | None = None,
    out: Path | None = None,
    top: int | None = None,
    track: bool = False,
    every: Every | None = None,
    speed: float | None = None,
    overwrite: bool = False,
) -> list[dict[str, Any]]:
    """Ranks the places of a database for every photo; prints them, and writes a table and pictures to `out`,
    by default `localize` in the run's folder. With `track`, or of a video, as `tracking.run` does.

    Without a database, or with a file of weights in its place, the position head of the model answers, as
    `locating.run` does. A database is of photos (`extract`) or of the classes that a training left
    (`runs/NAME/classes.npy`). A photo that cannot be read does not stop the others: its row of the table has why in the
    column `error`, and nothing else.

    Args:
      top: places for each photo; None: 5, or the `tracking.CANDIDATES` of a frame.
      track: whether the images are the frames of one drive; they are those of a video in any case.
      every, speed: as `tracking.run` takes them.

    Returns:
      One dict for each photo and rank: query, rank, path, east, north, lat, lon, distance; or one for each frame.

    Raises:
      UserError: if the database was extracted with another model or other weights, no image of it could be read, `top`
        is below 1, no photo can be read, or `out` has answers (not with `overwrite`).
      DataError: for a database or a video that cannot be read.
    """
    track = _of_a_drive(images, track, every, speed)
    top = top if top is not None else tracking.CANDIDATES if track else 5
    if top < 1:
        raise UserError(f"--top={top} must be at least 1")
    out = out or folder / "localize"
    outputs.refuse_existing(out / (tracking.TABLE if track else TABLE), overwrite=overwrite)
    if database is None or database.suffix.lower() in locating.WEIGHTS:
        if track:
            raise UserError("a track is chosen among the places of a database: give --database=FILE.npy with --track")
        model = locating.chosen(config, folder, checkpoint, database)
        log.info("weights: %s", model.what)
        return locating.run(model, images, builders.photos(images, reader), top, out)
    what, config, variables, _ = which.chosen(config, folder, _weights(config, checkpoint, database))
    log.info("weights: %s", what)
    known = database_file.read(database, config, variables)
    if known.cutting and not track:
        raise UserError(
            f"{database} is of clips of {known.cutting.length} frames, and a photo is no clip: give frames of a drive "
            "with --track, or write a database of images (jaxvpr extract without --clips)"
        )
    mesh = builders.mesh(config)
    kept = builders.where(config).kept(str(database), known.descriptors, mesh)
    if len(kept.missing) == len(known.rows):
        raise UserError(f"{database} has no place: none of its {len(known.rows)} images could be read. {AGAIN}")
    top = min(top, len(known.rows) - len(kept.missing))
    config = config.copy_and_resolve_references()
    config.loader.on_error = "skip"
    describe = partial(builders.describer(config, mesh), variables)

    def search(descriptors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if known.descriptors.shape[1] != descriptors.shape[1]:
            widths = known.descriptors.shape[1], descriptors.shape[1]
            raise UserError(f"{database} has {widths[0]} numbers a descriptor, the model {widths[1]}. {AGAIN}")
        return nearest(kept, descriptors, top)

    if track:
        asked = images[0], reader, every, speed or tracking.SPEED
        return tracking.run(*asked, known.rows, known.cutting, describe, search, out)
    return _of_photos(images, builders.photos(images, reader), known, describe, search, out)


def _weights(config: ConfigDict, checkpoint: str, database: Path) -> str:
    """Which weights to take: the model beside the database where its clusters are those of the database."""
    if checkpoint != "best" or not checks.clusters_of_database(config):
        return checkpoint
    beside = database.with_suffix(database_file.MODEL)
    return str(beside) if beside.is_file() else checkpoint


def _of_a_drive(images: Sequence[str], track: bool, every: Every | None, speed: float | None) -> bool:
    """Whether a track is asked for; UserError where it cannot be had."""
    videos = [one for one in images if is_video(one)]
    track = track or bool(videos)
    if track and len(images) > 1:
        raise UserError(
            f"--images was given {len(images)} times, and a track is of one drive, here of {(videos or images)[0]}: "
            "give each drive a command of its own, with its own --out"
        )
    if not track and (every is not None or speed is not None):
        flag = "--every" if every is not None else "--speed"
        raise UserError(f"{flag} is for the frames of a drive: give --track with it, or leave it out")
    return track


def _of_photos(
    images: Sequence[str],
    paths: Paths,
    known: Database,
    describe: Callable[[Any], Described],
    search: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    out: Path,
) -> list[dict[str, Any]]:
    """Answers each photo by itself; see `run`."""
    found = describe(paths)
    unread = [{"query": paths[q], "error": why_unreadable(paths[q])} for q in found.missing]
    if len(unread) == len(paths):
        raise UserError(f"no photo of {', '.join(images)} can be read; the first: {unread[0]['error']}")
    distances, ranked = search(found.descriptors)
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
            (str(one["rank"]), (in_words(one), Figure(f"{one['distance']:.3f}"), Path(one["path"]).name))
            for one in ranked
        ]
        show(Path(photo).name, ("rank", "place", "distance", "image"), rows)


def _draw(query: int, paths: Paths, ranked: np.ndarray, distances: np.ndarray, known: Database, out: Path) -> None:
    rows = [known.rows[row] for row in ranked]
    captions = [f"{in_words(row)}\ndistance {d:.2f}" for row, d in zip(rows, distances, strict=True)]
    picture = predictions_picture(paths[query], [row["path"] for row in rows], None, captions)
    (out / f"{query:04d}_{shortened(Path(paths[query]).stem)}.png").write_bytes(picture)
