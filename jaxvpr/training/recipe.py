"""What the training loop is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.clips import Clips
from data_pipelines.places import Paths
from data_pipelines.sources import Source
from jaxvpr.models import Variables
from jaxvpr.objectives.objective import Embed, Objective
from jaxvpr.retrieval.classes import ClassPlaces


class Recipe(NamedTuple):
    """What is trained on what.

    Attributes:
      model: a `PlaceModel`.
      objective: what it draws and learns.
      sources: {stream: where its rows are read}.
      tables: {stream: {name: array [N, ...]}} of what lies on the devices for each of a stream's N rows: a batch has
        those of its rows, beside what its source reads.
      example: an input of the model with a batch of one, an array or a tree of them, to initialise it with.
      start: fills freshly initialised variables with the weights the run starts from.
      embed: variables -> what describes training images by them, for objectives that mine.
      validate: (variables, trained heads as they lie on the devices) -> {measure: value}; `config.best` names the one
        that decides which checkpoint is best.
      measures: {measure: "max" or "min", what is better}; one that is not there is better the higher it is.
      trials: {measure: how many queries it is a share of}, of those that are one in per cent; they get an interval.
      images: what PCA is fitted on.
      frozen: patterns of parameter paths that do not train, beside those of the recipe's key `frozen`.
      own_model: whether the model is the family's, not the one that the recipe's keys describe.
      classes: where the classes of the heads lie on the map, for recipes that localise by classification: the run then
        ends with the heads of its best step too.
      summary: what the family made of the images, in one line.
      ready: (variables that the run starts from) -> the recipe that is trained, where something has to be computed with
        them first: features of a frozen backbone, which its sources read. Until then these give zeros.
    """

    model: Any
    objective: Objective
    sources: Mapping[str, Source]
    example: Any
    start: Callable[[Variables], Variables]
    embed: Callable[[Variables], Embed]
    validate: Callable[[Variables, Any], dict[str, float]]
    images: Paths | Clips
    measures: Mapping[str, str] = MappingProxyType({})
    trials: Mapping[str, int] = MappingProxyType({})
    frozen: tuple[str, ...] = ()
    own_model: bool = False
    classes: ClassPlaces | None = None
    tables: Mapping[str, Mapping[str, np.ndarray]] = MappingProxyType({})
    summary: str = ""
    ready: Callable[[Variables], Recipe] | None = None


class Outcome(NamedTuple):
    """What a run ends with.

    Attributes:
      best, initial: variables of the best step in validation, and those the run started from.
      best_step: which step that is.
      finished: False where the run was stopped before its end; a run that stopped early is finished.
      seconds: of training and validation, summed over the parts of an interrupted run.
      planning_seconds: those of them that making plans took: mining, and describing images for it.
      extra: heads of the best step, on the host; None unless the recipe has `classes`.
    """

    best: Variables
    initial: Variables
    best_step: int
    finished: bool
    seconds: float
    planning_seconds: float
    extra: Any = None
