"""Validation of heads that answer positions: how near their answers are, and the loss of unseen images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from data_pipelines.places import Paths, Places
from jaxvpr import builders
from jaxvpr.errors import UserError
from jaxvpr.models import Variables
from jaxvpr.models.positions import Cells, Coding, coding_with, metres_between
from jaxvpr.retrieval.describer import Describer
from jaxvpr.retrieval.evaluator import Benchmark
from jaxvpr.retrieval.locating import Answers, answers

Array = np.ndarray
TRAINED = 10_000  # training images that are measured too, evenly chosen


class Validation(NamedTuple):
    """What `Learning` takes of the same names."""

    validate: Callable[[Variables, Any], dict[str, float]]
    measures: Mapping[str, str]
    trials: Mapping[str, int]


class _Set(NamedTuple):
    """Images whose positions are asked for: those of a validation set, or some that train."""

    name: str
    images: Paths
    north: Array
    east: Array
    at: Array


def validation(
    config: ConfigDict,
    training: Places,
    benches: Sequence[Benchmark],
    describer: Describer,
    loss: Callable[..., Any] | None,
    *,
    rests: bool,
) -> Validation:
    """Shares of the answers within each of `objective.distances`, their median, the loss, and of cells how many are
    right and how far off the others are: of each validation set's queries, and of training images.

    Args:
      training: the images to train on, within the area.
      loss: as of `objectives.positions.row_loss`; None: none is told.
      rests: whether the model below the head stands still: images are then described once.
    """
    model, coding = builders.model(config), builders.coding_of(config)
    some = training.take(np.unique(np.linspace(0, len(training) - 1, TRAINED).astype(int)))
    sets = [_set(bench.name, bench.queries, coding) for bench in benches] + [_set("train", some, coding)]
    known: dict[str, tuple[Array, Array]] = {}

    def described(variables: Variables, one: _Set) -> tuple[Array, Array]:
        if one.name not in known or not rests:
            found = describer(variables, one.images)
            known[one.name] = found.descriptors, np.isin(np.arange(len(one.images)), found.missing)
        return known[one.name]

    def validate(variables: Variables, extra: Any) -> dict[str, float]:
        weights, values = tuple(leaf[0] for leaf in extra.values()), dict[str, float]()
        meaning = coding_with(model.position, variables)
        for one in sets:
            descriptors, missing = described(variables, one)
            found = answers(model, variables, descriptors, one.at, loss, weights, meaning)
            measured = _measured(config, coding, one, found, missing)
            values |= {f"{one.name}/{key}": value for key, value in measured.items() if key in names}
        return values

    names = _names(config, coding, loss is not None)
    measures = {f"{one.name}/{name}": better for one in sets for name, better in names.items()}
    shares = [name for name, better in names.items() if better == "max"]
    return Validation(validate, measures, {f"{one.name}/{name}": len(one.images) for one in sets for name in shares})


def _set(name: str, images: Places, coding: Coding) -> _Set:
    at = builders.positions(images)
    return _Set(name, images.path, at.north, at.east, builders.normalised(coding.area, at))


def _names(config: ConfigDict, coding: Coding, loss: bool) -> dict[str, str]:
    of_cells = {"cells": "max", "behind_m": "min"} if isinstance(coding, Cells) else {}
    return {
        **dict.fromkeys(distances(config), "max"),
        "median_m": "min",
        **({"loss": "min"} if loss else {}),
        **of_cells,
    }


def _measured(config: ConfigDict, coding: Coding, one: _Set, found: Answers, missing: Array) -> dict[str, float]:
    apart = metres_between(coding.area, found.located.north, found.located.east, one.north, one.east)
    apart = np.where(missing, np.inf, apart)  # an image that cannot be read has no answer
    values = {name: 100.0 * float(np.mean(apart <= metres)) for name, metres in distances(config).items()}
    there = ~missing
    values["median_m"] = float(np.median(apart[there])) if there.any() else float("nan")
    values["loss"] = float(np.mean(found.losses[there])) if there.any() else float("nan")
    if isinstance(coding, Cells):
        right = (found.classes == coding.classes(one.at)) & there
        wrong = apart[there & ~right]
        values["cells"] = 100.0 * float(np.mean(right))
        values["behind_m"] = float(np.median(wrong)) if len(wrong) else 0.0
    return values


def distances(config: ConfigDict) -> dict[str, float]:
    """{name: metres} of the distances within which answers count, such as "25m" and "1km"."""
    found = {}
    for text in config.objective.distances:
        unit = 1000.0 if text.endswith("km") else 1.0
        number = text.removesuffix("km" if unit > 1 else "m")
        try:
            if not text.endswith("m") or not float(number) > 0:
                raise ValueError
        except ValueError as error:
            raise UserError(f"objective.distances={text!r}: expected a distance such as 25m or 1km") from error
        found[text] = unit * float(number)
    return found
