"""Values that a recipe leaves to the data (`config.auto`): each is chosen by counting, and said with its reason.

Everything here looks at the table of images, and at the headers of a few; equal data give equal choices, so that a run
that goes on has those that it began with.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from data_pipelines.eigen import eigen_classes
from data_pipelines.errors import DataError
from data_pipelines.images import RULES
from data_pipelines.near_batches import near_table
from data_pipelines.partitions import Cells, cosplace_cells, square_cells
from data_pipelines.places import Places
from data_pipelines.shapes import own_sizes
from jaxvpr.builders import gallery, layout, resting
from jaxvpr.builders.layout import Choice
from jaxvpr.builders.network import model
from jaxvpr.builders.positions import area_around, positions, to_learn
from jaxvpr.cli import checks
from jaxvpr.cli.overrides import as_text, override

log = logging.getLogger(__name__)
KEPT, MEDIAN = 0.9, 4  # least share of the images in classes, and images of the median class
SIDES = ((10.0, 30.0), (10.0, 60.0), (15.0, 30.0), (10.0, 90.0), (15.0, 60.0), (15.0, 90.0), (20.0, 60.0), (20.0, 90.0))
LEAST = (10, 5, 3)  # images of a class
APART = ((5, 2), (3, 2), (2, 2), (2, 1))  # N and L
FULL = 20  # batches of classes that make a group worth having
DRAWS, ROUNDS = 16, 12  # of each image, and validations
NEAR = ((12.0, 10.0), (12.0, 20.0), (15.0, 30.0), (20.0, 45.0), (20.0, 90.0), (20.0, 180.0))  # metres, degrees
LOOKED_AT, HEADERS = 50_000, 64  # images whose partners are counted, and whose headers are read
TRAINED = "pil_bilinear"  # what takes the place of a resize rule that runs on the devices
AREA, MULTIPLE, ENLARGED = 224**2, 32, 2.0  # pixels, of the sides, and how many times a side at most
RATES = ((1_000, 1e-3), (10_000, 3e-4), (100_000, 1e-4), (math.inf, 1e-5))  # below so many steps


def settle(config: ConfigDict, training_sets: Callable[[ConfigDict], list[Places]]) -> tuple[ConfigDict, list[Choice]]:
    """The recipe with a value for every key of its `auto`, which is empty then, and what was chosen.

    Args:
      training_sets: reads the images to train on, once the data sets are chosen.

    Raises:
      UserError, DataError: as reading does, and as the same values on the command line would.
    """
    made: list[Choice] = []
    if not config.get("auto", ()):
        return config, made
    config = config.copy_and_resolve_references()
    _take(config, layout.reader(config), made)
    if any(key.startswith(("train_data", "val_data", "test_data")) for key in config.auto):
        _take(config, layout.splits(config), made)
    images = training_sets(config)[0]
    for choose in (_size, _frozen, _area, _gallery, _batch, _partition, _length, _rate):
        _take(config, choose(config, images), made)
    with config.unlocked():
        config.auto = ()
    checks.check(config)
    checks.check_training(config)
    for key, value, why in made:
        log.info("chosen: %s=%s: %s", key, value, why)
    return config.lock(), made


def _take(config: ConfigDict, choices: Iterable[Choice], made: list[Choice]) -> None:
    """Sets those values that are left to the data, as the command line would, each before the next is chosen."""
    for key, value, why in choices:
        if key in config.auto:
            override(config, key, as_text(value))
            made.append((key, value, why))


def _size(config: ConfigDict, images: Places) -> Iterator[Choice]:
    if config.image.resize not in RULES:
        yield "image.resize", TRAINED, f"{config.image.resize} is for evaluation: training resizes on the host"
    if "image.size" not in config.auto:
        return
    some = images.path.take(np.unique(np.linspace(0, len(images) - 1, HEADERS).astype(int)))
    sizes = own_sizes(some)
    shapes = sizes[(sizes > 0).all(axis=1)]
    wide = float(np.median(shapes[:, 1] / shapes[:, 0])) if len(shapes) else 1.0
    tall = float(np.median(shapes[:, 0])) if len(shapes) else math.inf
    area = min(AREA, ENLARGED**2 * tall**2 * wide)
    multiple = MULTIPLE if config.image.multiple == 1 else config.image.multiple
    height, width = (multiple * max(1, round(math.sqrt(area * by) / multiple)) for by in (1 / wide, wide))
    why = "as many pixels as 224 x 224 has" if area == AREA else f"at most {ENLARGED:g} times their own sides"
    yield "image.size", (height, width), f"photos {wide:.2f} times as wide as high, and {why}"


def _frozen(config: ConfigDict, images: Places) -> Iterator[Choice]:
    """What of a published method's backbone rests, where its options say nothing of it."""
    options = config.model.backbone_options.to_dict()
    if config.method and not config.maps.cached and not options.keys() & resting.OPTIONS:
        rest, why = resting.early(model(config).backbone)
        if rest:
            yield "model.backbone_options", {**options, **rest}, why


