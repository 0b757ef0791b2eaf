"""Parameters, bytes and operations, against published figures and by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from jaxvpr.models import join
from jaxvpr.models.costs import flops, model_mib, parameter_count
from jaxvpr.models.layers import Conv


def shapes(model):
    return jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.uint8))


@pytest.mark.parametrize(("backbone", "gigaflops", "mib"), [("resnet18", 17.29, 10.63), ("resnet50", 40.61, 32.71)])
@pytest.mark.parametrize("remat", [False, True])
def test_published_costs_of_networks_cut_after_layer3_with_gem(backbone, gigaflops, mib, remat):
    model = join(backbone=backbone, aggregator="gem", backbone_options={"cut": "layer3", "remat": remat})
    assert flops(model, 480, 640) / 1e9 == pytest.approx(gigaflops, rel=0.01)
    assert model_mib(shapes(model)) == pytest.approx(mib, abs=0.01)


def test_torchvision_parameter_count():
    # torchvision's ResNet-18 has 11,689,512 parameters, 513,000 of them in the classifier; GeM adds one.
    assert parameter_count(shapes(join(backbone="resnet18", aggregator="gem"))) == 11_689_512 - 513_000 + 1


class Scanned(nn.Module):
    """A convolution, then a matrix product five times over."""

    @nn.compact
    def __call__(self, images):
        x = Conv(4, 3, 2)(images.astype(jnp.float32))
        weights = jnp.ones((5, 4, 4))
        return jax.lax.scan(lambda carry, weight: (carry @ weight, None), x.reshape(-1, 4), weights)[0]


def test_by_hand():
    # 9x9 images give 4x4 outputs: 16 cells x 4 channels x 27 inputs, then 5 products of [16, 4] and [4, 4].
    assert flops(Scanned(), 9, 9) == 2 * 16 * 4 * 27 + 5 * 2 * 16 * 4 * 4
