"""Validation of heads that answer positions: how near their answers are, and the loss of unseen images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from data_pipelines.places import Paths, Places
from jaxvpr import builders
from jaxvpr.models import Variables
from jaxvpr.models.positions import Cells, coding_with
from jaxvpr.retrieval.describer import Describer
from jaxvpr.retrieval.evaluator import Benchmark
from jaxvpr.retrieval.locating import answers
from jaxvpr.retrieval.positions import Taken, distances, errors, summary

Array = np.ndarray
TRAINED = 10_000  # training images that are measured too, evenly chosen


class Validation(NamedTuple):
    """What `Learning` takes of the same names."""

    validate: Callable[[Variables, Any], dict[str, float]]
    measures: Mapping[str, str]
    trials: Mapping[str, int]


class _Set(NamedTuple):
    """Images whose positions are asked for: those of a validation set, or some that train; `at` is normalised."""

    name: str
    images: Paths
    taken: Taken
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
    """Shares of the answers within each of `eval.distances`, their median, the loss, and of cells how many are right
    and how far off the others are: of each validation set's queries, and of training images.

    Args:
      training: the images to train on, within the area.
      loss: as of `objectives.positions.row_loss`; None: none is told.
      rests: whether the model below the head stands still: images are then described once.
    """
    model, coding = builders.model(config), builders.coding_of(config)
    limits = distances(tuple(config.eval.get("distances", ())), coding.area)
    some = training.take(np.unique(np.linspace(0, len(training) - 1, TRAINED).astype(int)))
    sets = [_set(bench.name, bench.queries, coding.area) for bench in benches] + [_set("train", some, coding.area)]
    known: dict[str, tuple[Array, Array]] = {}

    def described(variables: Variables, one: _Set) -> tuple[Array, Array]:
        if one.name not in known or not rests:
            found = describer(variables, one.images)
            known[one.name] = found.descriptors, found.missing
        return known[one.name]

    def validate(variables: Variables, extra: Any) -> dict[str, float]:
        weights, values = tuple(leaf[0] for leaf in extra.values()), dict[str, float]()
        meaning = coding_with(model.position, variables)
        for one in sets:
            descriptors, missing = described(variables, one)
            found = answers(model, variables, descriptors, one.at, loss, weights, meaning)
            figures = summary(errors(coding, one.taken, found.located, missing), limits)
            told = {**figures["within"], "median_m": figures.get("median_m", float("nan"))}
            if loss:
                told["loss"] = float(np.delete(found.losses, missing).mean())
            if cells := figures.get("cells"):
                told |= {"cells": cells["right"], "behind_m": cells.get("median_m_behind_wrong", 0.0)}
            values |= {f"{one.name}/{name}": value for name, value in told.items()}
        return values

    of_cells = {"cells": "max", "behind_m": "min"} if isinstance(coding, Cells) else {}
    better = {**dict.fromkeys(limits, "max"), "median_m": "min", **({"loss": "min"} if loss else {}), **of_cells}
    measures = {f"{one.name}/{name}": kind for one in sets for name, kind in better.items()}
    shares = {f"{one.name}/{name}": len(one.images) for one in sets for name, kind in better.items() if kind == "max"}
    return Validation(validate, measures, shares)


def _set(name: str, images: Places, area: Any) -> _Set:
    at = builders.positions(images)
    return _Set(name, images.path, Taken(at.north, at.east, at.bearing), builders.normalised(area, at))
