"""Joint training on images and clips (Berton, Trivigno, Caputo and Masone, "JIST: Joint Image and Sequence Training for
Sequential Visual Place Recognition", RA-L 2023).

Single images are many and sequences few. So every step shows one model both, a batch of images that are told apart by
place and triplets of clips, and makes one update by the weighted sum of their losses.
"""

from __future__ import annotations

from jaxvpr.errors import UserError
from jaxvpr.objectives.objective import Objective, Plan

STREAMS = ("clips", "images")


def jist_objective(
    images: Objective, clips: Objective, *, weights: tuple[float, float] = (100.0, 10_000.0), dim: int, turn: int = 1
) -> Objective:
    """Two objectives of one model in one step.

    A plan is one of each: clips are mined anew with it, and the images' group changes after `turn` of them. The heads
    are those of the images. The loss is the weighted sum; both parts are logged without their weights.

    Args:
      images: of the stream "source", with its `embed`, such as that of `cells_objective`. It keeps no memory.
      clips: of the stream "source", with an `embed` of its own and no heads, such as that of `triplets_objective`. Its
        plans last as long.
      weights: of the images' loss and of the clips'.
      dim: of the descriptor of an image, for the images' heads; a clip's may have another.
      turn: plans of an epoch.

    Raises:
      UserError: for weights that are not two positive numbers.
      ValueError: for plans of different lengths.
    """
    if len(weights) != 2 or min(weights) <= 0:
        raise UserError(f"objective.weights={weights} must be two numbers above 0, of the images' and the clips' loss")
    if images.period != clips.period:
        raise ValueError(f"plans of images last {images.period} steps, those of clips {clips.period}")
    parts = {"clips": clips, "images": images}

    def plan(index, rng, memory, embed):
        of_clips, memory = clips.plan(index, rng, memory, embed)
        of_images, memory = images.plan(index // turn, rng, memory, embed)
        draws = {"clips": of_clips.draws["source"], "images": of_images.draws["source"]}
        return Plan(draws, of_images.slot, 0 if index % turn else of_images.heads_only), memory

    def loss(extra, aux, outputs, batches, context):
        losses = {}
        for stream, part in parts.items():
            own = {"source": outputs[stream]}, {"source": batches[stream]}
            losses[stream], aux, _ = part.loss(extra, aux, *own, context)
        value = weights[0] * losses["images"] + weights[1] * losses["clips"]
        return value, aux, {f"{stream}_loss": losses[stream] for stream in STREAMS}

    return Objective(
        streams=STREAMS,
        period=clips.period,
        plan=plan,
        loss=loss,
        embed={stream: part.embedding("source") for stream, part in parts.items()},
        init=lambda key, _: images.init(key, dim),
        slots=images.slots,
        by_class=images.by_class,
        images={"clips": clips.images["source"]},
    )
