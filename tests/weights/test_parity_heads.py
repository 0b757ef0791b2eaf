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
from jaxvpr.models import build, description, join

pytestmark = pytest.mark.torch

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
# name -> (original, family, what to join, sizes of images)
CASES = {
    "mixvpr": (
        lambda: mixvpr(20),
        "mixvpr",
        ("resnet18", RESNET, "mixvpr", {**MIXED, "cells": (4, 5)}),
        [(32, 40)],
    ),
    "mixvpr of a square": (
        lambda: mixvpr(16),
        "mixvpr",
        ("resnet18", RESNET, "mixvpr", {**MIXED, "cells": (4, 4)}),
        [(32, 32)],
    ),
    "convap": (
        lambda: originals.Method(originals.torchvision_model(resnet(), 2), originals.ConvAP(12, 6, 2, 3)),
        "convap",
        ("resnet18", RESNET, "convap", {"dim": 6, "columns": 3}),
        [(32, 32), (48, 75)],
    ),
    "salad": (
        lambda: originals.Method(originals.Inside("model", dino()), originals.SALAD(32, 5, 6, 7, 9)),
        "salad",
        ("dinov2_vitb14", DINO, "salad", SALAD),
        [(56, 56), (42, 98)],
    ),
    "megaloc": (
        lambda: originals.Method(
            originals.without_mask_token(dino()), originals.MegaLocHead(32, 21, 5, 6, 7, hidden=9)
        ),
        "megaloc",
        ("dinov2_vitb14", {**DINO, "mask_token": False}, "megaloc", {"dim": 21, **SALAD}),
        [(56, 56), (42, 98)],
    ),
    "boq on DINOv2": (
        lambda: boq(originals.Inside("dino", dino(), norm=False), 32),
        "boq",
        ("dinov2_vitb14", {**DINO, "norm": False}, "boq", BOQ),
        [(56, 56), (42, 98)],
    ),
    "boq on a ResNet": (
        lambda: boq(originals.sequential_model(resnet(), 2), 12),
        "boq",
        ("resnet18", RESNET, "boq", BOQ),
        [(32, 32), (24, 45)],
    ),
    "cricavpr": (
        lambda: originals.CricaVPR(dino(adapters=True), GeM(), channels=32, heads=4, hidden=24, cuts=CUTS),
        "cricavpr",
        ("dinov2_vitb14", {**DINO, "adapters": True}, "cricavpr", {"heads": 4, "hidden": 24, "cuts": CUTS}),
        [(56, 56), (56, 98)],
    ),
}


def images(height, width):
    return np.random.default_rng(height).integers(0, 256, (3, height, width, 3), np.uint8)


def make(backbone, backbone_options, aggregator, aggregator_options):
    return join(
        backbone=backbone,
        backbone_options=backbone_options,
        aggregator=aggregator,
        aggregator_options=aggregator_options,
    )


def variables_of(model, size, fill=np.nan):
    """One number stands for all of a tensor, so that those of published size take no memory."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((2, *size, 3), np.uint8))
    return jax.tree.map(lambda leaf: np.broadcast_to(np.asarray(fill, leaf.dtype), leaf.shape), shapes)


def arrays(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def original_of(case, seed=1):
    """The case's original with random weights, a dustbin that is not where it starts among them."""
    return randomise(CASES[case][0](), seed)


@pytest.mark.parametrize("case", CASES)
def test_describes_as_the_original_and_goes_back(case):
    fresh, family, parts, sizes = CASES[case]
    original, ours = original_of(case), make(*parts)
    template = variables_of(ours, sizes[0])
    assert weights.guess_family(arrays(original), template) == family
    variables = weights.from_torch(family, arrays(original), template)
    # Optimising these programs would take longer than running them.
    describe = jax.jit(ours.apply, compiler_options={"xla_backend_optimization_level": 0})
    for size in sizes:
        with torch.no_grad():
            expected = original(normalised(images(*size))).numpy()
        assert np.abs(expected[0] - expected[1]).max() > 1e-3, "images that look the same would prove nothing"
        np.testing.assert_allclose(describe(variables, images(*size)), expected, atol=1e-5)

    again = fresh()
    tensors = {name: torch.from_numpy(np.array(t)) for name, t in weights.to_torch(family, variables).items()}
    again.load_state_dict(tensors, strict=True)
    for name, tensor in arrays(original).items():
        if not name.endswith("num_batches_tracked"):
            assert tensors[name].shape == tensor.shape, name
            np.testing.assert_array_equal(arrays(again)[name].view(np.uint32), tensor.view(np.uint32))


def test_training_files_are_found_where_their_codes_put_the_model(tmp_path):
    """CliqueMining's is SALAD's under `state_dict`; CricaVPR's stands under `model_state_dict`, data-parallel."""
    path = tmp_path / "model.ckpt"
    for case, nest, prefix in (("salad", "state_dict", ""), ("cricavpr", "model_state_dict", "module.")):
        original, (_, family, parts, sizes) = original_of(case), CASES[case]
        named = {prefix + name: tensor for name, tensor in original.state_dict().items()}
        torch.save({"epoch": 3, nest: named, "hyper_parameters": {"lr": 1e-5}}, path)
        template = variables_of(make(*parts), sizes[0])
        expected = weights.from_torch(family, arrays(original), template)
        jax.tree.map(np.testing.assert_array_equal, weights.init_from(template, path), expected)


def published_resnet():
    return ResNet(Bottleneck, (3, 4, 6, 3), (64, 128, 256, 512))


def published_dino(width, depth, heads, **options):
    return ViT(width, depth, heads, 14, 37, scaled=True, **options)


def published_mixvpr(dim, rows):
    return lambda: originals.Method(
        originals.torchvision_model(published_resnet(), 3), originals.MixVPR(1024, 400, dim, rows, 4)
    )


def published_convap(dim):
    return lambda: originals.Method(
        originals.torchvision_model(published_resnet(), 4), originals.ConvAP(2048, dim, 2, 2)
    )


def published_salad(width, depth, heads):
    return lambda: originals.Method(
        originals.Inside("model", published_dino(width, depth, heads)), originals.SALAD(width)
    )


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
    ours = weights.to_torch(description(name).family, variables)
    assert {name: tensor.shape for name, tensor in ours.items()} == theirs
