"""The verb train: trains or resumes a recipe, and measures what it became."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jaxvpr import builders, families
from jaxvpr.families import names
from jaxvpr.parallel import hosts
from jaxvpr.runs import compressed, database_file, lock, model_file, workdir
from jaxvpr.training import logs, loop
from jaxvpr.verbs import results

log = logging.getLogger(__name__)


def run(config: ConfigDict, folder: Path) -> dict[str, Any] | None:
    """Trains or resumes a recipe, measures the best checkpoint, and writes metrics, model and report into the folder.

    Returns:
      The content of `metrics.json`, or None where the run was stopped before its end or there is no test data.

    Raises:
      UserError: where another process works in the folder.
    """
    names.check(config)
    with lock.held(folder):
        return _trained(config, folder)


def _trained(config: ConfigDict, folder: Path) -> dict[str, Any] | None:
    workdir.claim(folder, config)
    mesh = builders.mesh(config)
    recipe = families.recipe(config, mesh, builders.benchmarks(config, config.val_data))
    # Before training: what is missing shows now, not after hours.
    tests = [] if recipe.own_model else builders.benchmarks(config, config.test_data)
    compressed.check(config, len(recipe.images))
    outcome = loop.train(config, folder, recipe, mesh)
    if not outcome.finished:
        log.warning("stopped before the end; the same command resumes")
        return None
    baselines, best = {"untrained": (config, outcome.initial)}, outcome.best
    if config.pca.dim:
        baselines["uncompressed"] = config, best
        config, best = compressed.fitted(config, best, recipe.images)
    classes = None
    if recipe.classes and outcome.extra:
        classes = recipe.classes.database(outcome.extra, mesh)
    if hosts.is_first():
        model_file.save_model(folder, config, best)
        if classes:
            database_file.write(folder / database_file.CLASSES_FILE, config, best, *classes, of="classes")
    if not tests:
        why = "the family has a model of its own" if recipe.own_model else "the recipe has no test_data"
        log.warning("%s: nothing is measured, and neither metrics nor a report are written", why)
        return None
    log.info("measuring step %d, the best in validation", outcome.best_step)
    found = results.measured(config, mesh, best, tests, baselines, classes)
    log_lines = logs.read(folder)
    return results.write(config, folder, found, best, log_lines, outcome.seconds, outcome.planning_seconds)