def _area(config: ConfigDict, images: Places) -> Iterator[Choice]:
    """The area of a head that answers positions."""
    if not config.model.position or "model.position_options.area" not in config.auto:
        return
    at = positions(images)
    yield "model.position_options.metres", at.metres, "images have " + ("metres" if at.metres else "degrees")
    yield "model.position_options.area", area_around(at), f"{len(images):,} images lie in it"


def _gallery(config: ConfigDict, images: Places) -> Iterator[Choice]:
    """How many coordinates the gallery of a head `geoclip` has."""
    if config.model.position != "geoclip" or "model.position_options.size" not in config.auto:
        return
    source = config.model.position_options.get("source", "")
    if source in ("", gallery.OF_TRAINING):
        found, where = gallery.training_gallery(to_learn(config, images)[1]), "different places of the training images"
    else:
        found, where = gallery.table_gallery(config), f"coordinates of {source} in the area"
    yield "model.position_options.size", len(found), where


def _batch(config: ConfigDict, images: Places) -> Iterator[Choice]:
    if config.objective.name == "places":
        return  # P x K
    size = 32 if len(images) < 2_000 else 64
    yield "batch", size, f"{len(images):,} images"


def _partition(config: ConfigDict, images: Places) -> Iterator[Choice]:
    choosers = {"cells": _cells, "eigenplaces": _looks, "places": _places}
    if config.objective.name in choosers:
        yield from choosers[config.objective.name](config, images)


def _cells(config: ConfigDict, images: Places) -> Iterator[Choice]:
    keys, above = config.objective.partition, "objective.partition."
    free = {key: above + key in config.auto for key in ("by", "M", "alpha", "N", "L", "min_images")}
    by, why = _kind(images) if free["by"] else (keys.by, "")
    yield above + "by", by, why
    if by == "place":
        yield above + "min_images", 2, "a class of one image has nothing to be told by"
        return
    M, alpha, least, why = _sides(config, images, by, free)
    yield above + "M", M, why
    yield above + "alpha", alpha, why
    yield above + "min_images", least, why
    N, L, why = _groups(config, images, by, (M, alpha, least), free)
    yield above + "N", N, why
    yield above + "L", L, why
    yield above + "groups", 0, "all of them, so that every image has its turn"


def _kind(images: Places) -> tuple[str, str]:
    if len(np.unique(images.zone[images.located])) > 1 or not images.located.any():
        return "place", "the images lie in several zones of the map, or nowhere on it"
    if np.isfinite(images.heading).all():
        return "cell", "all images have a heading"
    if (images.place >= 0).all():
        return "place", "the data number their places, and not all images have a heading"
    return "square", f"{int(np.isnan(images.heading).sum()):,} images have no heading"


def _cut(images: Places, by: str, M: float, alpha: float, N: int = 1, L: int = 1, least: int = 1):
    if by == "cell":
        return cosplace_cells(images.east, images.north, images.heading, M=M, alpha=alpha, N=N, L=L, min_images=least)
    return square_cells(images.east, images.north, M=M, N=N, min_images=least)


def _sides(config: ConfigDict, images: Places, by: str, free: dict[str, bool]) -> tuple[float, float, int, str]:
    """M, alpha and min_images: the finest cells that keep enough images in classes large enough."""
    keys = config.objective.partition
    pairs = [(M if free["M"] else keys.M, alpha if free["alpha"] else keys.alpha) for M, alpha in SIDES]
    for M, alpha in dict.fromkeys(pairs):
        every = np.diff(_cut(images, by, M, alpha).indptr)
        for least in LEAST if free["min_images"] else (keys.min_images,):
            sizes = every[every >= least]
            kept = sizes.sum() / len(images)
            if kept >= KEPT and np.median(sizes) >= MEDIAN and len(sizes) > config.batch:
                why = f"{len(sizes):,} classes, the median of {np.median(sizes):.0f} images, {kept:.0%} of the images"
                return M, alpha, least, f"the finest cells that keep nine tenths: {why}"
    least = 2 if free["min_images"] else keys.min_images
    why = "no cell size keeps 90 % of the images in classes with a median of 4: there are few images of each place"
    return M, alpha, least, why


def _groups(
    config: ConfigDict, images: Places, by: str, cut: tuple[float, float, int], free: dict[str, bool]
) -> tuple[int, int, str]:
    """N and L: as far apart as leaves every group enough classes."""
    keys, (M, alpha, least) = config.objective.partition, cut
    for N, L in dict.fromkeys((N if free["N"] else keys.N, L if free["L"] else keys.L) for N, L in APART):
        counts = _cut(images, by, M, alpha, N, L, least).counts
        if counts.min() >= FULL * config.batch:
            return N, L, f"groups of {counts.min():,} classes or more, whose neighbours are in others"
    one = "one group: several would have too few classes each"
    return 1 if free["N"] else keys.N, 1 if free["L"] else keys.L, one


