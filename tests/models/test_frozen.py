"""Which parameters train under the options of a model: `PlaceModel.frozen_paths` names the others."""

import re

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxvpr.models import join

DINO = {"width": 32, "heads": 2, "depth": 3, "side": 2}
VIT = {"width": 8, "heads": 2, "depth": 3, "side": 2}
RESNET = {"widths": (4, 4, 4, 4)}
VGG = {"widths": (4, 4, 4, 4, 4)}
EFFICIENTNET = {"width": 0.1, "depth": 0.1}
CCT = {"size": 32, "width": 8, "depth": 3, "heads": 2, "stem_width": 4}
EMBEDDING = "cls_token pos_embed patch_embed"


def parts(backbone, size, options):
    """(those that train, those that rest): of each parameter the part of a model that holds it, such as
    "backbone/conv1"."""
    model = join(backbone=backbone, aggregator="gem", backbone_options=options)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, *size, 3), np.uint8))["params"]
    paths, patterns = list(flatten_dict(shapes, sep="/")), model.frozen_paths()
    for pattern in patterns:
        assert any(re.search(pattern, path) for path in paths), f"{pattern} names nothing"
    rests = [any(re.search(pattern, path) for pattern in patterns) for path in paths]
    heads = ["/".join(path.split("/")[:2]) for path in paths]
    return tuple({head for head, rest in zip(heads, rests, strict=True) if rest == kind} for kind in (False, True))


@pytest.mark.parametrize(
    ("backbone", "options", "resting"),
    [
        ("resnet18", RESNET, ""),
        ("resnet18", {**RESNET, "frozen_until": "stem"}, "conv1 bn1"),
        ("resnet18", {**RESNET, "frozen_until": "layer2"}, "conv1 bn1 layer1_0 layer1_1 layer2_0 layer2_1"),
        ("resnet_small", {**RESNET, "frozen_until": "layer1", "cut": "layer1"}, "conv1 bn1 layer1_0"),
        ("vgg16", VGG, ""),
        ("vgg16", {**VGG, "frozen_until": 1}, "features_0"),
        ("vgg16", {**VGG, "frozen_until": 5}, "features_0 features_2 features_5"),
        ("efficientnet_b0", EFFICIENTNET, ""),
        ("efficientnet_b0", {**EFFICIENTNET, "cut": 2, "frozen_until": 0}, "features_0_0 features_0_1"),
        ("efficientnet_b0", {**EFFICIENTNET, "frozen_until": 1}, "features_0_0 features_0_1 features_1_0"),
        ("efficientnet_lite0", {**EFFICIENTNET, "frozen_until": 1}, "conv_stem bn0 blocks_0 blocks_1"),
        ("cct14_384", CCT, ""),
        ("cct14_384", {**CCT, "frozen_blocks": 0}, "tokenizer_0 tokenizer_1 positional_emb norm"),
        ("cct14_384", {**CCT, "frozen_blocks": 1}, "tokenizer_0 tokenizer_1 positional_emb norm blocks_0"),
        ("vit_b16", {**VIT, "pooler": True}, "pooler_dense"),
        ("vit_b16", {**VIT, "frozen_blocks": 0}, f"{EMBEDDING} norm"),
        ("vit_b16", {**VIT, "frozen_blocks": 2, "cut": 2}, f"{EMBEDDING} norm blocks_0 blocks_1"),
        ("timesformer_b16", VIT, ""),
        ("timesformer_b16", {**VIT, "frozen_blocks": 1, "cut": 2}, f"{EMBEDDING} time_embed norm blocks_0"),
        ("dinov2_vitb14", DINO, "mask_token"),
        ("dinov2_vitb14", {**DINO, "norm": False, "mask_token": False}, "norm"),
        ("dinov2_vitb14", {**DINO, "train_blocks": 3}, f"{EMBEDDING} mask_token"),
        ("dinov2_vitb14", {**DINO, "train_blocks": 1, "layer": 1}, f"{EMBEDDING} mask_token blocks_0"),
        (
            "dinov2_vitb14",
            {**DINO, "train_blocks": 0, "registers": 1},
            f"{EMBEDDING} mask_token register_tokens blocks_0 blocks_1 blocks_2",
        ),
    ],
)
def test_a_backbone_rests_as_its_options_say(backbone, options, resting):
    size = (64, 64) if backbone in ("vit_b16", "timesformer_b16") else (56, 56)
    learning, found = parts(backbone, size, options)
    assert found == {f"backbone/{name}" for name in resting.split()}
    assert "aggregator/p" in learning and not learning & found, "no part of these is half frozen"


def test_with_adapters_alone_nothing_else_of_the_backbone_learns():
    options = {**DINO, "adapters": True, "adapters_only": True, "registers": 1}
    model = join(backbone="dinov2_vitb14", aggregator="gem", backbone_options=options)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 28, 28, 3), np.uint8))["params"]
    learning = {p for p in flatten_dict(shapes, sep="/") if not any(re.search(q, p) for q in model.frozen_paths())}
    inside = {p for p in flatten_dict(shapes, sep="/") if re.match(r"backbone/blocks_[012]/adapter/", p)}
    assert learning == inside | {"aggregator/p"} and len(inside) > 30


@pytest.mark.parametrize(
    ("aggregator", "options", "resting"),
    [
        ("seqpool", {}, ""),
        ("seqpool", {"frozen": True}, "attention_pool"),
        ("crn", {"clusters": 2}, "crn/acc_w"),
        ("fc", {"inner": {"aggregator": "crn"}}, "inner/crn/acc_w"),
        ("whiten", {"inner": {"aggregator": "fc", "aggregator_options": {"inner": {"aggregator": "seqpool"}}}}, ""),
        (
            "whiten",
            {
                "inner": {
                    "aggregator": "fc",
                    "aggregator_options": {
                        "inner": {"aggregator": "seqpool", "aggregator_options": {"frozen": True}},
                    },
                }
            },
            "inner/inner/attention_pool",
        ),
    ],
)
def test_an_aggregator_rests_as_its_options_say_also_inside_another(aggregator, options, resting):
    model = join(backbone="resnet18", aggregator=aggregator, backbone_options=RESNET, aggregator_options=options)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 64, 64, 3), np.uint8))["params"]
    found = {p for p in flatten_dict(shapes, sep="/") if any(re.search(q, p) for q in model.frozen_paths())}
    assert {p.removeprefix("aggregator/").rpartition("/")[0] for p in found} == set(resting.split())
