"""The verb train: trains or resumes a recipe, and measures what it became."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from jax.sharding import Mesh
from ml_collections import ConfigDict

from data_pipelines.places import Places
from jaxvpr import builders, families
from jaxvpr.cli.checks import held_out_sets
from jaxvpr.errors import AGAIN
from jaxvpr.families import names
from jaxvpr.parallel import hosts
from jaxvpr.retrieval.evaluator import Benchmark
from jaxvpr.runs import compressed, database_file, lock, model_file, workdir
from jaxvpr.training import logs, loop
from jaxvpr.training.recipe import Recipe
from jaxvpr.verbs import preview, results

log = logging.getLogger(__name__)


def run(config: ConfigDict, folder: Path, dry_run: bool = False) -> dict[str, Any] | int | None:
    """Trains or resumes a recipe, measures the best checkpoint, and writes metrics, model and report into the folder.

    With `dry_run` it shows what it would do instead, and draws the first batch.

    Returns:
      The content of `metrics.json`, None where there is no test data, or the status `AGAIN` where the run was stopped
      before its end.

    Raises:
      UserError: where another process works in the folder.
    """
    names.check(config)
    memo: dict[Any, Any] = {}
    config, choices = settled(config, memo)
    if dry_run:
        facts = {f"chosen {key}": f"{value}: {why}" for key, value, why in choices}
        preview.show(config.name, facts | preview.training(config, folder, *prepared(config, memo)).facts)
        return None
    with lock.held(folder):
        return _trained(config, folder, memo)


def settled(config: ConfigDict, memo: dict[Any, Any]) -> tuple[ConfigDict, list[builders.Choice]]:
    """The recipe with what its data choose, and these choices; `memo` keeps the images that they were made from."""
    return builders.settle(config, lambda own: _training_sets(own, memo))


def _training_sets(config: ConfigDict, memo: dict[Any, Any]) -> list[Places]:
    return _once(memo, lambda: builders.training_sets(config), config, config.train_data, config.more_train_data)


def _once(memo: dict[Any, Any], make: Callable[[], Any], config: ConfigDict, *specs: ConfigDict) -> Any:
    key = tuple(spec.to_json() for spec in (config.city, *specs))
    if key not in memo:
        memo[key] = make()
    return memo[key]


def _trained(config: ConfigDict, folder: Path, memo: dict[Any, Any]) -> dict[str, Any] | int | None:
    workdir.claim(folder, config)
    recipe, mesh, sets, _, tests = prepared(config, memo)
    outcome = loop.train(config, folder, recipe, mesh)
    if not outcome.finished:
        log.warning("stopped before the end; the same command resumes")
        return AGAIN
    baselines, best = {"untrained": (config, outcome.initial)}, outcome.best
    if config.model.get("position", "") and config.maps.cached:
        baselines = {}  # what rests describes as before
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
    found = results.measured(config, mesh, best, tests, baselines, classes, lambda: sets)
    log_lines = logs.read(folder)
    return results.write(config, folder, found, best, log_lines, outcome.seconds, outcome.planning_seconds)


class Prepared(NamedTuple):
    """What a training works with, before its first step."""

    recipe: Recipe
    mesh: Mesh
    sets: list[Places]
    validation: list[Benchmark]
    tests: list[Benchmark]


def prepared(config: ConfigDict, memo: dict[Any, Any] | None = None) -> Prepared:
    """Reads all data of a recipe and makes what is trained: what is missing shows now, not after hours.

    `memo` keeps data sets that were read, since the runs of a sweep often share them.

    Raises:
      UserError, DataError: for names, files and data that do not fit.
    """
    memo = {} if memo is None else memo
    once = partial(_once, memo)
    mesh = builders.mesh(config)
    trained_on = (config.train_data, config.more_train_data)
    held_out = trained_on if held_out_sets(config) else ()
    validation = once(lambda: builders.validation(config), config, config.val_data, *held_out)
    sets = _training_sets(config, memo)
    recipe = families.recipe(config, mesh, validation, sets)
    tests = [] if recipe.own_model else once(lambda: builders.tests(config), config, config.test_data, *held_out)
    compressed.check(config, recipe.images)
    final = compressed.with_pca(config) if config.pca.dim else config
    for shown, benches in ((config, [] if recipe.own_model else validation), (final, tests)):
        for bench in benches:
            results.searched(shown, mesh, bench)  # what has no room is refused before hours of training
    return Prepared(recipe, mesh, sets, validation, tests)
