"""A trained EigenPlaces, exported under the names of the original, describes images there as it does here."""

import re

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import common
from jaxvpr import builders, families, weights
from jaxvpr.cli.recipes import load_config
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.training import loop
from jaxvpr.verbs import export

torch = pytest.importorskip("torch")
from torch_models import BasicBlock, CosPlaceNet, ResNet, normalised  # noqa: E402

pytestmark = pytest.mark.torch

NARROW = ConfigDict({"widths": (8, 8, 8, 8), "sizes": (1, 1, 1, 1)})


@pytest.fixture
def config(photo_tree):
    """The recipe of SF-XL, its head and what rests, of a narrow ResNet on whole photos, and two steps."""
    config = load_config("configs/eigenplaces.py:sf_xl").unlock()
    config.model.backbone_options, config.image.size = NARROW, (32, 32)
    config.panorama.size, config.test_data, config.val_data = (), ConfigDict({}), ConfigDict({})
    config.train_data = common.data("at_names", str(photo_tree), "train")
    config.objective.update(M=30.0, N=1, min_images=3, turn=180.0)
    config.epochs, config.steps_per_epoch, config.batch = 1, 2, 8
    config.optimizer.rate, config.frozen_random = 1e-2, True
    return config.lock()


def test_the_original_loads_what_a_run_learned(config, tmp_path):
    file, mesh = tmp_path / "eigenplaces.pth", make_mesh(devices=jax.devices()[:1])
    with jax.numpy_dtype_promotion("standard"):
        recipe = families.recipe(config, mesh, [])._replace(validate=lambda variables, extra: {})
        outcome = loop.train(config, tmp_path, recipe, mesh)
        export.run(config, tmp_path, "last", file)
    tensors = weights.read(file)
    assert {"aggregation.1.p", "aggregation.3.weight", "aggregation.3.bias", "backbone.0.weight"} <= set(tensors)
    assert all(re.match(r"backbone\.[014567]\.|aggregation\.[13]\.", name) for name in tensors)

    peer = CosPlaceNet(ResNet(BasicBlock, (1,) * 4, (8,) * 4), channels=8, dim=512)
    peer.load_state_dict(torch.load(file, weights_only=True), strict=True)
    for part, learns in (("layer2_0", False), ("layer3_0", True), ("layer4_0", True)):
        kernels = [v["params"]["backbone"][part]["conv1"]["kernel"] for v in (outcome.initial, outcome.best)]
        assert np.array_equal(*kernels) != learns, part
    images = np.random.default_rng(0).integers(0, 256, (3, 48, 32, 3), np.uint8)
    with torch.no_grad():
        theirs = peer.eval()(normalised(images)).numpy()
    np.testing.assert_allclose(builders.model(config).apply(outcome.best, images), theirs, atol=1e-5)
