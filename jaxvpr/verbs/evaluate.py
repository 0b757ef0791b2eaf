"""The verb evaluate: measures a checkpoint."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from data_pipelines.atomic import shortened
from data_pipelines.clips import Cutting
from jaxvpr import builders
from jaxvpr.cli import checks
from jaxvpr.cli.reader_flag import Reader
from jaxvpr.errors import UserError
from jaxvpr.families import names
from jaxvpr.retrieval import metrics
from jaxvpr.retrieval.evaluator import Benchmark
from jaxvpr.retrieval.thresholds import parse_threshold
from jaxvpr.runs import database_file, outputs, which
from jaxvpr.runs.compressed import fitted
from jaxvpr.training import logs
from jaxvpr.verbs import preview, results

log = logging.getLogger(__name__)


def run(
    config: ConfigDict,
    folder: Path,
    checkpoint: str,
    database: Sequence[str] = (),
    queries: Sequence[str] = (),
    reader: Reader | None = None,
    threshold: Sequence[str] | None = None,
    clips: Cutting | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> dict[str, Any] | None:
    """Measures a checkpoint on the recipe's test sets, or on two folders; writes metrics and report.

    Where the run's folder holds a class database of these weights, queries are localised by classification too.

    Args:
      folder: of the run.
      checkpoint: as of `which.chosen`.
      database, queries: folders of images; empty for the recipe's test sets.
      reader: of the folders.
      threshold: of these folders, as `thresholds.parse_threshold`; None for 25 m.
      clips: how these folders are cut into clips; None for images.
      out: folder to write to; None for one in the run's folder.
      dry_run: show what would be measured instead, and draw the first images.

    Raises:
      UserError: for a folder to write to that is a run's or that has results (not with `overwrite`), where there is
        nothing to measure on, and as `which.chosen`.
      DataError: for a log of the training that cannot be read.
    """
    given, out = out, out or folder / _name(checkpoint, database, queries, clips)
    if (out / "config.json").is_file():
        raise UserError(f"--out={out} is the folder of a run, whose own results would be lost; give another folder")
    if given:
        outputs.refuse_existing(out / metrics.FILE, overwrite=overwrite)
    trained = logs.read(folder)
    thresholds = tuple(dict.fromkeys(threshold or ("25m",)))
    for text in thresholds:
        parse_threshold(text)  # a mistake is answered before minutes of loading
    if clips and not database:
        raise UserError(
            f"--clips={clips.length} goes with --database and --queries; the recipe's test sets say themselves how "
            f"they are cut: --config=RECIPE,test_data.NAME.clips.length={clips.length}"
        )
    names.check(config, training=False)
    if clips:
        builders.check_measured(config, clips, f"--clips={clips.length}")
    if not given and (out / metrics.FILE).is_file():
        log.warning("%s has the results of an earlier evaluation: they are replaced", out)
    mesh = builders.mesh(config)

    @cache
    def read() -> list[Benchmark]:
        if database:
            return [builders.two_folders(database, queries, thresholds, reader, clips)]
        if found := builders.tests(config):
            return found
        raise UserError(
            "there is nothing to measure on: the recipe has no test_data. Give --database and --queries, or a data "
            "set: --config=RECIPE,test_data.NAME.reader=READER,test_data.NAME.root=FOLDER (docs/data_formats.md)"
        )

    own = checks.clusters_of_database(config)
    recipe, fit = (builders.without_clusters(config), which.unfitted) if dry_run else (config, fitted)
    shown = (lambda: read()[0].database.path) if own else None
    model = which.chosen(recipe, folder, checkpoint, fit=fit, images=shown)
    log.info("measuring %s", model.what)
    benches = read()
    if dry_run:
        preview.show(config.name, preview.measuring(model, benches, mesh, out))
        return None
    out.mkdir(parents=True, exist_ok=True)
    baselines = {"uncompressed": model.plain} if model.plain else {}
    classes = database_file.classes_in(folder, model.config, model.variables)
    learned = model.config.train_data and (lambda: builders.training_sets(model.config))
    found = results.measured(model.config, mesh, model.variables, benches, baselines, classes, learned or None)
    return results.write(model.config, out, found, model.variables, trained)


def _name(checkpoint: str, database: Sequence[str], queries: Sequence[str], clips: Cutting | None = None) -> str:
    """The folder for results within the run's: one for each checkpoint, of the recipe's test sets or of two folders
    and how they are cut."""
    if not database and checkpoint == "best":
        return "evaluate"
    paths = [str(Path(folder).resolve()) for folder in (*database, *queries)]
    digest = hashlib.sha256(os.fsencode("\n".join([*paths, checkpoint, *[str(clips)] * bool(clips)]))).hexdigest()[:8]
    of = [Path(paths[-1]).parent.name] if database else []
    of += [] if checkpoint == "best" else [Path(checkpoint).stem]
    return f"evaluate-{shortened('-'.join(of))}-{digest}"
