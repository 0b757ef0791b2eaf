"""Vision transformers give the originals' features, and their files go in and out unchanged."""

# ruff: noqa: E402

import re
from functools import partial

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch_vits as originals
from torch_models import normalised, randomise

from jaxvpr import weights
from jaxvpr.errors import UserError
from jaxvpr.models import BACKBONES, join
from jaxvpr.models.costs import parameter_count
from jaxvpr.models.layers import l2_normalise
from jaxvpr.models.place_model import IMAGENET_MEAN, IMAGENET_STD, normalise

pytestmark = pytest.mark.torch

# Optimising these programs would take longer than running them.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
SMALL = {"width": 24, "heads": 2, "depth": 2, "side": 4}
# name -> (original, backbone, its options, family, patch)
CASES = {
    "dinov2": (lambda: originals.ViT(24, 2, 2, 14, 4, scaled=True), "dinov2_vits14", SMALL, "dinov2", 14),
    "dinov2 with registers and gates": (
        lambda: originals.ViT(24, 2, 2, 14, 4, scaled=True, swiglu=True, registers=3),
        "dinov2_vitg14",
        {**SMALL, "registers": 3},
        "dinov2",
        14,
    ),
    "dinov2 with adapters": (
        lambda: originals.ViT(64, 2, 4, 14, 4, scaled=True, adapters=True),
        "dinov2_vitb14",
        {**SMALL, "width": 64, "heads": 4, "adapters": True},
        "dinov2",
        14,
    ),
    "timm": (lambda: originals.ViT(24, 2, 2, 16, 4), "vit_s16", SMALL, "timm_vit", 16),
    "hugging face": (
        lambda: originals.HuggingFaceViT(24, 2, 2, 16, 4),
        "vit_b16",
        {**SMALL, "eps": 1e-12, "antialias": False, "pooler": True},
        "huggingface_vit",
        16,
    ),
}


def images(height, width):
    return np.random.default_rng(height).integers(0, 256, (2, height, width, 3), np.uint8)


def variables_of(model, patch, fill=np.nan):
    shapes = jax.eval_shape(model.init, jax.random.key(0), images(4 * patch, 4 * patch))
    return jax.tree.map(lambda leaf: np.broadcast_to(np.asarray(fill, leaf.dtype), leaf.shape), shapes)


def arrays(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def features(model, variables, pixels):
    """The map and the token that the backbone gives, each vector of unit length."""
    parts = {collection: tree["backbone"] for collection, tree in variables.items()}
    got = jit(model.backbone.apply)(parts, normalise(pixels, IMAGENET_MEAN, IMAGENET_STD))
    return l2_normalise(got.map), l2_normalise(got.token)


def expected(original, pixels, **options):
    with torch.no_grad():
        cells, token = original(normalised(pixels), **options)
    return torch.nn.functional.normalize(cells.permute(0, 2, 3, 1), dim=-1), torch.nn.functional.normalize(token)


@pytest.mark.parametrize("case", CASES)
def test_features_are_the_originals_and_weights_go_back(case):
    make, backbone, options, family, patch = CASES[case]
    original = randomise(make(), 1)
    model = join(backbone=backbone, aggregator="cls", backbone_options=options)
    variables = weights.from_torch(family, arrays(original), variables_of(model, patch))
    for size in ((4 * patch, 4 * patch), (3 * patch, 7 * patch)):
        for ours, theirs in zip(
            features(model, variables, images(*size)), expected(original, images(*size)), strict=True
        ):
            np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)

    tensors = weights.to_torch(family, variables)
    again = make()
    again.load_state_dict({name: torch.from_numpy(np.array(t)) for name, t in tensors.items()}, strict=True)
    for name, tensor in arrays(original).items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(arrays(again)[name].view(np.uint32), tensor.view(np.uint32))


def test_the_class_token_is_a_descriptor_and_features_may_go_without_norm():
    make, backbone, options, family, _ = CASES["dinov2"]
    original = randomise(make(), 2)
    for norm in (True, False):
        model = join(backbone=backbone, aggregator="cls", backbone_options={**options, "norm": norm})
        variables = weights.from_torch(family, arrays(original), variables_of(model, 14))
        got = jit(model.apply)(variables, images(42, 56))
        np.testing.assert_allclose(got, expected(original, images(42, 56), norm=norm)[1].numpy(), atol=1e-5)


@pytest.mark.parametrize("facet", ["token", "query", "key", "value"])
def test_facets_are_what_hooks_see_at_the_original(facet):
    original = randomise(originals.ViT(24, 3, 2, 14, 4, scaled=True), 3)
    block = original.blocks[1]
    seen = []
    (block if facet == "token" else block.attn.qkv).register_forward_hook(lambda module, given, out: seen.append(out))
    pixels = images(56, 84)
    with torch.no_grad():
        original(normalised(pixels))
    third = seen[0] if facet == "token" else seen[0].chunk(3, -1)[("query", "key", "value").index(facet)]
    theirs = [torch.nn.functional.normalize(part, dim=-1).numpy() for part in (third[:, 1:], third[:, 0])]
    model = join(
        backbone="dinov2_vits14",
        aggregator="cls",
        backbone_options={**SMALL, "depth": 3, "layer": 1, "facet": facet},
    )
    variables = weights.from_torch("dinov2", arrays(original), variables_of(model, 14))
    assert "blocks_2" not in variables["params"]["backbone"], "blocks that nothing needs do not run"
    cells, token = features(model, variables, pixels)
    np.testing.assert_allclose(cells.reshape(2, 24, 24), theirs[0], atol=1e-5)
    np.testing.assert_allclose(token, theirs[1], atol=1e-5)


