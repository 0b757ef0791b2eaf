"""The contextual reweighting network: a NetVLAD with a learned spatial mask (Kim et al., 2017)."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.aggregators.vlad import aggregate, cells, flat, uniform
from jaxvpr.models.features import Features
from jaxvpr.models.layers import Conv, Linear, l2_normalise

FILTERS = {3: 32, 5: 32, 7: 20}  # side of the convolution -> channels


class CRN(nn.Module):
    """NetVLAD whose cells are weighted by a mask that convolutions compute from their surroundings.

    Trained in a second stage, from a NetVLAD: `conv` and `centroids` have its names, so that a NetVLAD's file starts it
    with the pattern `^(backbone|aggregator/(conv|centroids))`.

    Attributes:
      clusters: K.
      l2_before: normalise the local features first.
    """

    clusters: int = 64
    l2_before: bool = True

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> jax.Array:
        """`[B, h, w, D]` to `[B, K D]` in float32."""
        x = features.map.astype(jnp.float32)
        x = l2_normalise(x) if self.l2_before else x
        mask = Context(name="crn")(x)
        local = cells(Features(x), l2_before=False)
        weights = jax.nn.softmax(Linear(self.clusters, 2, use_bias=False, name="conv")(local))
        centroids = self.param("centroids", uniform, (self.clusters, x.shape[-1]))
        return flat(aggregate(local, weights * mask.reshape(*local.shape[:2], 1), centroids))

    def frozen_paths(self) -> tuple[str, ...]:
        """Patterns of the parameters that stay as they start."""
        return ("crn/acc_w/",)


class Context(nn.Module):
    """The mask: convolutions of three sizes at half the resolution, summed, stretched back to the map.

    The sum's weights stay as they start, at one. The original works on maps of even sides; on others the mask is
    stretched to fit.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, h, w, D]` to `[B, h, w, 1]`, not negative."""
        conv = partial(Conv, use_bias=True, kernel_init=nn.initializers.xavier_normal())
        half = _half(x)
        context = [
            conv(channels, size, padding=size // 2, name=f"filter_{size}_{size}")(half)
            for size, channels in FILTERS.items()
        ]
        add_up = Conv(1, 1, use_bias=True, kernel_init=nn.initializers.ones, name="acc_w")
        total = add_up(nn.relu(jnp.concatenate(context, -1)))
        return jax.image.resize(nn.relu(total), (*x.shape[:3], 1), "bilinear")


def _half(x: jax.Array) -> jax.Array:
    """Means of 3x3 cells at every second cell; those at an even side's far edge are means of two."""
    sides = [(0, max(3 - length, 1 - length % 2)) for length in x.shape[1:3]]
    return nn.avg_pool(x, (3, 3), (2, 2), sides, count_include_pad=False)
