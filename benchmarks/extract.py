"""Images described a second: our compiled forward pass beside the same network, with the same weights, in PyTorch.

Both get uint8 images that lie in memory, normalise them, and give float32 descriptors. Rounds are interleaved, the
first of each is not timed, and the largest difference between the descriptors is reported. PyTorch runs in inference
mode on the channels-last layout that the images have anyhow.

  python -m benchmarks.extract --out benchmarks/results/extract.json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
import torch.nn.functional as F

from jaxvpr import weights
from jaxvpr.models import build
from jaxvpr.models.place_model import IMAGENET_MEAN, IMAGENET_STD

# name -> (backbone, its options, pixels, batch)
CASES: dict[str, tuple[str, dict[str, Any], int, int]] = {
    "small, 64 px": ("resnet_small", {}, 64, 64),
    "resnet18 to layer4, 224 px": ("resnet18", {}, 224, 16),
    "resnet50 to layer4, 224 px": ("resnet50", {}, 224, 8),
}
Tensors = dict[str, torch.Tensor]


def torch_describe(tensors: Tensors, small: bool, images: torch.Tensor) -> torch.Tensor:
    """CosPlace in PyTorch from its own parameter names; uint8 [B, H, W, 3] to unit descriptors [B, D]."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    x = (images.permute(0, 3, 1, 2).float() / 255 - mean) / std
    x = F.relu(_conv_norm(tensors, "backbone.0", "backbone.1", x, 2))
    x = x if small else F.max_pool2d(x, 3, 2, 1)
    for stage in range(4, 8):
        blocks = {name.split(".")[2] for name in tensors if name.startswith(f"backbone.{stage}.")}
        for block in range(len(blocks)):
            x = _block(tensors, f"backbone.{stage}.{block}", x, 2 if stage > 4 and block == 0 else 1)
    p = tensors["aggregation.1.p"]
    x = F.normalize(x).clamp(min=1e-6).pow(p).mean((2, 3)).pow(1 / p)
    return F.normalize(F.linear(x, tensors["aggregation.3.weight"], tensors["aggregation.3.bias"]))


def _block(tensors: Tensors, name: str, x: torch.Tensor, stride: int) -> torch.Tensor:
    bottleneck = f"{name}.conv3.weight" in tensors
    y = F.relu(_conv_norm(tensors, f"{name}.conv1", f"{name}.bn1", x, 1 if bottleneck else stride))
    y = _conv_norm(tensors, f"{name}.conv2", f"{name}.bn2", y, stride if bottleneck else 1)
    if bottleneck:
        y = _conv_norm(tensors, f"{name}.conv3", f"{name}.bn3", F.relu(y), 1)
    if f"{name}.downsample.0.weight" in tensors:
        x = _conv_norm(tensors, f"{name}.downsample.0", f"{name}.downsample.1", x, stride)
    return F.relu(y + x)


def _conv_norm(tensors: Tensors, conv: str, norm: str, x: torch.Tensor, stride: int) -> torch.Tensor:
    kernel = tensors[f"{conv}.weight"]
    x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
    mean, var, scale, bias = (tensors[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, scale, bias)


def measure(case: str, rounds: int) -> dict[str, Any]:
    """Median images a second of both, and the largest difference of their descriptors."""
    backbone, options, pixels, batch = CASES[case]
    model = build(backbone=backbone, aggregator="cosplace", backbone_options=options)
    images = np.random.default_rng(0).integers(0, 256, (batch, pixels, pixels, 3), np.uint8)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    tensors = {name: torch.from_numpy(np.array(t)) for name, t in weights.to_torch("cosplace", variables).items()}
    apply, there = jax.jit(model.apply), torch.from_numpy(images)
    runs: dict[str, Callable[[], np.ndarray]] = {
        "jaxvpr": lambda: np.asarray(apply(variables, images)),
        "pytorch": lambda: torch_describe(tensors, backbone == "resnet_small", there).numpy(),
    }
    with torch.inference_mode():
        difference = float(np.abs(runs["jaxvpr"]() - runs["pytorch"]()).max())
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                began = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - began)
    rates = {name: round(batch / statistics.median(spent), 1) for name, spent in times.items()}
    return {"case": case, "batch": batch, "images_per_second": rates, "largest_difference": difference}


def main() -> None:
    """Measures every case, prints it, and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cases", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results = []
    for case in arguments.cases:
        results.append(measure(case, arguments.rounds))
        print(json.dumps(results[-1]), flush=True)
    machine = {
        "processor": platform.processor() or platform.machine(),
        "device": jax.devices()[0].device_kind,
        "torch_threads": torch.get_num_threads(),
        "jax": jax.__version__,
        "torch": torch.__version__,
    }
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
