"""What the command line can do, one function a verb. Each takes the recipe and plain values; `main` parses and
prints."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data_pipelines.progress import slow
from jaxvpr import build, compression, database_file, learning, workdir
from jaxvpr.errors import UserError
from jaxvpr.models.costs import flops, model_mib, parameter_count
from jaxvpr.parallel import hosts
from jaxvpr.reports import terminal
from jaxvpr.retrieval import costs, metrics, protocol
from jaxvpr.retrieval.baselines import thumbnail
from jaxvpr.retrieval.classes import Classes
from jaxvpr.retrieval.evaluator import Benchmark, Evaluated, measure
from jaxvpr.run_report import write_run_report
from jaxvpr.training import logs, loop
from jaxvpr.training.loop import Variables

log = logging.getLogger(__name__)
Model = tuple[ConfigDict, Variables]


def train(config: ConfigDict, folder: Path) -> dict[str, Any] | None:
    """Trains or resumes a recipe, measures the best checkpoint, and writes metrics, model and report into the folder.

    Returns:
      The content of `metrics.json`, or None where the run was told to leave before its end or there is no test data.
    """
    workdir.claim(folder, config)
    mesh = build.mesh(config)
    recipe = learning.recipe(config, mesh, build.benchmarks(config, config.val_data))
    # Before training: what is missing shows now, not after hours.
    tests = build.benchmarks(config, config.test_data)
    compression.check(config, len(recipe.images))
    outcome = loop.train(config, folder, recipe, mesh)
    if not outcome.finished:
        log.warning("told to leave; the same command goes on where this one stopped")
        return None
    baselines, best = {"untrained": (config, outcome.initial)}, outcome.best
    if config.pca.dim:
        baselines["uncompressed"] = config, best
        config, best = compression.fitted(config, best, recipe.images)
    classes = None
    if recipe.classes and outcome.extra:
        classes = recipe.classes.database(outcome.extra, mesh)
    if hosts.is_first():
        workdir.save_model(folder, config, best)
        if classes:
            database_file.write(folder / database_file.CLASSES_FILE, config, best, *classes, of="classes")
    if not tests:
        log.warning("the recipe has no test_data: nothing is measured, and neither metrics nor a report are written")
        return None
    log.info("measuring step %d, the best in validation", outcome.best_step)
    found = _evaluate(config, mesh, best, tests, baselines, classes)
    return _write(config, folder, found, best, outcome.seconds, outcome.planning_seconds)


def evaluate(
    config: ConfigDict, folder: Path, checkpoint: str, database: str = "", queries: str = ""
) -> dict[str, Any] | None:
    """Measures a checkpoint on the recipe's test sets, or on two folders; writes metrics and report into the folder.

    Where the folder holds a class database of these weights, queries are localised by classification too.
    """
    mesh = build.mesh(config)
    model = compression.chosen(config, folder, checkpoint)
    log.info("measuring %s", model.what)
    if bool(database) != bool(queries):
        raise UserError("--database and --queries go together: two folders of images")
    benches = [build.two_folders(config, database, queries)] if database else build.benchmarks(config, config.test_data)
    if not benches:
        raise UserError(
            "there is nothing to measure on: the recipe has no test_data. Give --database and --queries, or a data "
            "set: --config=RECIPE,test_data.NAME.reader=READER,test_data.NAME.root=FOLDER (docs/data_formats.md)"
        )
    folder.mkdir(parents=True, exist_ok=True)
    baselines = {"uncompressed": model.plain} if model.plain else {}
    classes = database_file.classes_in(folder, model.config, model.variables)
    found = _evaluate(model.config, mesh, model.variables, benches, baselines, classes)
    return _write(model.config, folder, found, model.variables)


def _evaluate(
    config: ConfigDict, mesh: Mesh, variables: Variables, benches: list[Benchmark], others: Mapping[str, Model],
    classes: Classes | None,
) -> list[Evaluated]:  # fmt: skip
    """Measures the method on every benchmark, beside thumbnails and other models: the network it started as, and
    itself without its PCA."""
    describer = build.describer(config, mesh)
    found = []
    for bench in benches:
        ns = build.recall_ns(config, bench)
        method = measure(describer, variables, bench, ns, classes=classes)
        baselines = {}
        if config.eval.baselines:
            baselines["thumbnail"] = measure(describer, {}, bench, ns, thumbnail)
            for name, (recipe, weights) in others.items():
                describes = describer if recipe is config else build.describer(recipe, mesh)
                baselines[name] = measure(describes, weights, bench, ns)
        found.append(Evaluated(bench, method, baselines))
        _print(config, found[-1])
    return found


def _facts(config: ConfigDict, one: Evaluated) -> dict[str, Any]:
    return protocol.protocol(
        dataset=one.bench.name,
        split=one.bench.split,
        queries=len(one.bench.queries),
        database=len(one.bench.database),
        positives=one.bench.positives,
        image_size=build.image_size(config) if config.image.size else (),
        resize=config.image.resize,
        multiple=config.image.multiple,
        cropped_from=tuple(config.image.size) if config.image.crop else None,
        dimension=one.method.dimension,
        missing=one.method.missing,
    )


def _print(config: ConfigDict, one: Evaluated) -> None:
    """The recall table of a benchmark, each threshold under its protocol line."""
    if not hosts.is_first():
        return
    facts, rows = _facts(config, one), {**one.baselines, config.name: one.method}
    for threshold, recall in one.method.recalls.items():
        notes = []
        if recall.without_positive:
            answerable = "  ".join(f"R@{n} {v:5.1f}" for n, v in recall.of_answerable.items())
            count = recall.queries - recall.without_positive
            notes = [f"upper bound {recall.upper_bound:.1f}; of the {count} queries with a positive: {answerable}"]
        reached = {name: measured.recalls[threshold] for name, measured in rows.items()}
        terminal.recalls(protocol.line(facts, threshold), reached, notes)
    for threshold, located in one.method.located.items():
        title = protocol.line_of_classes(facts, one.method.classes, located.without_positive, threshold)
        terminal.recalls(title, {f"{config.name} by classification": located}, of="LR")


def _write(
    config: ConfigDict, folder: Path, found: list[Evaluated], variables: Variables,
    seconds: float | None = None, planning: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """`metrics.json` and `report.html`."""
    results = [
        metrics.result(
            _facts(config, one),
            one.method.recalls,
            {name: measured.recalls for name, measured in one.baselines.items()},
            _by_condition(one),
            one.method.located,
            one.method.classes,
        )
        for one in found
    ]
    first = found[0]
    with slow("counting the model's operations"):
        operations = flops(build.model(config), *build.image_size(config))
    spent = costs.costs(
        database=len(first.bench.database),
        dimension=first.method.dimension,
        extraction_ms_per_image=first.method.extraction_ms,
        matching_ms_per_query=first.method.matching_ms,
        parameters=parameter_count(variables),
        model_bytes=round(model_mib(variables) * 2**20),
        flops_per_image=operations,
        training_seconds=seconds,
        planning_seconds=planning,
    )
    extra = build.identity(config)
    if hosts.is_first():
        metrics.write_metrics(folder, results, spent, extra)
        with slow("writing the report"):
            report = write_run_report(folder / "report.html", config, found, results, spent, logs.read(folder))
        print(f"wrote {folder / metrics.FILE} and {report}")
    return {"results": results, "costs": spent, **extra}


def _by_condition(one: Evaluated) -> Mapping[str, Any]:
    """condition -> threshold -> recall, for the conditions that the queries name."""
    queries = one.bench.queries
    rows = {name: queries.condition == code for code, name in enumerate(queries.conditions)}
    return {
        name: {threshold: recall.take(chosen) for threshold, recall in one.method.recalls.items()}
        for name, chosen in rows.items()
        if chosen.any()
    }


def devices() -> str:
    """What the run computes on, for the console."""
    kinds = {device.device_kind for device in jax.devices()}
    return f"{jax.device_count()} x {', '.join(sorted(kinds))}, {jax.process_count()} process(es)"
