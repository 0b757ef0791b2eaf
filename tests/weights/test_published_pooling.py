"""SuperVLAD and AP-GeM's whitening beside their originals, and the names of whole published models of this family."""

# ruff: noqa: E402

import re
from functools import partial

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch_models as nets
import torch_pooling as heads
import torch_vits as vits
from torch import nn

from jaxvpr import weights
from jaxvpr.errors import UserError
from jaxvpr.models import join

pytestmark = pytest.mark.torch

jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
RNG = np.random.default_rng(0)
VIT = {"width": 16, "depth": 1, "heads": 2, "side": 3}
ENCODER = {"clusters": 3, "ghosts": 2, "layers": 1, "heads": 2, "hidden": 24}
BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}


def blank(model, fill=np.nan):
    """Variables of one number each, so that no size costs memory."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 224, 224, 3), np.uint8))
    return jax.tree.map(lambda leaf: np.broadcast_to(np.asarray(fill, leaf.dtype), leaf.shape), shapes)


def arrays(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def images(count, height, width):
    return RNG.integers(0, 256, (count, height, width, 3), np.uint8)


def test_supervlad_and_its_encoder_across_the_batch():
    make = partial(heads.SuperVLAD, vits.ViT(16, 1, 2, 14, 3, scaled=True), 16, 3, 2, 2, 24, layers=1)
    original = nets.randomise(make(), 1)
    ours = join(backbone="dinov2_vitb14", aggregator="supervlad", backbone_options=VIT, aggregator_options=ENCODER)
    variables = weights.from_torch("supervlad", arrays(original), blank(ours))
    for size in ((42, 42), (28, 42)):
        shown = images(3, *size)
        with torch.no_grad():
            expected = original(nets.normalised(shown)).numpy()
            alone = original(nets.normalised(shown), alone=True).numpy()
        np.testing.assert_allclose(jit(ours.apply)(variables, shown), expected, atol=1e-5)
    single = join(
        backbone="dinov2_vitb14",
        aggregator="supervlad",
        backbone_options=VIT,
        aggregator_options={**ENCODER, "cross_image": False},
    )
    np.testing.assert_allclose(jit(single.apply)(variables, shown), alone, atol=1e-5)
    assert np.abs(alone - expected).max() > 1e-3
    back = weights.to_torch("supervlad", variables)
    make().load_state_dict({name: torch.from_numpy(np.array(tensor)) for name, tensor in back.items()}, strict=True)
    np.testing.assert_equal(back, arrays(original))
    assert weights.guess_family(arrays(original), blank(ours)) == "supervlad"


def test_whitening_behind_apgem():
    sizes, widths = (1, 1, 1, 1), (4, 4, 6, 8)
    original = nets.randomise(heads.APGeM(nets.ResNet(nets.Bottleneck, sizes, widths), 32, 9), 1)
    residual = {"sizes": sizes, "widths": widths}
    inner = {"aggregator": "fc", "aggregator_options": {"dim": 9}}
    ours = join(
        backbone="resnet50",
        aggregator="whiten",
        backbone_options=residual,
        aggregator_options={"inner": inner, "dim": 5},
    )
    turn = np.linalg.qr(RNG.normal(size=(9, 9)))[0].astype(np.float32)[:5]
    pca = {
        "mean_": turn.mean(0),
        "components_": turn,
        "explained_variance_": 2.0 ** -np.arange(5, dtype=np.float32),
    }
    named = {f"pca.Landmarks_clean.{name}": value for name, value in pca.items()}
    others = {"pca.other.mean_": np.zeros(3, np.float32)}
    variables = weights.from_torch("apgem", arrays(original) | named | others, blank(ours))
    for size in ((32, 32), (32, 64)):
        shown = images(2, *size)
        with torch.no_grad():
            expected = heads.whiten(original(nets.normalised(shown)).numpy(), *pca.values(), 0.25)
        np.testing.assert_allclose(jit(ours.apply)(variables, shown), expected, atol=1e-5)
    back = weights.to_torch("apgem", variables)
    np.testing.assert_equal({name: back.pop(name) for name in named}, named)
    again = {name: torch.from_numpy(np.array(tensor)) for name, tensor in back.items()}
    original.load_state_dict(again, strict=True)
    without = join(backbone="resnet50", backbone_options=residual, aggregator="fc", aggregator_options={"dim": 9})
    weights.from_torch("apgem", arrays(original) | named, blank(without))


def resnet(name, stages):
    block = nets.BasicBlock if name == "resnet18" else nets.Bottleneck
    return nn.Sequential(*list(nets.ResNet(block, BLOCKS[name], (64, 128, 256, 512)).children())[: 4 + stages])


def vgg():
    return heads.small_vgg((64, 128, 256, 512, 512))


def behind(aggregator, **options):
    return {"aggregator": aggregator, "aggregator_options": options}


CONV4 = {"backbone_options": {"cut": "layer3"}}
NETVLAD = behind("netvlad")
PCA = behind("fc", inner=NETVLAD, dim=4096, conv=True)
# family, the original, ours
PUBLISHED = {
    "r18 netvlad": (
        "deep_vg",
        lambda: heads.Net(resnet("resnet18", 3), heads.NetVLAD(256, 64)),
        {"backbone": "resnet18", **CONV4, **NETVLAD},
    ),
    "r50 crn": (
        "deep_vg",
        lambda: heads.Net(resnet("resnet50", 3), heads.CRN(1024, 64)),
        {"backbone": "resnet50", **CONV4, **behind("crn")},
    ),
    "r101 gem and fc": (
        "deep_vg",
        lambda: heads.Net(resnet("resnet101", 4), nets.GeM(), "before", 2048, 2048),
        {"backbone": "resnet101", **behind("fc", inner=behind("gem", l2_before=True), dim=2048)},
    ),
    "vgg rrm": (
        "deep_vg",
        lambda: heads.Net(vgg(), heads.RRM(512)),
        {"backbone": "vgg16", **behind("rrm")},
    ),
    "vgg netvlad with whitening": (
        "netvlad_pytorch",
        lambda: heads.Port(vgg(), 512, 64, pca=4096),
        {"backbone": "vgg16", **PCA},
    ),
    "sfrs": ("sfrs", lambda: heads.SFRS(vgg(), 512, 64, 4096), {"backbone": "vgg16", **PCA}),
    "apgem": (
        "apgem",
        lambda: heads.APGeM(nets.ResNet(nets.Bottleneck, BLOCKS["resnet101"], (64, 128, 256, 512)), 2048, 2048),
        {"backbone": "resnet101", **behind("fc", dim=2048)},
    ),
    "supervlad": (
        "supervlad",
        lambda: heads.SuperVLAD(vits.ViT(768, 12, 12, 14, 37, scaled=True), 768, 4, 1, 16, 2048, 2),
        {"backbone": "dinov2_vitb14", **behind("supervlad", layers=2)},
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_of_published_models(name):
    family, make, options = PUBLISHED[name]
    with torch.device("meta"):
        theirs = {name: tuple(tensor.shape) for name, tensor in make().state_dict().items()}
    ours = weights.to_torch(family, blank(join(**options), 0))
    assert {name: tensor.shape for name, tensor in ours.items()} == theirs


def test_a_vit_of_the_benchmark_is_named_as_there():
    options = {"width": 8, "depth": 1, "heads": 2, "side": 14, "pooler": True}
    ours = join(backbone="vit_b16", backbone_options=options, **behind("netvlad", clusters=2, tokens=True))
    names = set(weights.to_torch("deep_vg_vit", blank(ours, 0)))
    vit = {f"backbone.vit_model.{name}" for name in vits.HuggingFaceViT(8, 1, 2, 16, 14).state_dict()}
    assert names == vit | {"aggregation.conv.weight", "aggregation.centroids"}


def test_a_file_of_another_head_is_refused_with_both_sides():
    ours = join(backbone="resnet18", **CONV4, **NETVLAD)
    tensors = arrays(heads.Net(resnet("resnet18", 3), heads.RRM(256)))
    with pytest.raises(UserError) as error:
        weights.from_torch("deep_vg", tensors, blank(ours))
    said = str(error.value)
    assert re.search(r"missing.*aggregation\.centroids, aggregation\.conv\.weight", said)
    assert re.search(r"left over.*aggregation\.ln1\.weight", said)
