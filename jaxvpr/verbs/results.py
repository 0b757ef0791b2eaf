"""What train and evaluate measure, print and write: `metrics.json` and `report.html`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data_pipelines.progress import slow
from jaxvpr import builders, models
from jaxvpr.models import Variables
from jaxvpr.models.costs import flops, model_mib, parameter_count
from jaxvpr.parallel import hosts
from jaxvpr.reports import terminal
from jaxvpr.reports.answers import gallery_items, map_data
from jaxvpr.reports.html import write_report
from jaxvpr.retrieval import costs, metrics, protocol
from jaxvpr.retrieval.baselines import thumbnail
from jaxvpr.retrieval.classes import Classes
from jaxvpr.retrieval.evaluator import Benchmark, Evaluated, measure
from jaxvpr.verbs import position_results

Model = tuple[ConfigDict, Variables]


def searched(config: ConfigDict, mesh: Mesh, bench: Benchmark) -> str:
    """Where the descriptors of a benchmark's database will be searched, in words.

    Raises:
      UserError: where they have no room, or for clips that the recipe's score cannot compare.
    """
    compared = bench.compared(builders.score(config))
    if compared and compared.score.of_frames:
        return "frame by frame, all of them on each device"
    length = partial(builders.descriptor_size, config)
    on_mesh = builders.where(config).on_mesh(bench.name, len(bench.database), length, mesh)
    return "on the devices" if on_mesh else "on the host"


def measured(
    config: ConfigDict, mesh: Mesh, variables: Variables, benches: list[Benchmark], others: Mapping[str, Model],
    classes: Classes | None, training: position_results.Training | None = None,
) -> list[Evaluated]:  # fmt: skip
    """Measures the method on every benchmark, beside thumbnails and other models: the network it started as, and
    itself without its PCA. A head that answers positions is measured beside retrieval among the images of `training`,
    which it learned."""
    head = position_results.head_of(config, mesh, variables, training)
    describer = builders.describer(config, mesh)
    how: dict[str, Any] = {"where": builders.where(config), "score": builders.score(config)}
    found = []
    for bench in benches:
        if how["score"].score and not bench.database_clips:
            logging.getLogger(__name__).warning(
                "%s: eval.sequence.score=%r compares clips, and these are images: they are ranked by their "
                "descriptors. test_data.NAME.clips.length=5 cuts a data set into clips", bench.name, how["score"].score
            )  # fmt: skip
        ns = builders.recall_ns(config, bench)
        method = measure(describer, variables, bench, ns, classes=classes, **how)
        baselines = {}
        if config.eval.baselines:
            baselines["thumbnail"] = measure(describer, {}, bench, ns, thumbnail, **how)
            for name, (recipe, weights) in others.items():
                describes = describer if recipe is config else builders.describer(recipe, mesh)
                baselines[name] = measure(describes, weights, bench, ns, **how)
        placed = position_results.measured(head, bench, method.queries) if head else None
        found.append(Evaluated(bench, method, baselines, placed))
        _print(config, found[-1])
    return found


def _facts(config: ConfigDict, one: Evaluated) -> dict[str, Any]:
    return protocol.protocol(
        dataset=one.bench.name,
        split=one.bench.split,
        queries=len(one.bench.queries),
        database=len(one.bench.database),
        positives=one.bench.positives,
        image_size=builders.image_size(config) if config.image.size else (),
        resize=config.image.resize,
        multiple=config.image.multiple,
        cropped_from=tuple(config.image.size) if config.image.crop else None,
        dimension=one.method.dimension,
        missing=one.method.missing,
        computed_in=models.computed_in(builders.model(config)),
        batch_norm_images=config.model.get("batch_norm_images", 0),
        cutting=one.bench.cutting,
        index=one.method.index,
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
    if one.placed:
        about = f"{facts['dataset']} {facts['split']} | {facts['queries']:,} queries | share of answers within, %"
        position_results.show(config.name, about, one.placed)


def write(
    config: ConfigDict, folder: Path, found: list[Evaluated], variables: Variables, log: Sequence[Mapping[str, Any]],
    seconds: float | None = None, planning: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Writes `metrics.json` and `report.html` into a folder.

    Args:
      folder: to write to.
      log: of the training, for the report's curves; empty where there was none.
      seconds, planning: what the training took, and its plans alone.

    Returns:
      The content of `metrics.json`.
    """
    results = [
        metrics.result(
            _facts(config, one),
            one.method.recalls,
            {name: measured.recalls for name, measured in one.baselines.items()},
            _by_condition(one),
            one.method.located,
            one.method.classes,
            one.placed.figures if one.placed else None,
        )
        for one in found
    ]
    first = found[0]
    with slow("counting the model's operations"):
        operations = flops(builders.model(config), *builders.image_size(config), described_frames(config, first.bench))
    spent = costs.costs(
        database=searched_descriptors(config, first.bench),
        dimension=first.method.dimension,
        extraction_ms_per_image=first.method.extraction_ms,
        matching_ms_per_query=first.method.matching_ms,
        parameters=parameter_count(variables),
        model_bytes=round(model_mib(variables) * 2**20),
        flops_per_image=operations,
        training_seconds=seconds,
        planning_seconds=planning,
    ) | position_results.costs(first)
    extra = builders.identity(config)
    if hosts.is_first():
        metrics.write_metrics(folder, results, spent, extra)
        with slow("writing the report"):
            report = _report(folder / "report.html", config, found, results, spent, log)
        table = position_results.write(folder, found)
        print(f"wrote {folder / metrics.FILE}{f', {table}' if table else ''} and {report}")
    return {"results": results, "costs": spent, **extra}


