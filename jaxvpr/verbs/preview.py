"""What `--dry-run` shows: what a command would read, learn, take and write, from the objects that the command uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data_pipelines import audit
from data_pipelines.atomic import write_bytes
from data_pipelines.clips import Clips
from data_pipelines.draws import Draw
from data_pipelines.loaders import loading_options
from data_pipelines.places import Paths, Places
from data_pipelines.shapes import own_sizes
from jaxvpr import builders
from jaxvpr.models.costs import model_mib, parameter_count
from jaxvpr.parallel import hosts
from jaxvpr.reports import terminal
from jaxvpr.reports.contact_sheet import Tile, contact_sheet, in_rows
from jaxvpr.retrieval import metrics
from jaxvpr.retrieval.evaluator import Benchmark
from jaxvpr.runs import workdir
from jaxvpr.runs.which import Chosen
from jaxvpr.training import rehearsal, settings
from jaxvpr.training.feed import Feed
from jaxvpr.training.optimisers import split_frozen
from jaxvpr.training.recipe import Recipe
from jaxvpr.training.state import TrainState, planned
from jaxvpr.verbs import results

Facts = dict[str, str]
PICTURE = "first_batch.png"
COLUMNS = ("run", "seeds", "folder", "learned", "steps", "parameters", "memory of a step")
MOST, FEW = 64, 16  # images of a picture of a training batch, and of one to measure


class Training(NamedTuple):
    """What a training would do: all of it, by name, and its cells in the table of a sweep (`COLUMNS`)."""

    facts: Facts
    cells: tuple[str, ...]


def training(
    config: ConfigDict,
    folder: Path,
    recipe: Recipe,
    mesh: Mesh,
    sets: Sequence[Places],
    validation: Sequence[Benchmark],
    tests: Sequence[Benchmark],
) -> Training:
    """What a training would do, and the picture of its first batch in the run's folder; nothing else changes there.

    Raises:
      UserError, DataError: as the training, before its first step.
    """
    settled = settings.settle(config, recipe, mesh)
    of_state = settings.state_options(config, recipe, settled)
    _, state = planned(recipe.model, recipe.objective, settled.groups, mesh, **of_state)
    feed = Feed(
        recipe.sources, mesh, seed=config.seed, loader=loading_options(config.loader), by_image=settled.by_image
    )
    batch = rehearsal.first_batch(recipe.objective, feed, mesh, config.seed)
    takes = rehearsal.memory(
        recipe.objective, mesh, state, batch,
        frozen=settled.frozen, accumulate=config.accumulate, grad_cache=config.grad_cache, tables=recipe.tables,
    )  # fmt: skip
    steps = config.epochs * config.steps_per_epoch
    images = sum(len(draw.rows) * _each(draw, batch.read[stream]) for stream, draw in batch.draws.items())
    facts = {f"training images{f' {n + 1}' * (len(sets) > 1)}": audit.line(one) for n, one in enumerate(sets)}
    facts |= {"learned": recipe.summary or config.objective.name}
    measured = [("validation", bench) for bench in validation] + [("test", bench) for bench in tests]
    facts |= {f"{what} {bench.name}": f"{measured_on(bench)}; {bench.split}" for what, bench in measured}
    facts["steps"] = (
        f"{steps:,}: {config.epochs:,} epochs of {config.steps_per_epoch:,}; {images:,} images a step, "
        f"{steps * images / max(sum(map(len, sets)), 1):.3g} draws of each image"
    )
    facts["start"] = _start(config, recipe, settled.frozen)
    facts["parameters"] = _parameters(state, settled.frozen)
    facts["memory"] = in_words(takes)
    state_of_run = state_in(folder, config, steps)
    facts["folder"] = f"{folder}: {state_of_run}"
    facts["first batch"] = _picture(folder / PICTURE, _sheet(config, recipe, batch, mesh))
    if batch.guessed:
        facts["first batch"] += " (mined with random descriptors here: training mines with the model's)"
    count = parameter_count({"params": state.params})
    short = (
        state_of_run,
        facts["learned"],
        f"{steps:,} steps",
        f"{count:,} parameters",
        f"{takes.total / 2**20:,.0f} MiB",
    )
    return Training(facts, short)


def show(title: str, facts: Mapping[str, str]) -> None:
    """Prints what would be done."""
    if hosts.is_first():
        terminal.show(f"dry run: {title}", ("", ""), [(name, (text,)) for name, text in facts.items()])


def measured_on(bench: Benchmark) -> str:
    """The images of a benchmark, and its queries without a positive, in words."""
    lacking = "; ".join(
        f"{threshold}: {int((positives.counts == 0).sum()):,} queries without positive"
        for threshold, positives in bench.positives.items()
    )
    what = f"clips of {bench.database_clips.length} frames" if bench.database_clips else "images"
    return f"{len(bench.queries):,} queries, {len(bench.database):,} database {what}; {lacking}"


def in_words(takes: rehearsal.Memory) -> str:
    """`a step takes about 105 MiB of each device: state 8, batch 1, gradients 1, kept for them 96`."""
    state, batch, gradients, kept = (f"{size / 2**20:,.1f}" for size in takes)
    parts = f"state {state}, batch {batch}, gradients {gradients}, kept for them {kept}"
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    of = f" of {limit / 2**20:,.0f}" if limit else ""
    return f"a step takes about {takes.total / 2**20:,.0f}{of} MiB of each device: {parts}"


def _start(config: ConfigDict, recipe: Recipe, frozen: Sequence[str]) -> str:
    if recipe.own_model:
        return "as the family says"
    clustered = config.clusters.images
    if config.init or frozen:  # what can be wrong
        builders.initial_variables(builders.without_clusters(config), frozen=() if clustered else frozen)
    clusters = f", clusters of {clustered:,} training images" if clustered else ""
    return f"{config.init or 'random weights'}{clusters}"


def _parameters(state: TrainState, frozen: Sequence[str]) -> str:
    trained, fixed = split_frozen(state.params, frozen)
    count = parameter_count({"params": trained})
    resting = parameter_count({"params": fixed})
    heads = parameter_count({"params": (state.extra, state.shared)})
    return f"{count + resting:,}, of which {count:,} train" + f"; {heads:,} more in heads" * bool(heads)


def state_in(folder: Path, config: ConfigDict, total: int) -> str:
    """What a run of `total` steps would begin from in its folder; UserError where another recipe's run lies there."""
    steps = workdir.steps(folder)
    if not steps:
        return "a new run"
    workdir.check(folder, config)
    return f"would go on at step {steps[-1]:,} of {total:,}" if steps[-1] < total else "has ended; would measure again"