def _looks(config: ConfigDict, images: Places) -> Iterator[Choice]:
    """The finest cells of which there are more than a batch has images, and whose median class is large enough."""
    keys, above = config.objective, "objective."
    sides = (7.5, 10.0, 15.0, 20.0) if above + "M" in config.auto else (keys.M,)
    leasts = LEAST[1:] if above + "min_images" in config.auto else (keys.min_images,)
    fixed = {"N": 1, "distance": keys.distance, "turn": keys.turn}
    for M, least in ((M, least) for M in sides for least in leasts):
        cells = _looking(images, M=M, min_images=least, **fixed)
        if cells is not None and len(cells.keys) > config.batch and np.median(np.diff(cells.indptr)) >= MEDIAN:
            why = f"the finest cells of 4 images: {len(cells.keys):,}, which look at {len(cells.rows):,} images"
            break
    else:
        M, least, why = sides[-1], leasts[-1], "no finer cells have 4 images that look at one point"
    yield above + "M", M, why
    yield above + "min_images", least, why
    yield above + "N", 1, "one group: several would have too few classes each"


def _looking(images: Places, **options: Any) -> Cells | None:
    """The lateral classes; None where there are none, which the family explains."""
    columns = images.east, images.north, images.heading, images.time
    try:
        return eigen_classes(*columns, **options)[0].cells
    except DataError:
        return None


def _places(config: ConfigDict, images: Places) -> Iterator[Choice]:
    keys, above = config.objective, "objective."
    by = "near" if images.located.mean() >= 0.5 else "place"
    yield above + "partition.by", by, f"{images.located.mean():.0%} of the images have a position"
    if keys.partition.by == "near":
        yield from _near(config, images)
    else:
        yield above + "min_distance", 0.0, "places by number, of which not all have positions"
    P = _far_apart(images) if keys.partition.by == "near" else len(np.unique(images.place[images.place >= 0]))
    most = keys.P
    P = min(most, max(2, P))
    yield above + "P", P, "places of a batch, which the map has room for" if most > P else "places of a batch"
    yield "batch", keys.P * keys.K, "P x K"


def _near(config: ConfigDict, images: Places) -> Iterator[Choice]:
    """The nearest partners that nine tenths of the images have."""
    keys, above = config.objective, "objective.partition."
    some = images.take(np.flatnonzero(images.located)[:LOOKED_AT])
    blind = not np.isfinite(some.heading).all()
    pairs = [
        (
            radius if above + "radius" in config.auto else keys.partition.radius,
            (180.0 if blind else angle) if above + "angle" in config.auto else keys.partition.angle,
        )
        for radius, angle in NEAR
    ]
    for radius, angle in dict.fromkeys(pairs):
        share = _partnered(some, keys.K, radius, angle)
        if share >= KEPT:
            break
    why = f"{share:.0%} of the images have a partner so near" + " (not all have a heading)" * blind
    yield above + "radius", radius, why
    yield above + "angle", angle, why


def _partnered(images: Places, K: int, radius: float, angle: float) -> float:
    try:
        return len(near_table([images], K=K, radius=radius, angle=angle)) / len(images)
    except DataError:  # none at all
        return 0.0


def _far_apart(images: Places) -> int:
    """How many places a batch surely holds: occupied squares of 50 m."""
    here = images.take(np.flatnonzero(images.located))
    return len(np.unique(np.floor(np.column_stack([here.east, here.north]) / 50).astype(np.int64), axis=0))


def _length(config: ConfigDict, images: Places) -> Iterator[Choice]:
    keys, of_element = config.objective.get("partition", {}), 1
    if config.objective.name in ("positions", "geoclip"):  # an epoch is a pass, in one call
        yield "steps_per_epoch", math.ceil(len(images) / config.batch), f"a pass over {len(images):,} images"
        return
    if config.objective.name == "mined_triplets":
        of_element = 2 + config.objective.negatives
    elif config.objective.name == "eigenplaces":
        of_element = 2  # lateral and frontal
    least, shown = 600 if config.maps.cached else 300, config.batch * of_element
    total = min(500_000, max(least, math.ceil(DRAWS * len(images) / shown)))
    turns = keys.N**2 * keys.get("L", 1) if keys.get("by") in ("cell", "square") and "N" in keys else 1
    epochs = turns * max(1, round(ROUNDS / turns))
    why = f"{total:,} steps: {total * shown / max(len(images), 1):.0f} draws of each image"
    yield "epochs", epochs, why
    steps = math.ceil(total / config.epochs)
    if config.objective.name == "mined_triplets":  # whole plans
        plan = max(1, config.objective.refresh // config.batch)
        steps = plan * math.ceil(steps / plan)
    yield "steps_per_epoch", steps, why


def _rate(config: ConfigDict, images: Places) -> Iterator[Choice]:
    total = config.epochs * config.steps_per_epoch
    rate = next(rate for below, rate in RATES if total < below)
    yield "optimizer.rate", rate, f"a run of {total:,} steps; long ones take small steps"
