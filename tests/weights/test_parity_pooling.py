"""Pooling heads, VLAD and whitening describe as their originals do, and their weights go back unchanged."""

# ruff: noqa: E402

from functools import partial

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch_models as nets
import torch_pooling as heads
from torch import nn

from jaxvpr import weights
from jaxvpr.models import join
from jaxvpr.models.aggregators.vlad import VLAD
from jaxvpr.models.features import Features

pytestmark = pytest.mark.torch

# Optimising these programs would take longer than running them.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
SIZES, WIDTHS, DIM = (1, 1, 1, 1), (8, 8, 12, 16), 8
VGG = (4, 4, 6, 8, 10)
RESNET = {"backbone": "resnet18", "backbone_options": {"sizes": SIZES, "widths": WIDTHS, "cut": "layer1"}}
VGG16 = {"backbone": "vgg16", "backbone_options": {"widths": VGG}}


def resnet():
    return nn.Sequential(*list(nets.ResNet(nets.BasicBlock, SIZES, WIDTHS).children())[:5])


def net(head, l2=None, channels=0, dim=0):
    return heads.Net(resnet(), head, l2, channels, dim)


def behind(aggregator, **options):
    return {"aggregator": aggregator, "aggregator_options": options}


def ranked_as_it_is(aggregator, **options):
    return {**behind(aggregator, **options), "l2_after": False}


# family, the original, ours
CASES = {
    "spoc": ("deep_vg", lambda: net(heads.SPoC(), "before"), ranked_as_it_is("spoc", l2_before=True)),
    "mac": ("deep_vg", lambda: net(heads.MAC(), "none"), ranked_as_it_is("mac")),
    "rmac": ("deep_vg", lambda: net(heads.RMAC(), "before"), ranked_as_it_is("rmac", l2_before=True)),
    "gem": ("deep_vg", lambda: net(nets.GeM(), "before"), ranked_as_it_is("gem", l2_before=True)),
    "gem, no l2": ("deep_vg_l2_after", lambda: net(nets.GeM(), "none"), ranked_as_it_is("gem")),
    "gem, l2 after": ("deep_vg_l2_after", lambda: net(nets.GeM(), "after"), behind("gem")),
    "gem and fc": (
        "deep_vg",
        lambda: net(nets.GeM(), "before", DIM, 7),
        behind("fc", inner=behind("gem", l2_before=True), dim=7),
    ),
    "gem and fc, l2 between": (
        "deep_vg_l2_after",
        lambda: net(nets.GeM(), "after", DIM, 7),
        behind("fc", inner=behind("gem"), dim=7, l2=True),
    ),
    "rrm": ("deep_vg", lambda: net(heads.RRM(DIM)), behind("rrm")),
    "netvlad": ("deep_vg", lambda: net(heads.NetVLAD(DIM, 5)), behind("netvlad", clusters=5)),
    "netvlad of tokens": (
        "deep_vg",
        lambda: net(heads.NetVLAD(DIM, 5, tokens=True)),
        behind("netvlad", clusters=5, tokens=True),
    ),
    "netvlad and fc": (
        "deep_vg",
        lambda: net(heads.NetVLAD(DIM, 5), None, 5 * DIM, 9),
        behind("fc", inner=behind("netvlad", clusters=5), dim=9),
    ),
    "crn": ("deep_vg", lambda: net(heads.CRN(DIM, 5)), behind("crn", clusters=5)),
    "netvlad's port": (
        "netvlad_pytorch",
        lambda: heads.Port(resnet(), DIM, 5, bias=True),
        behind("netvlad", clusters=5, bias=True),
    ),
    "netvlad's port with whitening": (
        "netvlad_pytorch",
        lambda: heads.Port(resnet(), DIM, 5, pca=8),
        behind("fc", inner=behind("netvlad", clusters=5), dim=8, conv=True),
    ),
    "netvlad's port on several gpus": (
        "netvlad_pytorch_gpus",
        lambda: heads.Port(resnet(), DIM, 5, wrapped=True),
        behind("netvlad", clusters=5),
    ),
    "netvlad of hloc": (
        "netvlad_hloc",
        lambda: heads.Hloc(heads.small_vgg(VGG), VGG[-1], 5, 8),
        VGG16 | behind("fc", inner=behind("netvlad", clusters=5, tokens=True, d_major=True), dim=8),
    ),
    "sfrs": (
        "sfrs",
        lambda: heads.SFRS(heads.small_vgg(VGG), VGG[-1], 5, 8),
        VGG16 | behind("fc", inner=behind("netvlad", clusters=5), dim=8, conv=True),
    ),
    "a frame's gem": (
        "vg_transformers",
        lambda: heads.Clip(resnet(), nn.Sequential(nets.L2Norm(), nets.GeM(), nn.Flatten()), nn.Identity()),
        ranked_as_it_is("gem", l2_before=True),
    ),
    "a frame's netvlad": (
        "vg_transformers_pooling",
        lambda: heads.Clip(resnet(), heads.NetVLAD(DIM, 5), nn.Identity()),
        behind("netvlad", clusters=5),
    ),
    "seqvlad of one frame": (
        "vg_transformers",
        lambda: heads.Clip(resnet(), nn.Identity(), heads.NetVLAD(DIM, 5)),
        behind("netvlad", clusters=5),
    ),
}