def searched_descriptors(config: ConfigDict, bench: Benchmark) -> int:
    """How many descriptors of the database are held: those of images or clips, or of frames where a score wants them;
    two stages hold both."""
    clips, score = bench.database_clips, builders.score(config).score
    if clips is None or not score:
        return len(bench.database)
    return len(np.unique(clips.rows)) + (len(clips) if score == "two_stage" else 0)


def described_frames(config: ConfigDict, bench: Benchmark) -> int:
    """How many frames the clips have that the model describes; 0 where it is shown images, of clips too."""
    clips = bench.database_clips
    whole = builders.clip_length(config) and not builders.score(config).score
    return clips.length if clips and whole else 0


def _by_condition(one: Evaluated) -> Mapping[str, Any]:
    """condition -> threshold -> recall, for the conditions that the queries name; a query of two counts for both."""
    queries = one.bench.queries
    rows = {name: queries.having(name) for name in queries.conditions}
    return {
        name: {threshold: recall.take(chosen) for threshold, recall in one.method.recalls.items()}
        for name, chosen in rows.items()
        if chosen.any()
    }


def _report(
    path: Path,
    config: ConfigDict,
    found: Sequence[Evaluated],
    results: Sequence[Mapping[str, Any]],
    costs: Mapping[str, Any],
    log: Sequence[Mapping[str, Any]],
) -> Path:
    """Writes `report.html`: tables for all benchmarks, map and gallery for the first."""
    first = found[0]
    bench, positives = first.bench, next(iter(first.bench.positives.values()))
    notes = [f"Recipe {config.name}, seed {config.seed}."]
    return write_report(
        path,
        title=f"{config.name}: {first.bench.name}",
        config_text=str(config),
        results=results,
        costs=costs,
        loss_log=log,
        gallery=gallery_items(
            bench.database,
            bench.queries,
            first.method.predictions,
            first.method.distances,
            positives,
            (bench.database_clips, bench.query_clips),
        ),
        queries=len(bench.queries),
        map=map_data(bench.database, bench.queries, first.method.predictions, positives),
        notes=notes,
        positions=position_results.picture(first),
    )
