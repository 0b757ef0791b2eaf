"""The same weights give the same descriptors here and in plain PyTorch, and go back to it unchanged."""

# ruff: noqa: E402

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch_models as originals

from jaxvpr import weights
from jaxvpr.models import join

pytestmark = pytest.mark.torch

SIZES, WIDTHS = (2, 1, 2, 1), (16, 24, 32, 40)
SMALL = {"sizes": SIZES, "widths": WIDTHS}


def images(height, width):
    return np.random.default_rng(height).integers(0, 256, (2, height, width, 3), np.uint8)


def variables_of(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), images(64, 64))
    return jax.tree.map(lambda leaf: np.full(leaf.shape, np.nan, leaf.dtype), shapes)


def arrays(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


CASES = {
    "cosplace of basic blocks": (
        lambda: originals.CosPlaceNet(originals.ResNet(originals.BasicBlock, SIZES, WIDTHS), 40, 24),
        lambda: join(
            backbone="resnet18", aggregator="cosplace", backbone_options=SMALL, aggregator_options={"dim": 24}
        ),
    ),
    "cosplace of bottlenecks, cut after layer3": (
        lambda: originals.CosPlaceNet(originals.ResNet(originals.Bottleneck, SIZES, WIDTHS), 4 * 32, 24, cut=3),
        lambda: join(
            backbone="resnet50",
            aggregator="cosplace",
            backbone_options={**SMALL, "cut": "layer3"},
            aggregator_options={"dim": 24},
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_cosplace_describes_as_the_original_and_goes_back(case, tmp_path):
    original, ours = (make() for make in CASES[case])
    originals.randomise(original, 1)
    variables = weights.from_torch("cosplace", arrays(original), variables_of(ours))
    describe = jax.jit(ours.apply)
    for size in ((64, 64), (75, 130)):
        with torch.no_grad():
            expected = original(originals.normalised(images(*size))).numpy()
        np.testing.assert_allclose(describe(variables, images(*size)), expected, atol=1e-5)

    weights.write(tmp_path / "best_model.pth", weights.to_torch("cosplace", variables))
    again = CASES[case][0]().eval()
    again.load_state_dict(torch.load(tmp_path / "best_model.pth", weights_only=True), strict=True)
    with torch.no_grad():
        np.testing.assert_allclose(again(originals.normalised(images(*size))).numpy(), expected, atol=1e-5)
    for name, tensor in arrays(original).items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(again.state_dict()[name].numpy().view(np.uint32), tensor.view(np.uint32))


def test_squeezenet_describes_as_the_original():
    original = originals.randomise(originals.SqueezeNet(), 2)
    ours = join(backbone="squeezenet", aggregator="gem")
    template = variables_of(ours)
    template["params"]["aggregator"]["p"] = np.full(1, 3, np.float32)
    variables = weights.from_torch("torchvision_squeezenet", arrays(original), template)
    describe = jax.jit(ours.apply)
    pool = torch.nn.Sequential(originals.GeM(), torch.nn.Flatten(), originals.L2Norm())
    for size in ((64, 64), (77, 102)):
        with torch.no_grad():
            expected = pool(original(originals.normalised(images(*size)))).numpy()
        np.testing.assert_allclose(describe(variables, images(*size)), expected, atol=1e-5)


def test_a_torchvision_file_fills_the_backbone_only():
    original = originals.randomise(originals.ResNet(originals.BasicBlock, SIZES, WIDTHS), 3)
    ours = join(backbone="resnet18", aggregator="gem", backbone_options={**SMALL, "cut": "layer2"})
    template = variables_of(ours)
    template["params"]["aggregator"]["p"] = np.full(1, 3, np.float32)
    variables = weights.from_torch("torchvision_resnet", arrays(original), template)
    assert variables["params"]["aggregator"]["p"] == 3
    map_of = torch.nn.Sequential(*list(original.children())[:6], originals.GeM(), torch.nn.Flatten())
    with torch.no_grad():
        expected = torch.nn.functional.normalize(map_of(originals.normalised(images(64, 80)))).numpy()
    np.testing.assert_allclose(jax.jit(ours.apply)(variables, images(64, 80)), expected, atol=1e-5)


def test_real_squeezenet_weights_load_strictly_and_tell_images_apart(real_weights):
    ours = join(backbone="squeezenet", aggregator="gem")
    template = variables_of(ours)
    template["params"]["aggregator"]["p"] = np.full(1, 3, np.float32)
    path = real_weights / "squeezenet1_0_imagenet.pth"
    variables = weights.init_from(template, path)
    original = originals.SqueezeNet()
    original.classifier[1] = torch.nn.Conv2d(512, 1000, 1)
    original.load_state_dict(torch.load(path, weights_only=True), strict=True)
    pool = torch.nn.Sequential(originals.GeM(), torch.nn.Flatten(), originals.L2Norm())
    smooth = np.repeat(np.repeat(images(16, 16), 6, 1), 6, 2)
    with torch.no_grad():
        expected = pool(original.eval()(originals.normalised(smooth))).numpy()
    np.testing.assert_allclose(jax.jit(ours.apply)(variables, smooth), expected, atol=1e-5)
    assert expected[0] @ expected[1] < 0.95
