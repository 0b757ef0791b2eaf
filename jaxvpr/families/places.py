"""Metric learning on places from a recipe's keys."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from data_pipelines.clips import Clips, table_of
from data_pipelines.near_batches import NearTable, near_batches, near_table
from data_pipelines.place_table import PlaceTable, place_table
from data_pipelines.places import Places
from jaxvpr import builders
from jaxvpr.errors import UserError
from jaxvpr.families.learning import Learning
from jaxvpr.objectives.place_heads import Choice
from jaxvpr.objectives.place_plans import Cliques
from jaxvpr.objectives.places import BY_NEAR, places_objective

log = logging.getLogger(__name__)
FULL = 0.9  # share of a batch's places, from which on it is as good as full


def from_config(config: ConfigDict, sets: Sequence[Places]) -> Learning:
    """Batches of P places with K images or clips each, of one data set or several; a clip's place is that of its middle
    frame.

    Places are numbered ones, cells of the map, or images that are near each other (`partition.by`).
    """
    keys = config.objective
    if config.accumulate != 1:
        raise UserError(
            f"accumulate={config.accumulate} would compare the images of one part of the batch with each other alone; "
            "metric learning on places needs accumulate=1. grad_cache takes a batch in parts and compares it as a whole"
        )
    if config.batch != keys.P * keys.K:
        raise UserError(f"batch={config.batch} must be objective.P x objective.K = {keys.P} x {keys.K}")
    cliques = keys.cliques.share != 0
    in_cliques, others = _parts(keys.cliques, len(sets)) if cliques else ([], list(range(len(sets))))
    elements = builders.elements(config, sets)
    images = [table_of(one) for one in elements]
    what = "clips" if isinstance(elements[0], Clips) else "images"
    table: PlaceTable | NearTable
    if keys.partition.by == "near":
        table = _near(config, images)
        summary = _in_words(table, what)
    else:
        images = builders.partitioned(config, images)
        table = place_table(images, K=keys.K, of=others)
        summary = f"{len(table):,} places with {keys.K} {what} or more"
    summary += f"; a pass takes {-(-len(table) // keys.P):,} batches"
    objective = places_objective(
        table,
        Choice(keys.loss, keys.miner, keys.loss_options.to_dict(), keys.miner_options.to_dict()),
        P=keys.P,
        steps=config.steps_per_epoch,
        min_distance=keys.min_distance,
        by_city=keys.by_city,
        weights=keys.weights,
        cliques=_cliques(keys, place_table(images, K=1, of=in_cliques)) if cliques else None,
        memory=keys.memory,
        head_steps=keys.head_steps,
    )
    return Learning(objective, elements=elements, partitioned=True, summary=summary)


def _near(config: ConfigDict, images: Sequence[Places]) -> NearTable:
    keys = config.objective
    if keys.cliques.share:
        raise UserError(
            f"objective.cliques.share={keys.cliques.share:g} needs places that the data have beside the cliques, but "
            f"{BY_NEAR}. Take objective.cliques.share=0, or objective.partition.by=cell"
        )
    builders.refuse_partitions(config, "objective.partition.by='near'")
    table = near_table(images, K=keys.K, radius=keys.partition.radius, angle=keys.partition.angle)
    tried = near_batches(table, P=keys.P, steps=10, rng=np.random.default_rng(0), min_distance=keys.min_distance)
    if tried.mask.mean() < FULL:
        log.warning(
            "a batch has room for %d of objective.P=%d places that are %g m from each other; the rest of it is blank. "
            "Lower P (and batch) or min_distance", tried.mask.mean() * keys.P, keys.P, keys.min_distance,
        )  # fmt: skip
    return table


def _in_words(table: NearTable, what: str) -> str:
    others = f"{table.K - 1} other{'s' * (table.K > 2)}"
    turned = f" and {table.angle:g} degrees" if table.angle < 180 else ""
    left = f"{table.lonely:,} {what} have fewer" + f", {table.lost:,} no position" * bool(table.lost)
    return f"{len(table):,} {what} with {others} or more within {table.radius:g} m{turned}; {left}"


def _parts(keys: ConfigDict, count: int) -> tuple[list[int], list[int]]:
    """The data sets that cliques come from, and those that the other places of a batch do."""
    if any(number not in range(count) for number in keys.sets):
        raise UserError(
            f"objective.cliques.sets={tuple(keys.sets)} must number data sets from 0 (train_data) to {count - 1}"
        )
    every = list(range(count))
    return list(keys.sets) or every, [number for number in every if keys.sets and number not in keys.sets] or every


def _cliques(keys: ConfigDict, table: PlaceTable) -> Cliques:
    options = keys.cliques.to_dict()
    share, _ = options.pop("share"), options.pop("sets")
    if not 1 <= round(share * keys.P) <= keys.P or options["refresh"] < 1:
        raise UserError(
            f"objective.cliques: share={share} of objective.P={keys.P} places must make 1 to {keys.P} cliques, and "
            f"refresh={options['refresh']} be at least 1; share=0 is none"
        )
    log.info(
        "%d of the %d places of a batch are cliques, found among %d places", round(share * keys.P), keys.P, len(table)
    )
    return Cliques(table, round(share * keys.P), **options)
