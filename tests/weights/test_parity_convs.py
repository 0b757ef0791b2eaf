"""VGG16 and EfficientNet describe as plain PyTorch's do, by torchvision's and CosPlace's names, and go back to them."""

# ruff: noqa: E402

from functools import partial

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch_convs as convs
import torch_models as originals

from jaxvpr import weights
from jaxvpr.errors import UserError
from jaxvpr.models import join

pytestmark = pytest.mark.torch

WIDTHS = (6, 8, 10, 12, 14)
# Optimising these programs would take longer than running them.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
SMALL = {"width": 0.25, "depth": 0.3}


def images(height, width):
    return np.random.default_rng(height).integers(0, 256, (2, height, width, 3), np.uint8)


def shapes_of(model):
    return jax.eval_shape(model.init, jax.random.key(0), images(64, 64))


def empty(model):
    """Variables of the model's shapes that take no memory and would show in any result."""
    return jax.tree.map(lambda leaf: np.broadcast_to(np.float32(np.nan), leaf.shape), shapes_of(model))


def zeros(model):
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes_of(model))


def arrays(model):
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


def same_bits(back, tensors, names):
    for name in names:
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(np.array(back[name]).view(np.uint32), tensors[name].view(np.uint32))


def ours(backbone, dim=None, **options):
    head = {"aggregator": "cosplace", "aggregator_options": {"dim": dim}} if dim else {"aggregator": "gem"}
    return join(backbone=backbone, backbone_options=options, **head)


# original, ours: whole methods
COSPLACE = {
    "vgg16": (
        lambda: convs.CosPlaceNet(convs.vgg16(WIDTHS), 14, 9),
        lambda: ours("vgg16", 9, widths=WIDTHS),
    ),
    "efficientnet": (
        lambda: convs.CosPlaceNet(convs.efficientnet(*convs.SMALL), 320, 9),
        lambda: ours("efficientnet_b0", 9, **SMALL),
    ),
    "resnet152, shallow": (
        lambda: originals.CosPlaceNet(
            originals.ResNet(originals.Bottleneck, (1, 1, 1, 1), (64, 128, 256, 512)), 2048, 9
        ),
        lambda: ours("resnet152", 9, sizes=(1, 1, 1, 1)),
    ),
}
# family, original, how many of its `features` run, ours: backbones alone, cut somewhere
BACKBONES = {
    "vgg16 after conv4_3's ReLU": (
        "torchvision_vgg",
        lambda: convs.vgg16(WIDTHS),
        23,
        lambda: ours("vgg16", widths=WIDTHS, cut=22),
    ),
    "vgg16 to its last pooling": (
        "torchvision_vgg",
        lambda: convs.vgg16(WIDTHS),
        31,
        lambda: ours("vgg16", widths=WIDTHS, cut=30),
    ),
    "efficientnet_b7, shallow": (
        "torchvision_efficientnet",
        lambda: convs.efficientnet(convs.B7[0], convs.SMALL[1], eps=1e-3),
        4,
        lambda: ours("efficientnet_b7", depth=0.3, cut=3),
    ),
}


def assert_describe_alike(original, ours, variables):
    describe = jit(ours.apply)
    for size in ((64, 64), (75, 106)):
        with torch.no_grad():
            expected = original(originals.normalised(images(*size))).numpy()
        assert np.ptp(expected, 0).max() > 1e-3, "descriptors that tell no images apart would agree anyhow"
        np.testing.assert_allclose(describe(variables, images(*size)), expected, atol=1e-5)


@pytest.mark.parametrize("case", COSPLACE)
def test_cosplace_describes_as_the_original_and_goes_back_bit_by_bit(case):
    original, model = (make() for make in COSPLACE[case])
    originals.randomise(original, 1)
    tensors = arrays(original)
    assert weights.guess_family(tensors, shapes_of(model)) == "cosplace"
    variables = weights.from_torch("cosplace", tensors, empty(model))
    assert_describe_alike(original, model, variables)

    back = weights.to_torch("cosplace", variables)
    COSPLACE[case][0]().load_state_dict({name: torch.from_numpy(np.array(t)) for name, t in back.items()}, strict=True)
    same_bits(back, tensors, tensors)