def _picture(file: Path, png: bytes) -> str:
    if hosts.is_first():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, png)
    return str(file)


def _sheet(config: ConfigDict, recipe: Recipe, batch: rehearsal.FirstBatch, mesh: Mesh) -> bytes:
    word = "class" if recipe.objective.by_class else "place"
    read = {stream: _with_images(config, recipe, local, mesh) for stream, local in batch.read.items()}
    rows = [row for stream, local in read.items() for row in _rows(batch.draws[stream], local, word)]
    size = "x".join(map(str, builders.image_size(config)))
    return contact_sheet(f"{config.name}: images of the first batch as the model sees them, {size} pixels", rows)


def _with_images(config: ConfigDict, recipe: Recipe, local: dict[str, np.ndarray], mesh: Mesh) -> dict[str, np.ndarray]:
    """The batch of a stream; with the images whose features it holds, where the backbone stands still."""
    if not config.maps.cached or not isinstance(recipe.images, Paths):
        return local
    rows = local["row"]
    found = builders.describer(config, mesh)({}, recipe.images.take(rows.ravel()), pixels).descriptors
    images = np.clip(np.rint(found[:, 2:]), 0, 255).astype(np.uint8)
    return {**local, "image": images.reshape(*rows.shape, *builders.image_size(config), 3)}


