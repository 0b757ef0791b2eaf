"""Methods with a learned head describe as their originals do, and their files go in and out unchanged."""

# ruff: noqa: E402

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch_heads as originals
from torch_models import BasicBlock, Bottleneck, GeM, ResNet, normalised, randomise
from torch_vits import ViT

from jaxvpr import weights
from jaxvpr.models import build, describe, join

# As shallow as they come: their own parity is tested elsewhere, and it is compiling that takes time.
RESNET = {"sizes": (1, 1), "widths": (8, 12), "cut": "layer2"}
DINO = {"width": 32, "depth": 1, "heads": 2, "side": 4}
CUTS = ((2,), (1, 3))


def resnet():
    return ResNet(BasicBlock, (1, 1), (8, 12))


def dino(**options):
    return ViT(32, 1, 2, 14, 4, scaled=True, **options)


def mixvpr(cells):
    return originals.Method(originals.torchvision_model(resnet(), 2), originals.MixVPR(12, cells, 6, 3, 2, 1.5))


def boq(backbone, channels):
    return originals.Method(backbone, originals.BoQ(channels, 16, queries=5, rows=4, head_dim=8))


MIXED = {"dim": 6, "rows": 3, "depth": 2, "ratio": 1.5}
SALAD = {"clusters": 5, "cluster_dim": 6, "token_dim": 7, "hidden": 9}
BOQ = {"dim": 16, "queries": 5, "rows": 4, "head_dim": 8}
# Methods as they are described, and their originals.
PUBLISHED = {
    **{f"mixvpr-resnet50-{dim * rows}": published_mixvpr(dim, rows) for dim, rows in ((1024, 4), (256, 2), (64, 2))},
    **{f"convap-resnet50-{4 * dim}": published_convap(dim) for dim in (2048, 1024, 512, 128)},
    "salad-dinov2s": published_salad(384, 12, 6),
    "salad-dinov2b": published_salad(768, 12, 12),
    "megaloc": lambda: originals.Method(
        originals.without_mask_token(published_dino(768, 12, 12)), originals.MegaLocHead(768)
    ),
    "boq-dinov2b-12288": lambda: originals.Method(
        originals.Inside("dino", published_dino(768, 12, 12), norm=False), originals.BoQ(768, 384)
    ),
    "boq-resnet50-16384": lambda: originals.Method(
        originals.sequential_model(published_resnet(), 3), originals.BoQ(1024, 512)
    ),
    "cricavpr": lambda: originals.CricaVPR(published_dino(768, 12, 12, adapters=True), GeM()),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_methods_have_the_originals_names_and_shapes(name):
    method = build(name)
    pixels = jax.ShapeDtypeStruct((2, *(method.preprocess.size or (322, 322)), 3), np.uint8)
    shapes = jax.eval_shape(method.module.init, jax.random.key(0), pixels)
    variables = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), shapes)
    with torch.device("meta"):
        theirs = {name: tuple(tensor.shape) for name, tensor in PUBLISHED[name]().state_dict().items()}
    ours = weights.to_torch(describe(name).family, variables)
    assert {name: tensor.shape for name, tensor in ours.items()} == theirs
