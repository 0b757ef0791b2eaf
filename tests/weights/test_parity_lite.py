"""EfficientNet-Lite describes as the PyTorch package that its ImageNet weights were exported from, and goes back."""

# ruff: noqa: E402

from functools import partial

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
packages = pytest.importorskip("efficientnet_lite_pytorch")

import torch_models as originals
from torch import nn

from jaxvpr import weights
from jaxvpr.cli import weight_source
from jaxvpr.models import join

pytestmark = pytest.mark.torch

# Optimising these programs would take longer than running them.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
COLOURS = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}


def images(height, width):
    """Smooth patterns: of noise all descriptors are nearly alike."""
    coarse = np.random.default_rng(height).uniform(0, 255, (2, 3, 5, 4)).astype(np.float32)
    large = nn.functional.interpolate(torch.from_numpy(coarse), (height, width), mode="bilinear")
    return large.permute(0, 2, 3, 1).numpy().astype(np.uint8)


def original(name):
    """The package's network; told no size, it pads each image for its own, as TensorFlow does."""
    return packages.EfficientNet.from_name(f"efficientnet-{name}", image_size=None).eval()


def ours(name, cut=None):
    options = {} if cut is None else {"cut": cut}
    return join(backbone=f"efficientnet_{name}", aggregator="gem", backbone_options=options, **COLOURS)


def template(model):
    made = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 64, 64, 3), np.uint8))
    made["params"]["aggregator"]["p"] = np.full(1, 3, np.float32)
    return made


def maps_of(network, shown, cut):
    """What the original's blocks give up to one, or its last convolution."""
    x = torch.from_numpy((shown.astype(np.float32) - 127) / 128).permute(0, 3, 1, 2)
    with torch.no_grad():
        if cut is None:
            return network.extract_features(x)
        x = network._swish(network._bn0(network._conv_stem(x)))
        for block in network._blocks[: cut + 1]:
            x = block(x)
        return x


def assert_alike(network, model, variables, cut, size):
    shown = images(*size)
    theirs = maps_of(network, shown, cut)
    found = jit(partial(model.apply, method="features"))(variables, shown).map
    expected = theirs.permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    described = nn.functional.normalize(theirs.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3)).numpy()
    assert np.linalg.norm(described[0] - described[1]) > 0.1
    np.testing.assert_allclose(jit(model.apply)(variables, shown), described, atol=1e-5)


@pytest.mark.parametrize(("name", "cut"), [("lite0", 10), ("lite1", 3), ("lite2", 0)])
def test_random_weights_describe_as_the_original_and_go_back_bit_by_bit(name, cut):
    network, model = originals.randomise(original(name), 1), ours(name, cut)
    tensors = {key: tensor.numpy().copy() for key, tensor in network.state_dict().items()}
    assert weights.guess_family(tensors, template(model)) == "efficientnet_lite"
    variables = weights.from_torch("efficientnet_lite", tensors, template(model))
    assert_alike(network, model, variables, cut, (65, 96))

    back = weights.to_torch("efficientnet_lite", variables)
    beyond = ("_fc", "_conv_head", "_bn1.", *(f"_blocks.{i}." for i in range(cut + 1, 100)))
    assert set(back) == {key for key in tensors if not key.startswith(beyond)}
    for key, value in back.items():
        np.testing.assert_array_equal(value, tensors[key] if "num_batches" not in key else 0, err_msg=key)


@pytest.mark.parametrize("name", ["lite0", "lite1", "lite2"])
def test_whole_networks_have_the_names_and_shapes_of_the_original(name):
    with torch.device("meta"):
        expected = {key: tuple(tensor.shape) for key, tensor in original(name).state_dict().items()}
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), template(ours(name)))
    written = weights.to_torch("efficientnet_lite", zeros)
    assert {key: value.shape for key, value in written.items()} == {
        key: shape for key, shape in expected.items() if not key.startswith("_fc")
    }


@pytest.mark.long
@pytest.mark.parametrize("name", ["lite0", "lite1", "lite2"])
def test_the_published_weights_describe_as_the_original(name):
    pytest.importorskip(weight_source.PACKAGES[f"efficientnet-{name}"])
    file = weight_source.parse(f"pip:efficientnet-{name}").file
    network = original(name)
    network.load_state_dict(torch.load(file))
    model = ours(name)
    variables = weights.init_from(template(model), file)
    for size in ((224, 224), (190, 253)):
        assert_alike(network, model, variables, None, size)