def _rows(draw: Draw, local: Mapping[str, np.ndarray], word: str) -> list[Sequence[Tile]]:
    """The images of a stream: a clip a row, else an element a row where it has several, else eight a row."""
    images = local.get("image", np.zeros(0))
    if images.dtype != np.uint8 or images.shape[-1] != 3:
        return []
    flat, each = images.reshape(-1, *images.shape[-3:]), _each(draw, local)
    if each == 1:
        labels = [f"{word} {label}" if label >= 0 else "" for label in local["label"]]
        return in_rows([Tile(*pair) for pair in zip(flat[:MOST], labels, strict=False)])
    frames, kinds = each // draw.each, ["query", "positive", *["negative"] * (draw.each - 2)]
    names = [kind for kind in kinds for _ in range(frames)] if draw.each > 2 else [""] * each
    tiles = [Tile(image, names[n % each]) for n, image in enumerate(flat[: MOST // each * each or each])]
    return in_rows(tiles, frames if frames > 1 else each)


def _each(draw: Draw, local: Mapping[str, np.ndarray]) -> int:
    """How many images an element of a stream has: those of its triplet, say, each with the frames of its clip."""
    shape = local["image"].shape if "image" in local else ()
    return prod(shape[:-3]) * draw.each // local["row"].size if len(shape) > 3 else draw.each


def measuring(model: Chosen, benches: Sequence[Benchmark], mesh: Mesh, out: Path) -> Facts:
    """What an evaluation would do, and the picture of the first images in its folder."""
    config = model.config
    counts = {
        f"test {bench.name}": f"{measured_on(bench)}; searched {results.searched(config, mesh, bench)}"
        for bench in benches
    }
    images = sum(len(bench.queries) + len(bench.database) for bench in benches)
    replaced = " (those there are replaced)" if (out / metrics.FILE).is_file() else ""
    return {
        "weights": model.what,
        **counts,
        **_described(model, images),
        "results": f"{out}: {metrics.FILE} and report.html{replaced}",
        "first batch": _picture(out / PICTURE, _first_images(config, mesh, benches[0].database.path)),
    }


def extracting(model: Chosen, rows: Places | Clips, mesh: Mesh, out: Path) -> Facts:
    """What an extraction would do, and the picture of the first images beside its file."""
    picture = out.with_name(f"{out.stem}_{PICTURE}")
    replaced = " (the one there is replaced)" if out.is_file() else ""
    places = rows if isinstance(rows, Places) else rows.images
    clips = {} if isinstance(rows, Places) else {"clips": f"{len(rows):,} of {rows.length} frames"}
    return {
        "weights": model.what,
        "images": audit.line(places),
        **clips,
        **_described(model, len(rows)),
        "results": f"{out}, {out.with_suffix('.csv')} and {out.with_suffix('.json')}{replaced}",
        "first batch": _picture(picture, _first_images(model.config, mesh, places.path)),
    }


def describing(model: Chosen, places: Places, mesh: Mesh, out: Path, files: str) -> Facts:
    """What describing images for results in a folder would do, and the picture of the first of them there."""
    return {
        "weights": model.what,
        "images": audit.line(places),
        **_described(model, len(places)),
        "results": f"{out}: {files}",
        "first batch": _picture(out / PICTURE, _first_images(model.config, mesh, places.path)),
    }


def _described(model: Chosen, images: int) -> Facts:
    """What describing so many images takes."""
    config, dim = model.config, builders.descriptor_size(model.config)
    size, batch = builders.image_size(config), min(config.eval.batch, images)
    shown = f"{size[0]}x{size[1]}" if config.image.size else f"{size[0]}x{size[1]}, were they of that size"
    weights, inputs = model_mib(model.variables), batch * prod(size) * 3 / 2**20
    return {
        "descriptors": f"{images:,} of {dim:,} numbers, {images * dim * 4 / 2**20:,.1f} MiB",
        "parameters": f"{parameter_count(builders.shapes(config)):,}",
        "memory": f"{weights:,.1f} MiB of weights and {inputs:,.1f} MiB of images ({batch} of {shown}) on each device; "
        "what the layers compute comes on top",
    }


def _first_images(config: ConfigDict, mesh: Mesh, paths: Paths) -> bytes:
    """The first images of a set, as the model is shown them."""
    describes, some = builders.describer(config, mesh), paths.take(np.arange(min(len(paths), FEW)))
    own = np.zeros(len(some)) if config.image.size else own_sizes(some, config.loader.threads or 1) @ [1 << 20, 1]
    groups = [some.take(np.flatnonzero(own == size)) for size in np.unique(own)]
    tiles = [_shown(row) for group in groups for row in describes({}, group, pixels).descriptors]
    return contact_sheet(f"{config.name}: first images as the model sees them", in_rows(tiles))


def pixels(variables: Any, images: Any) -> Any:
    """In place of a model: the size of the images and their pixels, float32 [B, 2 + H * W * 3]."""
    count, height, width, _ = images.shape
    size = jnp.broadcast_to(jnp.array([height, width], jnp.float32), (count, 2))
    return jnp.concatenate([size, images.astype(jnp.float32).reshape(count, -1)], 1)


def _shown(row: np.ndarray) -> Tile:
    height, width = int(row[0]), int(row[1])
    if not height:
        return Tile(None, "not readable")
    image = row[2:].reshape(height, width, 3)
    return Tile(np.clip(np.rint(image), 0, 255).astype(np.uint8), f"{height}x{width}")
