"""Published methods in plain PyTorch, at their published sizes, put together from the parity tests' networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from benchmarks import torch_side  # puts the tests' networks on the path

# isort: split
import torch_convs
import torch_heads
import torch_models
import torch_pooling
import torch_vits

RESNETS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "resnet18": (torch_models.BasicBlock, (2, 2, 2, 2)),
    "resnet50": (torch_models.Bottleneck, (3, 4, 6, 3)),
    "resnet101": (torch_models.Bottleneck, (3, 4, 23, 3)),
}


def _resnet(name: str) -> Any:
    block, sizes = RESNETS[name]
    return torch_models.ResNet(block, sizes, (64, 128, 256, 512))


def _cosplace(name: str, channels: int, dim: int) -> nn.Module:
    return torch_models.CosPlaceNet(_resnet(name), channels, dim)


def _vgg() -> nn.Module:
    return nn.Sequential(*list(torch_convs.vgg16().features)[:-2])


def _dinov2(name: str, **options: Any) -> nn.Module:
    return torch_heads.Inside(name, torch_vits.ViT(768, 12, 12, 14, 37, scaled=True), **options)


def _dinov2_bare() -> nn.Module:
    return torch_heads.without_mask_token(torch_vits.ViT(768, 12, 12, 14, 37, scaled=True))


PEERS: dict[str, Callable[[], nn.Module]] = {
    "cosplace-resnet18-512": lambda: _cosplace("resnet18", 512, 512),
    "eigenplaces-resnet50-2048": lambda: _cosplace("resnet50", 2048, 2048),
    "netvlad-vgg16": lambda: torch_pooling.Port(_vgg(), 512, 64),
    "convap-resnet50-4096": lambda: torch_heads.Method(
        torch_heads.torchvision_model(_resnet("resnet50"), 4), torch_heads.ConvAP(2048, 1024, 2, 2)
    ),
    "mixvpr-resnet50-4096": lambda: torch_heads.Method(
        torch_heads.torchvision_model(_resnet("resnet50"), 3), torch_heads.MixVPR(1024, 400, 1024, 4, 4)
    ),
    "salad-dinov2b": lambda: torch_heads.Method(_dinov2("model"), torch_heads.SALAD(768)),
    "boq-resnet50-16384": lambda: torch_heads.Method(
        torch_heads.sequential_model(_resnet("resnet50"), 3), torch_heads.BoQ(1024, 512)
    ),
    "boq-dinov2b-12288": lambda: torch_heads.Method(_dinov2("dino", norm=False), torch_heads.BoQ(768, 384)),
    "megaloc": lambda: torch_heads.Method(_dinov2_bare(), torch_heads.MegaLocHead(768)),
    "cricavpr": lambda: torch_heads.CricaVPR(
        torch_vits.ViT(768, 12, 12, 14, 37, scaled=True, adapters=True), torch_models.GeM()
    ),
}


def network(method: str, tensors: dict[str, Any], channels_last: bool) -> torch_side.Network:
    """A method's network with the tensors that we export under the original's names.

    Raises:
      KeyError: for a method that is not here.
      RuntimeError: where the tensors do not fit, name by name.
    """
    return torch_side.loaded(PEERS[method](), tensors, channels_last)