@pytest.mark.parametrize("case", BACKBONES)
def test_a_torchvision_file_fills_a_backbone_cut_anywhere_and_goes_back(case):
    family, make, count, build = BACKBONES[case]
    original, model = originals.randomise(make(), 2), build()
    tensors, template = arrays(original), empty(model)
    template["params"]["aggregator"]["p"] = np.full(1, 3, np.float32)
    assert weights.guess_family(tensors, template) == family
    variables = weights.from_torch(family, tensors, template)
    assert_describe_alike(convs.Cut(original, count), model, variables)

    back = weights.to_torch(family, variables)
    wanted = {name for name in tensors if name.startswith("features.") and int(name.split(".")[1]) < count}
    assert set(back) == wanted
    same_bits(back, tensors, wanted)


# Published sizes, built without numbers on PyTorch's meta device.
FULL = {
    "vgg16": lambda: convs.CosPlaceNet(convs.vgg16(), 512, 64),
    "efficientnet_b0": lambda: convs.CosPlaceNet(convs.efficientnet(*convs.B0), 1280, 64),
    "efficientnet_b7": lambda: convs.CosPlaceNet(convs.efficientnet(*convs.B7), 2560, 64),
    "resnet152": lambda: originals.CosPlaceNet(
        originals.ResNet(originals.Bottleneck, (3, 8, 36, 3), (64, 128, 256, 512)), 2048, 64
    ),
}


@pytest.mark.parametrize("backbone", FULL)
def test_published_sizes_have_the_original_names_and_shapes(backbone):
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in FULL[backbone]().state_dict().items()}
    written = weights.to_torch("cosplace", empty(ours(backbone, 64)))
    assert {name: tensor.shape for name, tensor in written.items()} == expected


def test_training_moves_the_statistics_as_torch_does():
    """B5 to B7 normalise with another epsilon and remember with another momentum."""
    original = originals.randomise(convs.efficientnet(*convs.SMALL, eps=1e-3, momentum=0.01), 3).train()
    model = ours("efficientnet_b5", **SMALL, drop_path=0.0, cut=2)
    variables = weights.from_torch("torchvision_efficientnet", arrays(original), zeros(model))
    with torch.no_grad():
        original.features[:3](originals.normalised(images(64, 96)))
    _, new = jit(lambda v, x: model.apply(v, x, train=True, mutable=["batch_stats"]))(variables, images(64, 96))
    moved = weights.to_torch("torchvision_efficientnet", {**variables, **jax.tree.map(np.asarray, new)})
    for name, tensor in arrays(original).items():
        if "running" in name and name in moved:
            np.testing.assert_allclose(moved[name], tensor, rtol=1e-4, atol=1e-4, err_msg=name)


def test_files_of_other_networks_are_refused_on_both_sides():
    family, other = "torchvision_efficientnet", zeros(ours("vgg16", widths=WIDTHS))
    tensors = weights.to_torch(family, zeros(ours("efficientnet_b0", **SMALL)))
    with pytest.raises(UserError, match=r"\d+ families.*docs/models\.md"):
        weights.guess_family(tensors, other)
    with pytest.raises(UserError, match=r"(?s)missing.*features\.0\.bias.*left over.*features\.0\.0"):
        weights.from_torch("torchvision_vgg", tensors, other)
    with pytest.raises(UserError, match=r"left over.*features\.6\.1\.block"):
        weights.from_torch(family, tensors, zeros(ours("efficientnet_b0", width=0.25, depth=0.25)))
    with pytest.raises(UserError, match=r"torchvision_vgg.*no name.*backbone/features_0_0/kernel"):
        weights.to_torch("torchvision_vgg", zeros(ours("efficientnet_b0", **SMALL)))
