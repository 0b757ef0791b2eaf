"""What a family hands over, and how the parts that it leaves out are filled in for families of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data_pipelines.clips import Clips
from data_pipelines.places import Paths, Places
from data_pipelines.sources import Source
from jaxvpr import builders, models
from jaxvpr.errors import UserError
from jaxvpr.models import Variables
from jaxvpr.objectives.objective import Embed, Objective
from jaxvpr.retrieval.classes import ClassPlaces, unfit
from jaxvpr.retrieval.describer import Describer
from jaxvpr.retrieval.evaluator import Benchmark, measure
from jaxvpr.training import early_stop
from jaxvpr.training.recipe import Recipe


class Learning(NamedTuple):
    """What a family learns from. All but the objective may be left out: it is then that of a family of images.

    Attributes:
      objective: what is drawn and learned. Its rows number what its sources hold.
      sources: {stream: where its rows are read}; the training images of all sets, one after the other, augmented.
      tables: as `Recipe.tables`; none.
      model: what is trained; the recipe's `PlaceModel`. A family with another one gives `start` and `validate` too, and
        its run is not measured on `test_data`, whose images that model may not even take.
      example: an input of the model with a batch of one, an array or a tree of them; a blank image.
      start: fills freshly initialised variables with the weights to start from; those of the recipe's `init`.
      embed: variables -> what describes training rows by them, for plans that mine; descriptors of training images.
      validate: (variables, trained heads) -> {measure: value}; recalls of the recipe's `val_data`.
      measures: {each measure that `validate` gives: "max" or "min", what is better}; any may be `best.measure`.
      validator: (validation sets, what describes images) -> `validate`, `measures` and the `trials` of a `Recipe`, in
        place of the two above.
      frozen: patterns of parameter paths that do not train; those that the model's options freeze.
      classes: where the classes of the heads lie, for `eval.localize`; nowhere.
      summary: what the family made of the images in one line, such as "8 groups of 39 to 50 classes, 7,356 images".
      partitioned: whether the family looked at the partitions that data sets have of their own; one is refused else.
      elements: what its rows number, of all sets, where those may be clips (`builders.elements`); images, and clips are
        refused.
    """

    objective: Objective
    sources: Mapping[str, Source] | None = None
    tables: Mapping[str, Mapping[str, np.ndarray]] | None = None
    model: Any = None
    example: Any = None
    start: Callable[[Variables], Variables] | None = None
    embed: Callable[[Variables], Embed] | None = None
    validate: Callable[[Variables, Any], dict[str, float]] | None = None
    measures: Mapping[str, str] | None = None
    validator: Callable[[list[Benchmark], Describer], Any] | None = None
    frozen: tuple[str, ...] | None = None
    classes: ClassPlaces | None = None
    summary: str = ""
    partitioned: bool = False
    elements: Sequence[Places] | Sequence[Clips] | None = None


def complete(
    config: ConfigDict,
    learning: Learning,
    sets: Sequence[Places],
    over: Mesh,
    validation: list[Benchmark],
    describer: Describer | None = None,
) -> Recipe:
    """What the loop trains: the family's parts, and those of a family of images for the rest.

    Args:
      describer: of training and validation images; the recipe's.

    Raises:
      UserError: for keys that the family cannot serve.
    """
    own = learning.model is not None
    if own and (learning.start is None or learning.validate is None):
        raise ValueError(
            "a family with a model of its own says how it starts and is validated: give start and validate"
        )
    model = learning.model if own else builders.model(config)
    describer = describer or builders.describer(config, over)
    if not learning.partitioned:
        builders.refuse_partitions(config)
    if learning.elements is None:
        builders.refuse_clips(config)
    _check_classes(config, learning.classes, validation)
    if learning.validator:
        own_measures = learning.validator(validation, describer)
        learning = learning._replace(validate=own_measures.validate, measures=own_measures.measures)
        trials = dict(own_measures.trials)
    else:
        trials = {} if learning.measures else _trials(config, validation, learning.classes)
    measures = learning.measures or dict.fromkeys(trials, "max")
    if measures:
        early_stop.deciding(measures, config.best.measure)
    frozen = getattr(model, "frozen_paths", tuple)() if learning.frozen is None else learning.frozen
    elements, objective = learning.elements or sets, learning.objective.embedding_with(model)
    if not own and models.clip_length(model):  # heads are as long as descriptors of batches, not of the example
        frames = elements[0].length if isinstance(elements[0], Clips) else 0
        objective = objective._replace(init=partial(_init, objective, builders.descriptor_size(config, frames)))
    shown, sources = builders.shown(elements), learning.sources
    if sources is None:
        sources = dict.fromkeys(learning.objective.streams, builders.training_source(config, elements))
    return Recipe(
        model=model,
        objective=objective,
        sources=sources,
        example=builders.blank(config) if learning.example is None else learning.example,
        start=learning.start
        or (
            lambda drawn: builders.initial_variables(
                config, drawn=drawn, images=lambda: sets[0].path, frozen=(*config.frozen, *frozen)
            )
        ),
        embed=learning.embed or partial(_embed, describer, shown),
        validate=learning.validate or partial(_validate, describer, validation, config, learning.classes, over),
        measures=measures,
        trials=trials,
        images=shown,
        frozen=frozen,
        own_model=own,
        classes=learning.classes,
        tables=learning.tables or {},
        summary=learning.summary,
    )


def _init(objective: Objective, width: int, key: jax.Array, dim: int) -> tuple[Any, Any]:
    return objective.init(key, width)


def _check_classes(config: ConfigDict, classes: ClassPlaces | None, validation: Sequence[Benchmark]) -> None:
    if config.eval.localize and classes is None:
        raise UserError(
            "config.eval.localize=True answers with trained classes of places, as those of objective.name='cells'; "
            f"objective.name={config.objective.name!r} with domain.method={config.domain.method!r} trains none. Set "
            "eval.localize=false"
        )
    if classes and "LR@" in config.best.measure:
        for bench in validation:
            if why := unfit(classes.places, bench.queries, tuple(bench.positives)):
                raise UserError(f"config.best.measure={config.best.measure!r}: val_data.{bench.name} has none, {why}")


def _trials(config: ConfigDict, validation: Sequence[Benchmark], classes: ClassPlaces | None) -> dict[str, int]:
    """The recalls that validation measures, each with the number of its queries."""
    kinds = ("R", "LR") if classes else ("R",)
    return {
        f"{bench.name}/{kind}@{n}": len(bench.queries)
        for bench in validation
        for kind in kinds
        for n in builders.recall_ns(config, bench)
    }


def _embed(describer: Describer, shown: Paths | Clips, variables: Variables) -> Embed:
    return Embed(
        rows=lambda rows: describer(variables, shown.take(rows)).descriptors,
        on_mesh=lambda rows: describer.on_mesh(variables, shown.take(rows)),
    )


def _validate(
    describer: Describer,
    validation: list[Benchmark],
    config: ConfigDict,
    places: ClassPlaces | None,
    over: Mesh,
    variables: Variables,
    extra: Any,
) -> dict[str, float]:
    """Recall at the first threshold of every validation set, `<set>/R@<N>` in per cent; with classes that lie in
    `places` also how often they localise, `<set>/LR@<N>`."""
    classes = places.database(extra, over) if places else None
    where, score, values = builders.where(config), builders.score(config), dict[str, float]()
    for bench in validation:
        ns = builders.recall_ns(config, bench)
        found = measure(describer, variables, bench, ns, classes=classes, where=where, score=score)
        for name, recalls in (("R", found.recalls), ("LR", found.located)):
            for first in list(recalls.values())[:1]:
                values |= {f"{bench.name}/{name}@{n}": value for n, value in first.of_all.items()}
    return values