def images(height, width):
    return np.random.default_rng(height).integers(0, 256, (2, height, width, 3), np.uint8)


def blank(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), images(32, 32))
    return jax.tree.map(lambda leaf: np.full(leaf.shape, np.nan, leaf.dtype), shapes)


def arrays(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("case", CASES)
def test_describes_as_the_original_and_goes_back(case):
    family, make, options = CASES[case]
    original, ours = nets.randomise(make(), 1), join(**(RESNET | options))
    tensors = arrays(original)
    variables = weights.from_torch(family, tensors, blank(ours))
    describe = jit(ours.apply)
    for size in ((32, 32), (32, 48)):
        with torch.no_grad():
            expected = original(nets.normalised(images(*size))).numpy()
        np.testing.assert_allclose(describe(variables, images(*size)), expected, atol=1e-5)
        assert np.abs(expected[0] - expected[1]).max() > 1e-3, "the images differ, and so must their descriptors"

    back = weights.to_torch(family, variables)
    make().load_state_dict({name: torch.from_numpy(np.array(tensor)) for name, tensor in back.items()}, strict=True)
    for name, tensor in tensors.items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(back[name].view(np.uint32), tensor.view(np.uint32))
    guessed = weights.guess_family(tensors, blank(ours))
    np.testing.assert_equal(weights.from_torch(guessed, tensors, blank(ours)), variables)


def test_a_netvlad_starts_a_crn():
    """The benchmark loads the first stage with `strict=False`: what a NetVLAD lacks stays as it is."""
    first = arrays(nets.randomise(net(heads.NetVLAD(DIM, 5)), 1))
    crn = blank(join(**(RESNET | behind("crn", clusters=5))))
    started = weights.from_torch("deep_vg", first, crn, pattern="^(backbone|aggregator/(conv|centroids))")
    np.testing.assert_array_equal(started["params"]["aggregator"]["centroids"], first["aggregation.centroids"])
    np.testing.assert_array_equal(
        started["params"]["aggregator"]["conv"]["kernel"][0, 0].T, first["aggregation.conv.weight"][:, :, 0, 0]
    )
    assert np.isnan(started["params"]["aggregator"]["crn"]["filter_5_5"]["kernel"]).all()


@pytest.mark.parametrize("assign", ["cosine", "l2"])
def test_hard_vlad_goes_to_the_nearest_word(assign):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 5, 7, 6)).astype(np.float32)
    words = (rng.normal(size=(4, 6)) * [[0.2], [1], [0.5], [2]]).astype(np.float32)
    got = VLAD(clusters=4, assign=assign).apply({"params": {"centroids": words}}, Features(x))
    got = got / np.linalg.norm(got, axis=1, keepdims=True)
    for image, descriptor in zip(x, got, strict=True):
        local = torch.from_numpy(image.reshape(-1, 6).T)
        expected = heads.vlad(local, torch.from_numpy(words), assign == "cosine")
        np.testing.assert_allclose(descriptor, expected, atol=1e-5)
