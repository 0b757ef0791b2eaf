"""The networks of our recipes in plain PyTorch, put together from those that the parity tests compare ours with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "weights"))

import torch_models as plain

# The block, how many of them a stage has, and the width of each stage.
RESNETS: dict[str, tuple[Any, tuple[int, ...], tuple[int, ...]]] = {
    "resnet_small": (plain.BasicBlock, (1, 1, 1, 1), (16, 32, 64, 128)),
    "resnet18": (plain.BasicBlock, (2, 2, 2, 2), (64, 128, 256, 512)),
    "resnet50": (plain.Bottleneck, (3, 4, 6, 3), (64, 128, 256, 512)),
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Network(nn.Module):
    """uint8 images [B, H, W, 3] to unit descriptors [B, D].

    The images are normalised inside, as ours are. They come channels last and stay so, or are turned first.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, described: Any, layout: torch.memory_format):
        super().__init__()
        self.layout, self.described = layout, described.to(memory_format=layout)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = (images.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        return self.described(x.contiguous(memory_format=self.layout))


def network(model: dict[str, Any], tensors: dict[str, Any], channels_last: bool) -> Network:
    """The network of a recipe's `config.model` with the tensors that we export under the originals' names.

    Which layout is faster depends on the network, the device, and whether it trains.

    Raises:
      KeyError: for a backbone that is not here.
      RuntimeError: where the tensors do not fit, name by name.
    """
    if model["backbone"] == "squeezenet":
        squeezenet = plain.SqueezeNet()
        del squeezenet.classifier
        # The aggregator has no name in torchvision's file, and its p is where GeM starts.
        pooled = nn.Sequential(squeezenet, plain.GeM(), nn.Flatten(), plain.L2Norm())
        named = {"1.p": np.full(1, 3, np.float32)} | {f"0.{name}": value for name, value in tensors.items()}
        return loaded(pooled, named, channels_last)
    widths = model["backbone_options"].get("widths")
    return loaded(_cosplace(model["backbone"], widths, **model["aggregator_options"]), tensors, channels_last)


def loaded(described: nn.Module, tensors: dict[str, Any], channels_last: bool) -> Network:
    """A network with our tensors, strictly.

    Raises:
      RuntimeError: where the tensors do not fit, name by name.
    """
    described.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()})
    return Network(described, torch.channels_last if channels_last else torch.contiguous_format)


def resnet(backbone: str, widths: tuple[int, ...] | None = None) -> nn.Module:
    """A ResNet of torchvision's shape, or our small one with its small stem."""
    block, sizes, usual = RESNETS[backbone]
    widths = widths or usual
    made = plain.ResNet(block, sizes, widths)
    if backbone == "resnet_small":
        made.conv1, made.maxpool = nn.Conv2d(3, widths[0], 3, 2, 1, bias=False), nn.Identity()
    return made


def channels(backbone: str, widths: tuple[int, ...] | None = None, stage: int = 4) -> int:
    """How many a ResNet has after a stage."""
    block, _, usual = RESNETS[backbone]
    return block.expansion * (widths or usual)[stage - 1]


def _cosplace(
    backbone: str, widths: tuple[int, ...] | None, *, dim: int, fc_norm: bool = False, l2_before: bool = True
) -> nn.Module:
    made = plain.CosPlaceNet(resnet(backbone, widths), channels(backbone, widths), dim)
    if not l2_before:
        made.aggregation[0] = nn.Identity()
    if fc_norm:
        made.aggregation.insert(4, nn.BatchNorm1d(dim))
    return made


def cosface(
    descriptors: torch.Tensor, labels: torch.Tensor, prototypes: torch.Tensor, scale: float, margin: float
) -> torch.Tensor:
    """The large-margin cosine loss, as one writes it in PyTorch."""
    cosine = F.linear(F.normalize(descriptors), F.normalize(prototypes))
    hit = F.one_hot(labels, len(prototypes)).to(cosine.dtype)
    return F.cross_entropy(scale * (cosine - margin * hit), labels)


class Training(NamedTuple):
    """A network, what moves its parameters and those of the loss, the loss of (descriptors, labels), and what else a
    report should say."""

    network: nn.Module
    tuners: Sequence[torch.optim.Optimizer]
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    facts: Mapping[str, Any] = MappingProxyType({})


def starter(training: Training, labels: np.ndarray, dtype: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """A call starts one step with images that lie on the device and returns its loss, without waiting for it.

    In bfloat16 and float16 the network runs under autocast, and in float16 its loss is scaled against underflow; the
    loss is always computed in float32.
    """
    where = device()
    label = torch.from_numpy(labels).long().to(where)
    scaler = torch.amp.GradScaler(where.type, enabled=dtype == "float16")

    def start(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(where.type, getattr(torch, dtype), enabled=dtype != "float32"):
            descriptors = training.network(images)
        value = training.loss(descriptors.float(), label)
        for tuner in training.tuners:
            tuner.zero_grad()
        scaler.scale(value).backward()
        for tuner in training.tuners:
            scaler.step(tuner)
        scaler.update()
        return value.detach()

    return start


def stepper(training: Training, images: np.ndarray, labels: np.ndarray, dtype: str) -> Callable[[], float]:
    """A call makes one step with the images, which lie in host memory, and returns its loss."""
    start, image, where = starter(training, labels, dtype), torch.from_numpy(images), device()

    def one() -> float:
        value = start(image.to(where))
        wait()
        return value.item()

    return one


def device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def placed(images: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Images on the device, and in host memory that a GPU reads by itself."""
    where, image = device(), torch.from_numpy(images)
    return image.to(where), image.pin_memory() if where.type == "cuda" else image


def wait() -> None:
    """Until the device has done what it was given; a CPU always has."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def at_its_best(network: nn.Module, tiny: bool = False, tf32: bool = True) -> Any:
    """The network compiled.

    Args:
      tf32: for what is left in float32; else that is full float32.
      tiny: traced, but not made into kernels, which takes a C++ compiler minutes on a processor.
    """
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    return torch.compile(network, backend="aot_eager" if tiny else "inductor")
