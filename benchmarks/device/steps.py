"""Training steps: ours, and PyTorch's as published and at its best."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks import places_step, side_by_side, train_step
from benchmarks.device.runner import At
from benchmarks.device.timing import rates

CALLS = 10
# Recipes of the papers. Random weights, noise for images and constant rates: nothing of that changes what a step costs.
CASES: dict[str, Any] = {
    "cosplace": train_step.Case(
        "configs/cosplace.py:sf_xl", {"model.backbone": "resnet50", "image.size": (512, 512), "batch": 128}, 6000, 6, 0
    ),
    "salad": places_step.CASES["salad 60x4, 224 px"],
    "mixvpr": places_step.CASES["mixvpr 120x4, 320 px"],
}
TINY: dict[str, Any] = {
    "cosplace": train_step.CASES["tiny"],
    "salad": places_step.CASES["tiny salad"],
    "mixvpr": places_step.CASES["tiny mixvpr"],
}
# What the authors' code computes in unless told otherwise: CosPlace offers mixed precision by a flag, MixVPR and SALAD
# train in Lightning's 16-bit mode.
PUBLISHED = {"cosplace": "float32", "salad": "float16", "mixvpr": "float16"}
PRECISE, ROUNDED, ATTENTION = "heads at the highest precision", "heads rounded to bfloat16", "attention by XLA"
# What a variant changes in the recipe.
VARIANTS = {PRECISE: {"train_precision": "highest"}, ROUNDED: {"train_precision": "BF16_BF16_F32"}}


def _prepared(name: str, dtype: str, at: At, variant: str = "") -> tuple[Any, Any, Any, dict[str, np.ndarray]]:
    """The benchmark that a case belongs to, the case, its recipe and its batch."""
    case = (TINY if at.tiny else CASES)[name]
    case = case._replace(changes={**case.changes, **VARIANTS.get(variant, {})})
    module = train_step if isinstance(case, train_step.Case) else places_step
    config = module.recipe(case, dtype)
    return module, case, config, module.batch_of(case, config)


def ours(name: str, dtype: str, variant: str, at: At) -> dict[str, Any]:
    """The training loop's step. The plain one writes the weights that PyTorch's sides start from.

    Args:
      variant: "", ATTENTION, or one of `VARIANTS`.
    """
    import jax

    from benchmarks import jax_side
    from benchmarks.device import program
    from jaxvpr.models import attention
    from jaxvpr.training.step import Turn

    module, case, config, batch = _prepared(name, dtype, at, variant)
    weights = at.folder / (f"{name}.safetensors" if not variant else "unused.safetensors")
    training = module.jaxvpr_training(case, config, weights)
    there = jax_side.to_global(training.mesh, batch)
    arguments = training.state, {"source": there}, Turn(np.int32(0))
    with patch.object(attention, "HEAD_DIM", 0) if variant == ATTENTION else nullcontext():
        traced = training.step.trace(*arguments)
    work = program.flops(traced.jaxpr)
    start = jax_side.starter(training._replace(step=traced.lower().compile()))
    made: list[dict[str, jax.Array]] = []

    def one(sent: bool) -> None:
        made.append(start(jax_side.to_global(training.mesh, batch) if sent else there))

    calls = 2 if at.tiny else CALLS
    figures = rates(lambda: one(False), lambda: one(True), lambda: jax.block_until_ready(made), config.batch, calls)
    image_work = {kind: round(count / config.batch / 1e9, 3) for kind, count in work.items()}
    figures |= {"batch": config.batch, "dtype": dtype, "first_loss": made[0]["loss"].item()}
    figures |= {"peak_mib": side_by_side.peak_mib(), "gflop_per_image": round(sum(image_work.values()), 3)}
    return figures | {
        "gflop_per_image_by_type": image_work,
        "wrong": "" if made[-1]["ok"].item() else "the last step was refused: its loss or a gradient is not finite",
    }


def pytorch(name: str, best: bool, at: At) -> dict[str, Any]:
    """The same step in PyTorch.

    Args:
      best: channels last, bfloat16, `torch.compile` and TF32, instead of eager, in the authors' layout and precision.

    Raises:
      FileNotFoundError: where our side has not written the weights.
    """
    import torch

    from benchmarks import torch_places, torch_side

    dtype = "bfloat16" if best else PUBLISHED[name]
    module, case, config, batch = _prepared(name, "float32", at)
    torch.backends.cudnn.benchmark = True
    training = module.pytorch_training(case, config, at.folder / f"{name}.safetensors", channels_last=best)
    if best:
        training = training._replace(network=torch_side.at_its_best(training.network, at.tiny))
    start, where = torch_side.starter(training, batch["label"], dtype), torch_side.device()
    losses: list[torch.Tensor] = []
    there, image = torch_side.placed(batch["image"])

    def one(images: torch.Tensor) -> None:
        losses.append(start(images))

    figures = rates(
        lambda: one(there),
        lambda: one(image.to(where, non_blocking=True)),
        torch_side.wait,
        config.batch,
        2 if at.tiny else CALLS,
    )
    figures |= {"batch": config.batch, "dtype": dtype, "first_loss": losses[0].item(), **training.facts}
    return figures | {"peak_mib": torch_places.peak_mib(), "channels_last": best, "compiled": best}
