"""Cell classification: CosPlace's groups of classes, and any other partition into classes.

Plan k trains group k mod G with that group's own prototypes [Berton et al., CVPR 2022]: two cells of one group are
never neighbours, so that no class has a near twin among the negatives.
"""

from __future__ import annotations

from data_pipelines.draws import Draw
from data_pipelines.partitions import Cells
from data_pipelines.samplers import Owners, class_batches
from jaxvpr.errors import UserError
from jaxvpr.objectives.objective import Objective, Plan
from jaxvpr.objectives.prototypes import Prototypes, check_classes, head_start

LOSSES = ("arcface", "cosface", "easy_arcface")


def cells_objective(
    cells: Cells,
    *,
    batch: int,
    steps: int,
    loss: str = "cosface",
    scale: float = 30.0,
    margin: float = 0.4,
    margin_warmup: float = 0.0,
    head_steps: int = 0,
    owners: Owners | None = None,
) -> Objective:
    """Classification of cells with a margin softmax over stacked, class-sharded prototypes.

    Args:
      cells: groups of classes, each with its images.
      batch: images in a global batch; each is of another class where the group has enough.
      steps: steps that one group trains before the next.
      loss: a name in `LOSSES`.
      scale, margin, margin_warmup: as of `Prototypes`; CosPlace's scale is 30 and its margin 0.4.
      head_steps: so many first steps of a group train its new prototypes alone.
      owners: hosts that each hold images of their own; None where all hold all.

    Raises:
      UserError: for an unknown loss, or groups of a single class.
    """
    if loss not in LOSSES:
        raise UserError(f"objective.loss={loss!r} does not exist; there are {list(LOSSES)}")
    check_classes(cells.counts, cells.total)
    head = Prototypes(cells.counts, loss, scale, margin, margin_warmup)

    def init(key, dim):
        return {"prototypes": head.init(key, dim)}, {}

    def plan(index, rng, memory, embed):
        group = index % len(cells)
        draw = Draw.of_steps(*class_batches(cells, group, batch=batch, steps=steps, rng=rng, owners=owners))
        return Plan({"source": draw}, group, head_start(head_steps, index, len(cells))), memory

    def loss_of(extra, aux, outputs, batches, context):
        return head(extra["prototypes"], outputs["source"], batches["source"], context), aux, {}

    return Objective(
        streams=("source",),
        period=steps,
        plan=plan,
        loss=loss_of,
        init=init,
        slots=len(cells),
        by_class=("prototypes",),
    )
