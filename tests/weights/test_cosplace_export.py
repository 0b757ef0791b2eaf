"""A CosPlace run's checkpoint, written for PyTorch, describes images there as it does here."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxvpr import builders, families, weights
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.training import loop
from jaxvpr.training.checkpoint import Checkpoints

torch = pytest.importorskip("torch")
from torch_models import BasicBlock, CosPlaceNet, ResNet, normalised  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture
def config(tiny_config):
    """A whole ResNet-18 with the original's head, and three steps."""
    config = tiny_config.copy_and_resolve_references().unlock()
    config.model.backbone, config.model.backbone_options = "resnet18", ConfigDict({})
    config.model.aggregator_options = ConfigDict({"dim": 64})
    config.epochs, config.steps_per_epoch, config.every_epochs = 1, 3, 1
    return config.lock()


def test_checkpoint_in_plain_pytorch(config, tmp_path):
    with jax.numpy_dtype_promotion("standard"):
        mesh = make_mesh(devices=jax.devices()[:1])
        recipe = families.recipe(config, mesh, [])._replace(validate=lambda variables, extra: {})
        assert loop.train(config, tmp_path, recipe, mesh).finished
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    step, variables = checkpoints.variables(builders.shapes(config), "last")
    checkpoints.close()
    file = tmp_path / "cosplace.pth"
    weights.write(file, weights.to_torch("cosplace", jax.device_get(variables)), {})

    peer = CosPlaceNet(ResNet(BasicBlock, (2, 2, 2, 2), (64, 128, 256, 512)), channels=512, dim=64)
    fresh = {name: tensor.clone() for name, tensor in peer.state_dict().items()}
    peer.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert step == 3 and not torch.equal(peer.state_dict()["aggregation.3.weight"], fresh["aggregation.3.weight"])
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 96, 3), dtype=np.uint8)
    with torch.no_grad():
        theirs = peer.eval()(normalised(images)).numpy()
    ours = builders.model(config).apply(variables, images)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert np.abs(np.asarray(ours[0]) - np.asarray(ours[1])).max() > 1e-4, "the images differ, and so they must here"
