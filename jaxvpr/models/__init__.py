"""Images and clips to descriptors: backbones, aggregators, heads for clips and for positions, the model that joins
them, and published methods by name."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from jaxvpr.models.aggregators.boq import BoQ
from jaxvpr.models.aggregators.cls import CLS
from jaxvpr.models.aggregators.convap import ConvAP
from jaxvpr.models.aggregators.cosplace import CosPlace
from jaxvpr.models.aggregators.cricavpr import CricaVPR
from jaxvpr.models.aggregators.crn import CRN
from jaxvpr.models.aggregators.flatten import Flatten
from jaxvpr.models.aggregators.gem import GeM
from jaxvpr.models.aggregators.mixvpr import MixVPR
from jaxvpr.models.aggregators.pooling import MAC, RMAC, SPoC
from jaxvpr.models.aggregators.projections import FC, Project, Whiten
from jaxvpr.models.aggregators.regeo import ReGeo
from jaxvpr.models.aggregators.rrm import RRM
from jaxvpr.models.aggregators.salad import SALAD, MegaLoc
from jaxvpr.models.aggregators.seqpool import SeqPool
from jaxvpr.models.aggregators.tokens import TokenEncoder
from jaxvpr.models.aggregators.vlad import VLAD, NetVLAD, SuperVLAD
from jaxvpr.models.backbones.cct import CCT
from jaxvpr.models.backbones.clip import CLIP
from jaxvpr.models.backbones.dinov2 import DINOv2
from jaxvpr.models.backbones.efficientnet import EfficientNet
from jaxvpr.models.backbones.efficientnet_lite import EfficientNetLite
from jaxvpr.models.backbones.resnet import ResNet
from jaxvpr.models.backbones.squeezenet import SqueezeNet
from jaxvpr.models.backbones.timesformer import TimeSformer
from jaxvpr.models.backbones.vgg import VGG
from jaxvpr.models.backbones.vit import ViT
from jaxvpr.models.description import Description, Preprocess
from jaxvpr.models.features import Features
from jaxvpr.models.methods import METHODS
from jaxvpr.models.non_local import NonLocal
from jaxvpr.models.place_model import IMAGENET_MEAN, IMAGENET_STD, PRECISIONS, PlaceModel
from jaxvpr.models.positions import POSITIONS
from jaxvpr.models.sequences.joint import Joint
from jaxvpr.models.sequences.ordered import Cat, CatFC, ClipEncoder, TemporalConv
from jaxvpr.models.sequences.pooling import Delta, Max, Mean, SeqGeM, SeqPoolFrames
from jaxvpr.models.sequences.projected import Projected

__all__ = [
    "AGGREGATORS",
    "BACKBONES",
    "METHODS",
    "POSITIONS",
    "PRECISIONS",
    "SEQUENCES",
    "Description",
    "Features",
    "Method",
    "PlaceModel",
    "Preprocess",
    "Variables",
    "build",
    "clip_length",
    "computed_in",
    "depends_on_batch",
    "description",
    "join",
]

Variables = dict[str, Any]  # {"params", "batch_stats"}: what `module.apply` takes
FLOATS = ("float32", "bfloat16", "float16")

BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "resnet18": partial(ResNet, sizes=(2, 2, 2, 2)),
    "resnet34": partial(ResNet, sizes=(3, 4, 6, 3)),
    "resnet50": partial(ResNet, sizes=(3, 4, 6, 3), bottleneck=True),
    "resnet101": partial(ResNet, sizes=(3, 4, 23, 3), bottleneck=True),
    "resnet152": partial(ResNet, sizes=(3, 8, 36, 3), bottleneck=True),
    "resnet_small": partial(ResNet, sizes=(1, 1, 1, 1), widths=(16, 32, 64, 128), stem="small"),
    "squeezenet": SqueezeNet,
    "cct14_224": partial(CCT, size=224),
    "cct14_384": partial(CCT, size=384),
    "vit_s16": partial(ViT, width=384, heads=6),
    "vit_b16": ViT,
    "timesformer_b16": TimeSformer,
    "dinov2_vits14": partial(DINOv2, width=384, heads=6),
    "dinov2_vitb14": DINOv2,
    "dinov2_vitl14": partial(DINOv2, width=1024, depth=24, heads=16),
    "dinov2_vitg14": partial(DINOv2, width=1536, depth=40, heads=24, swiglu=True),
    "clip_vitl14": CLIP,
    "vgg16": VGG,
    "efficientnet_b0": EfficientNet,
    "efficientnet_b1": partial(EfficientNet, depth=1.1),
    "efficientnet_b2": partial(EfficientNet, width=1.1, depth=1.2),
    "efficientnet_b3": partial(EfficientNet, width=1.2, depth=1.4),
    "efficientnet_b4": partial(EfficientNet, width=1.4, depth=1.8),
    # The weights of these three came from TensorFlow, with its BatchNorm.
    "efficientnet_b5": partial(EfficientNet, width=1.6, depth=2.2, eps=1e-3, momentum=0.99),
    "efficientnet_b6": partial(EfficientNet, width=1.8, depth=2.6, eps=1e-3, momentum=0.99),
    "efficientnet_b7": partial(EfficientNet, width=2.0, depth=3.1, eps=1e-3, momentum=0.99),
    "efficientnet_lite0": EfficientNetLite,
    "efficientnet_lite1": partial(EfficientNetLite, depth=1.1),
    "efficientnet_lite2": partial(EfficientNetLite, width=1.1, depth=1.2),
}

AGGREGATORS: dict[str, Callable[..., nn.Module]] = {
    "gem": GeM,
    "seqpool": SeqPool,
    "cls": CLS,
    "cosplace": CosPlace,
    "flatten": Flatten,
    "boq": BoQ,
    "convap": ConvAP,
    "cricavpr": CricaVPR,
    "encoder": TokenEncoder,
    "megaloc": MegaLoc,
    "mixvpr": MixVPR,
    "salad": SALAD,
    "spoc": SPoC,
    "mac": MAC,
    "rmac": RMAC,
    "regeo": ReGeo,
    "rrm": RRM,
    "netvlad": NetVLAD,
    "crn": CRN,
    "vlad": VLAD,
    "supervlad": SuperVLAD,
    "fc": FC,
    "whiten": Whiten,
    "project": Project,
}

SEQUENCES: dict[str, Callable[..., nn.Module]] = {
    "joint": Joint,
    "cat": Cat,
    "fc": CatFC,
    "conv": TemporalConv,
    "encoder": ClipEncoder,
    "seqgem": SeqGeM,
    "seqpool": SeqPoolFrames,
    "mean": Mean,
    "max": Max,
    "delta": Delta,
    "projected": Projected,
}


class Method(NamedTuple):
    """A published method: the model, and how an image becomes its input, as plain data."""

    module: PlaceModel
    preprocess: Preprocess


def build(name: str, dtype: Any = "float32") -> Method:
    """A method by its name, with the architecture and the preprocessing it was published with.

    Raises:
      ValueError: for a name that does not exist; lists those that do.
    """
    described = description(name)
    preprocess = described.preprocess
    return Method(join(**described.model, dtype=dtype, mean=preprocess.mean, std=preprocess.std), preprocess)


def description(name: str) -> Description:
    """The description of a method in `METHODS`.

    Raises:
      ValueError: for a name that does not exist; lists those that do.
    """
    if name not in METHODS:
        raise ValueError(f"no method {name!r}; there are {sorted(METHODS)}")
    return METHODS[name]


def depends_on_batch(model: PlaceModel) -> bool:
    """Whether an image's descriptor depends on the other images of its batch, as CricaVPR's does."""
    head = model.aggregator
    while isinstance(inner := getattr(head, "inner", None), nn.Module):
        head = inner  # a step after it takes each image alone
    return bool(getattr(head, "cross_image", False) and getattr(head, "layers", 0))


def clip_length(model: PlaceModel) -> int:
    """How many frames the clips have that a model is initialised with: those that its head wants, else 1; 0 for a model
    of images alone."""
    if model.sequence is None and not getattr(model.backbone, "takes_clips", False):
        return 0
    return getattr(model.sequence, "frames", 0) or getattr(model.sequence, "width", 1)


def computed_in(model: PlaceModel) -> str:
    """What describing computes in, in words: `float32`, `float32 at high`, `float32 at high, head at highest`,
    `bfloat16, head at default`. Where nothing is said of float32, it is at the highest precision."""
    dtype, head = jnp.dtype(model.backbone.dtype), f", head at {model.head_precision}"
    if dtype != jnp.float32:
        return dtype.name + head
    coarser = "" if model.precision == "highest" else f" at {model.precision}"
    return dtype.name + coarser + head * (model.head_precision != model.precision)


def join(
    *,
    backbone: str,
    aggregator: str,
    dtype: Any = "float32",
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
    l2_after: bool = True,
    precision: str = "highest",
    head_precision: str = "",
    train_precision: str = "",
    batch_norm_images: int = 0,
    backbone_options: Mapping[str, Any] | None = None,
    aggregator_options: Mapping[str, Any] | None = None,
    sequence: str = "",
    sequence_options: Mapping[str, Any] | None = None,
    non_local: Mapping[str, Any] | None = None,
    position: str = "",
    position_options: Mapping[str, Any] | None = None,
) -> PlaceModel:
    """Joins a backbone and an aggregator by name, and what clips and positions need.

    Args:
      backbone, aggregator: keys of `BACKBONES` and `AGGREGATORS`.
      dtype: type of the backbone's computation, one of `FLOATS`. Parameters, BatchNorm statistics, pooling and
        descriptors are float32 either way.
      mean, std, l2_after, precision, train_precision, batch_norm_images: see `PlaceModel`.
      head_precision: also; empty is "highest" for float32 and, as a backbone of fewer digits leaves no others to keep,
        "default" for other types.
      backbone_options, aggregator_options: attributes of those modules; lists become tuples. The `inner` of the
        aggregators "fc" and "whiten" is another one, as `{"aggregator": …, "aggregator_options": …}`.
      sequence, sequence_options: a key of `SEQUENCES` and its attributes; empty for a model of images. The `inner` of
        "projected" is another one, as `{"sequence": …, "sequence_options": …}`.
      non_local: attributes of `NonLocal`; empty for none.
      position, position_options: a key of `POSITIONS` and its options (`positions.head`); empty for descriptors alone.

    Raises:
      ValueError: for a name or an option that does not exist; lists those that do.
    """
    dtype = _floating(dtype)
    return PlaceModel(
        backbone=_make("backbone", BACKBONES, backbone, {**(backbone_options or {}), "dtype": dtype}),
        aggregator=_make("aggregator", AGGREGATORS, aggregator, dict(aggregator_options or {})),
        mean=tuple(mean),
        std=tuple(std),
        l2_after=l2_after,
        precision=precision,
        head_precision=head_precision or ("highest" if dtype == jnp.float32 else "default"),
        train_precision=train_precision,
        batch_norm_images=batch_norm_images,
        sequence=_make("sequence", SEQUENCES, sequence, dict(sequence_options or {})) if sequence else None,
        non_local=_make("non-local block", {"non_local": NonLocal}, "non_local", {**non_local, "dtype": dtype})
        if non_local
        else None,
        position=_position(position, dict(position_options or {})) if position else None,
    )


def _floating(dtype: Any) -> Any:
    """The type of that name. Whole numbers would round normalised colours to nearly nothing, without a word."""
    named = dtype if isinstance(dtype, str) else jnp.dtype(dtype).name
    if named not in FLOATS:
        raise ValueError(f"dtype={named!r} is no type to compute in; there are {list(FLOATS)}")
    return jnp.dtype(named)


def _make(kind: str, builders: Mapping[str, Callable[..., nn.Module]], name: str, options: dict[str, Any]) -> nn.Module:
    if name not in builders:
        raise ValueError(f"no {kind} {name!r}; there are {sorted(builders)}")
    builder = builders[name]
    module = builder.func if isinstance(builder, partial) else builder
    known = [field.name for field in fields(module) if field.name not in ("parent", "name")]  # type: ignore[arg-type]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"{kind} {name!r} has no option {unknown}; there are {known}")
    if isinstance(options.get("inner"), Mapping):
        options["inner"] = _inner(kind, builders, options["inner"])
    return builder(**_hashable(options))


def _position(name: str, options: dict[str, Any]) -> nn.Module:
    if name not in POSITIONS:
        raise ValueError(f"no position {name!r}; there are {sorted(POSITIONS)}")
    return POSITIONS[name](**_hashable(options))


def _hashable(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}


def _inner(kind: str, builders: Mapping[str, Callable[..., nn.Module]], described: Mapping[str, Any]) -> nn.Module:
    """The aggregator before a step of `aggregators.projections`, or the head before `Projected`."""
    if kind not in described or set(described) - {kind, f"{kind}_options"}:
        raise ValueError(f"inner={dict(described)}; expected '{kind}' and '{kind}_options'")
    return _make(kind, builders, described[kind], dict(described.get(f"{kind}_options") or {}))
