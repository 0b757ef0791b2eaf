"""The verb evaluate: measures a checkpoint."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvpr import builders
from jaxvpr.errors import UserError
from jaxvpr.families import names
from jaxvpr.retrieval import positives
from jaxvpr.runs import database_file, which
from jaxvpr.training import logs
from jaxvpr.verbs import results

log = logging.getLogger(__name__)


def run(
    config: ConfigDict,
    folder: Path,
    checkpoint: str,
    database: str = "",
    queries: str = "",
    threshold: Sequence[str] | None = None,
    out: Path | None = None,
) -> dict[str, Any] | None:
    """Measures a checkpoint on the recipe's test sets, or on two folders; writes metrics and report.

    Where the run's folder holds a class database of these weights, queries are localised by classification too.

    Args:
      folder: of the run.
      checkpoint: as of `which.chosen`.
      database, queries: folders of images with coordinates; empty for the recipe's test sets.
      threshold: of the two folders, as `positives.parse_threshold`; None for 25 m.
      out: folder to write to; None for one in the run's folder.

    Raises:
      UserError: for a folder to write to that is a run's, where there is nothing to measure on, and as
        `which.chosen`.
    """
    out = out or folder / _name(database, queries)
    if (out / "config.json").is_file():
        raise UserError(f"--out={out} is the folder of a run, whose own results would be lost; give another folder")
    thresholds = tuple(dict.fromkeys(threshold or ("25m",)))
    for text in thresholds:
        positives.parse_threshold(text)  # a mistake is answered before minutes of loading
    names.check(config, training=False)
    mesh = builders.mesh(config)
    model = which.chosen(config, folder, checkpoint)
    log.info("measuring %s", model.what)
    benches = (
        [builders.two_folders(database, queries, thresholds)]
        if database
        else builders.benchmarks(config, config.test_data)
    )
    if not benches:
        raise UserError(
            "there is nothing to measure on: the recipe has no test_data. Give --database and --queries, or a data "
            "set: --config=RECIPE,test_data.NAME.reader=READER,test_data.NAME.root=FOLDER (docs/data_formats.md)"
        )
    out.mkdir(parents=True, exist_ok=True)
    baselines = {"uncompressed": model.plain} if model.plain else {}
    classes = database_file.classes_in(folder, model.config, model.variables)
    found = results.measured(model.config, mesh, model.variables, benches, baselines, classes)
    return results.write(model.config, out, found, model.variables, logs.read(folder))


def _name(database: str, queries: str) -> str:
    """The folder for results within the run's: one for the recipe's test sets, one for each pair of folders."""
    if not database:
        return "evaluate"
    paths = [Path(folder).resolve() for folder in (database, queries)]
    digest = hashlib.sha256("\n".join(map(str, paths)).encode()).hexdigest()[:8]
    return f"evaluate-{paths[1].parent.name}-{digest}"
