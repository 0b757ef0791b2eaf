"""SFRS from a recipe's keys: when its generations begin, what is mined, and the losses."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ml_collections import ConfigDict

from data_pipelines.places import Paths, Places
from jaxvpr import builders
from jaxvpr.errors import UserError
from jaxvpr.families.learning import Learning
from jaxvpr.families.triplets import grounds, in_words, settings
from jaxvpr.objectives.sfrs import sfrs_objective
from jaxvpr.objectives.sfrs_plans import Difficult, sfrs_plan


def from_config(config: ConfigDict, sets: Sequence[Places]) -> Learning:
    """Mined triplets and the similarities that the last generation found, of one data set or several as one."""
    keys, mining = config.objective, settings(config)
    mining.check()
    begins = plans_of_generations(config, mining.steps)
    difficult = Difficult(
        keys.difficult, keys.difficult_pool, keys.reciprocal, begins=begins[1] if len(begins) > 1 else 0
    )
    difficult.check()
    together = grounds(config, sets)
    if len(together) > 1:
        raise UserError(
            f"objective.sets={keys.sets!r}: SFRS mines all data sets as one, which is objective.sets=merged"
        )
    paths = Paths.concat([places.path for places in sets])
    objective = sfrs_objective(
        builders.model(config),
        builders.shapes(config),
        sfrs_plan(together[0], mining, difficult, name_of=paths.__getitem__),
        steps=mining.steps,
        negatives=mining.negatives,
        difficult=difficult.number,
        begins=begins,
        temperatures=tuple(keys.temperatures),
        soft_weight=keys.soft_weight,
        loss=keys.loss,
        options=keys.loss_options.to_dict(),
    )
    return Learning(objective, summary=in_words(together))


def plans_of_generations(config: ConfigDict, steps: int) -> tuple[int, ...]:
    """Numbers of the plans, of `steps` steps each, that generations begin with.

    Raises:
      UserError: for epochs that do not ascend from 0 to one before the last.
    """
    epochs = tuple(config.objective.generations)
    ascending = all(a < b for a, b in pairwise(epochs))
    if not epochs or epochs[0] != 0 or not ascending or epochs[-1] >= config.epochs:
        raise UserError(
            f"objective.generations={epochs} are the epochs that generations begin with: they ascend from 0 to one "
            f"before epochs={config.epochs}"
        )
    return tuple(epoch * config.steps_per_epoch // steps for epoch in epochs)