def test_a_cut_vit_takes_the_first_blocks_of_a_file():
    original = randomise(originals.ViT(24, 3, 2, 16, 4), 4)
    tensors = {**arrays(original), "head.weight": np.zeros((5, 24)), "head.bias": np.zeros(5)}
    model = join(backbone="vit_s16", aggregator="cls", backbone_options={**SMALL, "depth": 3, "cut": 2})
    variables = weights.from_torch("timm_vit", tensors, variables_of(model, 16))
    del original.blocks[2]
    for ours, theirs in zip(
        features(model, variables, images(64, 48)), expected(original, images(64, 48)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)


@pytest.mark.parametrize("aggregator", ["cls", "gem"])
def test_the_deep_vg_benchmarks_vit_describes_as_there_and_goes_back(aggregator):
    def make():
        return originals.DeepVG(originals.HuggingFaceViT(24, 2, 2, 16, 4), 3 if aggregator == "gem" else None)

    original = randomise(make(), 5)
    options = {**SMALL, "depth": 3, "cut": 2, "eps": 1e-12}
    options = {"backbone": "vit_b16", "aggregator": aggregator, "backbone_options": {**options, "pooler": True}}
    model = join(**options, l2_after=False)
    variables = weights.from_torch("deep_vg_vit", arrays(original), variables_of(model, 16))
    with torch.no_grad():
        theirs = original(normalised(images(64, 64))).numpy()
    np.testing.assert_allclose(jit(model.apply)(variables, images(64, 64)), theirs, atol=1e-5)

    again = make()
    back = weights.to_torch("deep_vg_vit", variables)
    again.load_state_dict({name: torch.from_numpy(np.array(t)) for name, t in back.items()}, strict=True)
    for name, tensor in arrays(original).items():
        np.testing.assert_array_equal(arrays(again)[name].view(np.uint32), tensor.view(np.uint32))
    options["backbone_options"]["pooler"] = False
    without = join(**options)
    assert weights.guess_family(arrays(original), variables_of(without, 16)) == "deep_vg_vit"


FULL = {
    "dinov2_vits14": ({}, lambda: originals.ViT(384, 12, 6, 14, 37, True), "dinov2", 22.06),
    "dinov2_vitb14": ({"registers": 4}, lambda: originals.ViT(768, 12, 12, 14, 37, True, registers=4), "dinov2", 86.58),
    "dinov2_vitl14": ({}, lambda: originals.ViT(1024, 24, 16, 14, 37, True), "dinov2", 304.37),
    "dinov2_vitg14": (
        {"registers": 4},
        lambda: originals.ViT(1536, 40, 24, 14, 37, True, True, 4),
        "dinov2",
        1136.49,
    ),
    "cricavpr's": (
        {"adapters": True},
        lambda: originals.ViT(768, 12, 12, 14, 37, True, adapters=True),
        "dinov2",
        95.73,
    ),
    "vit_s16": ({}, lambda: originals.ViT(384, 12, 6, 16, 14), "timm_vit", 21.67),
    "vit_b16": (
        {"side": 24, "pooler": True},
        lambda: originals.HuggingFaceViT(768, 12, 12, 16, 24),
        "huggingface_vit",
        86.69,
    ),
}


@pytest.mark.parametrize("name", FULL)
def test_published_sizes_have_the_originals_names_and_shapes(name):
    options, make, family, millions = FULL[name]
    backbone = name if name in BACKBONES else "dinov2_vitb14"
    model = join(backbone=backbone, aggregator="cls", backbone_options=options)
    # One number stands for all of a tensor: nothing of this size is ever stored.
    variables = variables_of(model, 28, 0)
    with torch.device("meta"):
        theirs = {name: tuple(tensor.shape) for name, tensor in make().state_dict().items()}
    assert {name: tensor.shape for name, tensor in weights.to_torch(family, variables).items()} == theirs
    assert abs(parameter_count(variables) / 1e6 - millions) < 0.01


def test_names_of_a_packed_product_that_is_incomplete_are_told():
    make, backbone, options, family, patch = CASES["hugging face"]
    tensors = arrays(make())
    del tensors["encoder.layer.1.attention.attention.key.bias"]
    model = join(backbone=backbone, aggregator="cls", backbone_options=options)
    with pytest.raises(UserError) as error:
        weights.from_torch(family, tensors, variables_of(model, patch))
    said = str(error.value)
    assert re.search(r"missing.*encoder\.layer\.1\.attention\.attention\.\{query,key,value\}\.bias", said)
    assert re.search(r"left over.*encoder\.layer\.1\.attention\.attention\.query\.bias", said)


@pytest.mark.parametrize("case", CASES)
def test_the_family_is_guessed(case):
    make, backbone, options, family, patch = CASES[case]
    model = join(backbone=backbone, aggregator="cls", backbone_options=options)
    guess = weights.guess_family(arrays(make()), variables_of(model, patch))
    # DINOv2's names are timm's and more, so that a timm file without its classifier fits both.
    assert guess == ("dinov2" if family == "timm_vit" else family)
    if family == "huggingface_vit":
        classifier = {f"vit.{name}": tensor for name, tensor in arrays(make()).items()}
        classifier |= {"classifier.weight": np.zeros((5, 24)), "classifier.bias": np.zeros(5)}
        assert weights.guess_family(classifier, variables_of(model, patch)) == "huggingface_vit_classifier"
