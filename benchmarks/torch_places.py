"""Metric learning on places in plain PyTorch: MixVPR, SALAD, and the loss that both are trained with."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import torch_side  # puts the tests' networks on the path

# isort: split
import torch_heads
import torch_vits

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d)
# Of GSV-Cities and all that followed it: alpha and beta of the loss, the miner's margin. The base is 0.
ALPHA, BETA, EPSILON = 1.0, 50.0, 0.1


class SALAD(torch_heads.SALAD):
    """With Sinkhorn's algorithm on logarithms in float32, as one trains it; no dropout."""

    def forward(self, features: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        x, token = features
        local, scores = self.cluster_features(x).flatten(2), self.score(x).flatten(2).float()
        clusters, cells = scores.shape[1:]
        scores = torch.cat([scores, self.dust_bin.expand(len(x), 1, cells)], 1)
        mass = torch.zeros(1, clusters + 1, device=x.device)
        mass[:, -1] = float(np.log(cells - clusters))
        down = torch.zeros(len(x), cells, device=x.device)
        for _ in range(3):
            across = mass - torch.logsumexp(scores + down[:, None], 2)
            down = -torch.logsumexp(scores + across[:, :, None], 1)
        shares = torch.exp(scores + across[:, :, None] + down[:, None])[:, :-1]
        sums = local @ shares.transpose(1, 2).to(local.dtype)
        parts = [F.normalize(self.token_features(token)), F.normalize(sums, dim=1).flatten(1)]
        return F.normalize(torch.cat(parts, 1))


def network(
    model: dict[str, Any], tensors: dict[str, Any], trained: str, channels_last: bool
) -> tuple[torch_side.Network, list[nn.Parameter]]:
    """The network of a recipe's `config.model` in training mode, and its parameters that train.

    Args:
      model: with the aggregator mixvpr or salad, and every option of theirs that has no default here.
      tensors: that we export under the originals' names.
      trained: pattern that the names of these parameters begin with; the others rest, as the original code has it.

    Raises:
      KeyError: for a backbone or aggregator that is not here.
      RuntimeError: where the tensors do not fit, name by name.
    """
    made = torch_side.loaded({"mixvpr": _mixvpr, "salad": _salad}[model["aggregator"]](model), tensors, channels_last)
    made = made.to(torch_side.device()).train()
    for name, parameter in made.described.named_parameters():
        parameter.requires_grad_(re.match(trained, name) is not None)
    for module in made.modules():
        if isinstance(module, BATCH_NORM) and model["backbone_options"].get("frozen_bn") == "all":
            module.eval()
    return made, [parameter for parameter in made.parameters() if parameter.requires_grad]


def _mixvpr(model: dict[str, Any]) -> nn.Module:
    head, widths = model["aggregator_options"], model["backbone_options"].get("widths")
    stages = int(model["backbone_options"]["cut"].removeprefix("layer"))
    resnet = torch_heads.torchvision_model(torch_side.resnet(model["backbone"], widths), stages)
    channels = torch_side.channels(model["backbone"], widths, stages)
    cells = int(np.prod(head["cells"]))
    return torch_heads.Method(
        resnet, torch_heads.MixVPR(channels, cells, head["dim"], head["rows"], head.get("depth", 4))
    )


# width, depth, heads, side of the position embeddings
DINOV2 = {"dinov2_vits14": (384, 12, 6, 37), "dinov2_vitb14": (768, 12, 12, 37)}


def _salad(model: dict[str, Any]) -> nn.Module:
    options, head = model["backbone_options"], model["aggregator_options"]
    named = dict(zip(("width", "depth", "heads", "side"), DINOV2[model["backbone"]], strict=True))
    width, depth, heads, side = (options.get(name, usual) for name, usual in named.items())
    backbone = torch_heads.Inside("model", torch_vits.ViT(width, depth, heads, 14, side, scaled=True))
    sizes = (head["clusters"], head["cluster_dim"], head["token_dim"], head.get("hidden", 512))
    made = torch_heads.Method(backbone, SALAD(width, *sizes))
    for module in made.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return made


def optimiser(trained: list[nn.Parameter], keys: dict[str, Any]) -> torch.optim.Optimizer:
    """A recipe's `config.optimizer` at its constant rate: sgd or adamw.

    Raises:
      KeyError: for another one.
    """
    shared = {"lr": keys["rate"], "weight_decay": keys["weight_decay"], "fused": True}
    options = keys["options"]  # their defaults are torch's
    betas = (options.get("b1", 0.9), options.get("b2", 0.999))
    makers: dict[str, Callable[[], torch.optim.Optimizer]] = {
        "sgd": lambda: torch.optim.SGD(trained, momentum=keys["momentum"], **shared),
        "adamw": lambda: torch.optim.AdamW(trained, betas=betas, eps=options.get("eps", 1e-8), **shared),
    }
    return makers[keys["name"]]()


def loss() -> tuple[str, Loss]:
    """The multi-similarity loss with its miner, and whose: pytorch-metric-learning's where that is installed, or else
    that of this file."""
    if find_spec("pytorch_metric_learning") is None:
        return "plain PyTorch", multi_similarity
    from pytorch_metric_learning import distances, losses, miners

    compute = losses.MultiSimilarityLoss(ALPHA, BETA, 0.0, distance=distances.DotProductSimilarity())
    mine = miners.MultiSimilarityMiner(EPSILON, distance=distances.CosineSimilarity())
    return "pytorch-metric-learning", lambda descriptors, labels: compute(
        descriptors, labels, mine(descriptors, labels)
    )


def multi_similarity(descriptors: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The same from the paper (Wang et al., CVPR 2019), on masks."""
    similarity, same = descriptors @ descriptors.T, labels[:, None] == labels[None]
    positive, negative = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device), ~same
    still = similarity.detach()
    farthest = still.masked_fill(~positive, torch.inf).amin(1, keepdim=True)
    nearest = still.masked_fill(~negative, -torch.inf).amax(1, keepdim=True)
    positive, negative = positive & (still - EPSILON < nearest), negative & (still + EPSILON > farthest)

    def soft(exponent: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        return torch.log1p(torch.where(keep, exponent, -torch.inf).exp().sum(1))

    return (soft(-ALPHA * similarity, positive) / ALPHA + soft(BETA * similarity, negative) / BETA).mean()


def peak_mib() -> float | None:
    """Most memory that PyTorch has held on the GPU, in MiB; None where there is none."""
    return round(torch.cuda.max_memory_allocated() / 2**20, 1) if torch.cuda.is_available() else None
