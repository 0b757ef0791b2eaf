"""The verb evaluate: measures a checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvpr import builders
from jaxvpr.errors import UserError
from jaxvpr.runs import database_file, which
from jaxvpr.verbs import results

log = logging.getLogger(__name__)


def run(
    config: ConfigDict, folder: Path, checkpoint: str, database: str = "", queries: str = ""
) -> dict[str, Any] | None:
    """Measures a checkpoint on the recipe's test sets, or on two folders; writes metrics and report into the folder.

    Where the folder holds a class database of these weights, queries are localised by classification too.
    """
    mesh = builders.mesh(config)
    model = which.chosen(config, folder, checkpoint)
    log.info("measuring %s", model.what)
    if bool(database) != bool(queries):
        raise UserError("--database and --queries go together: two folders of images")
    benches = (
        [builders.two_folders(config, database, queries)] if database else builders.benchmarks(config, config.test_data)
    )
    if not benches:
        raise UserError(
            "there is nothing to measure on: the recipe has no test_data. Give --database and --queries, or a data "
            "set: --config=RECIPE,test_data.NAME.reader=READER,test_data.NAME.root=FOLDER (docs/data_formats.md)"
        )
    folder.mkdir(parents=True, exist_ok=True)
    baselines = {"uncompressed": model.plain} if model.plain else {}
    classes = database_file.classes_in(folder, model.config, model.variables)
    found = results.measured(model.config, mesh, model.variables, benches, baselines, classes)
    return results.write(model.config, folder, found, model.variables)
