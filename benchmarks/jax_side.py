"""Our side of the comparisons: the weights of a recipe's model, written for the other side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxvpr import models, weights


def export(variables: dict[str, Any], file: Path, method: str = "", **further: np.ndarray) -> None:
    """Writes a model's tensors under the originals' names, and `further` beside them.

    A published method has names for everything.

    CosPlace's head has no name for the batch normalisation that the embedded city's recipe adds; the peer has it as
    the fifth module of the head.
    """
    if method:
        weights.write(file, weights.to_torch(models.describe(method).family, jax.device_get(variables)))
        return
    params, stats = (dict(jax.device_get(variables.get(part, {}))) for part in ("params", "batch_stats"))
    norm = {}
    if "norm" in params["aggregator"]:
        norm = dict(params["aggregator"]["norm"]) | dict(stats["aggregator"]["norm"])
        params["aggregator"] = {name: part for name, part in params["aggregator"].items() if name != "norm"}
        stats.pop("aggregator")
    family = "cosplace" if "conv1" in params["backbone"] else "torchvision_squeezenet"
    tensors = weights.to_torch(family, {"params": params, "batch_stats": stats})
    names = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    tensors |= {f"aggregation.4.{names[leaf]}": np.asarray(value) for leaf, value in norm.items()}
    if norm:
        tensors["aggregation.4.num_batches_tracked"] = np.zeros((), np.int64)
    weights.write(file, {**tensors, **further}, {})
