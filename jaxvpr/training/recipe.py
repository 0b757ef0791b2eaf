"""What the training loop is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxvpr.objectives.objective import Embed, Objective
from jaxvpr.training.state import Variables


class Recipe(NamedTuple):
    """What is trained on what.

    Attributes:
      model: a `PlaceModel`.
      objective: what it draws and learns.
      sources: {stream: where its images come from}.
      example: an input of the model with a batch of one, to initialise it with.
      start: fills freshly initialised variables with the weights the run starts from.
      embed: variables -> what describes training images by them, for objectives that mine.
      validate: variables -> {measure: value in per cent}; config.best says which of them
        decides which checkpoint is best.
      frozen: patterns of parameter paths that rest, on top of those of the recipe's key `frozen`.
    """

    model: Any
    objective: Objective
    sources: Mapping[str, Any]
    example: np.ndarray
    start: Callable[[Variables], Variables]
    embed: Callable[[Variables], Embed]
    validate: Callable[[Variables], dict[str, float]]
    frozen: tuple[str, ...] = ()


class Outcome(NamedTuple):
    """What a run ends with.

    Attributes:
      best, initial: variables of the best step in validation, and those the run started from.
      best_step: which step that is.
      finished: False where the run was told to leave before its end; a run that stopped early is finished.
      seconds: of training and validation, summed over the parts of an interrupted run.
      planning_seconds: those of them that making plans took: mining, and describing images for it.
    """

    best: Variables
    initial: Variables
    best_step: int
    finished: bool
    seconds: float
    planning_seconds: float
