"""Parameters, bytes and operations, against published figures and by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from jaxvpr.models import join
from jaxvpr.models.costs import flops, model_mib, parameter_count
from jaxvpr.models.layers import Conv, DepthwiseConv, max_pool


def shapes(model):
    return jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.uint8))


# R. Mereu's thesis (2021), Tables 4.1 and 4.2, at 480x640: GFLOPs and MiB with GeM, then with NetVLAD of 64 clusters.
PUBLISHED = {
    ("vgg16", None): ((188.01, 56.13), (188.09, 56.38)),
    ("resnet18", "layer3"): ((17.29, 10.63), (17.27, 10.76)),
    ("resnet18", "layer4"): ((22.33, 42.67), (22.28, 42.92)),
    ("resnet50", "layer3"): ((40.61, 32.71), (40.51, 33.21)),
    ("resnet50", "layer4"): ((50.54, 89.88), (50.35, 90.88)),
    ("resnet101", "layer3"): ((86.29, 105.36), (86.06, 105.86)),
}


@pytest.mark.parametrize("aggregator", ["gem", "netvlad"])
@pytest.mark.parametrize(("backbone", "cut"), PUBLISHED)
def test_published_costs(backbone, cut, aggregator):
    model = join(backbone=backbone, aggregator=aggregator, backbone_options={"cut": cut} if cut else {})
    gigaflops, mib = PUBLISHED[backbone, cut][aggregator == "netvlad"]
    assert flops(model, 480, 640) / 1e9 == pytest.approx(gigaflops, rel=0.01)
    assert model_mib(shapes(model)) == pytest.approx(mib, abs=0.01)


def test_recomputing_blocks_in_training_changes_no_costs():
    plain, remat = (
        join(backbone="resnet18", aggregator="gem", backbone_options={"cut": "layer2", "remat": remat})
        for remat in (False, True)
    )
    assert flops(plain, 64, 64) == flops(remat, 64, 64)


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (5, 2)])
def test_a_depthwise_convolution_costs_a_multiply_add_for_each_element_of_its_kernel(size, stride):
    class Depthwise(nn.Module):
        @nn.compact
        def __call__(self, images):
            return DepthwiseConv(size, stride)(images.astype(jnp.float32))

    outputs = 3 * (12 // stride) * (8 // stride)
    # The first product of each output has nothing to be added to.
    assert flops(Depthwise(), 12, 8) == outputs * (2 * size**2 - 1)


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


def test_max_pooling_costs_its_windows():
    class Pooled(nn.Module):
        @nn.compact
        def __call__(self, images):
            return max_pool(images.astype(jnp.float32), 3, 2)

    assert flops(Pooled(), 9, 9) == 4 * 4 * 3 * 3**2


def test_a_convolution_costs_its_products_whatever_a_cpu_does():
    class Wide(nn.Module):
        @nn.compact
        def __call__(self, images):
            return Conv(128, 3, padding=1)(jnp.zeros((1, 12, 12, 128)))

    assert flops(Wide(), 12, 12) == 2 * 12 * 12 * 128 * 9 * 128
