"""EigenPlaces: classification of cells by what their images look at (Berton et al., ICCV 2023).

Each step sees images of lateral classes and images of frontal ones, each kind with prototypes of its own: a cell is one
class of either. Plan k trains both kinds of group k mod G.
"""

from __future__ import annotations

import jax
import numpy as np

from data_pipelines.draws import Draw
from data_pipelines.eigen import Views
from data_pipelines.samplers import class_picks
from jaxvpr.objectives.objective import Objective, Plan
from jaxvpr.objectives.prototypes import Prototypes, check_classes, head_start

KINDS = ("lateral", "frontal")


def eigenplaces_objective(
    lateral: Views,
    frontal: Views,
    *,
    batch: int,
    steps: int,
    scale: float = 100.0,
    margin: float = 0.4,
    margin_warmup: float = 0.0,
    weights: tuple[float, float] = (1.0, 1.0),
    head_steps: int = 0,
) -> Objective:
    """CosFace over lateral and over frontal classes: two streams, and two stacked heads that train in the same step.

    Args:
      lateral, frontal: of `eigen_classes`; the same groups of as many classes.
      batch: images of each stream (32 and 32 in the paper), each of another class where the group has enough.
      steps: steps that one group trains before the next.
      scale, margin, margin_warmup: as of `Prototypes`.
      weights: of the lateral and of the frontal loss; the loss is their weighted sum.
      head_steps: so many first steps of a group train its new prototypes alone.

    Raises:
      UserError: for groups of a single class.
      ValueError: for classes that differ in their groups; weights that are not two numbers of at least 0, one above.
    """
    if not np.array_equal(lateral.cells.groups, frontal.cells.groups):
        raise ValueError(
            f"lateral groups of {lateral.cells.counts} classes, but frontal ones of {frontal.cells.counts}"
        )
    if len(weights) != 2 or min(weights) < 0 or max(weights) <= 0:
        raise ValueError(f"weights={weights}: give two numbers, of the lateral and of the frontal loss, not both 0")
    views = dict(zip(KINDS, (lateral, frontal), strict=True))
    check_classes(lateral.cells.counts, lateral.cells.total)
    groups, head = len(lateral.cells), Prototypes(lateral.cells.counts, "cosface", scale, margin, margin_warmup)

    def init(key, dim):
        keys = jax.random.split(key, len(KINDS))
        return {kind: head.init(k, dim) for kind, k in zip(KINDS, keys, strict=True)}, {}

    def plan(index, rng, memory, embed):
        group = index % groups
        draws = {}
        for kind, one in views.items():
            picked, labels = class_picks(one.cells, group, batch=batch, steps=steps, rng=rng)
            draws[kind] = Draw.of_steps(one.cells.rows[picked], labels, one.view[picked])
        return Plan(draws, group, head_start(head_steps, index, groups)), memory

    def loss(extra, aux, outputs, batches, context):
        losses = {kind: head(extra[kind], outputs[kind], batches[kind], context) for kind in KINDS}
        value = weights[0] * losses["lateral"] + weights[1] * losses["frontal"]
        return value, aux, {f"{kind}_loss": one for kind, one in losses.items()}

    return Objective(
        streams=KINDS,
        period=steps,
        plan=plan,
        loss=loss,
        init=init,
        slots=groups,
        by_class=KINDS,
    )
