"""Steps after any aggregator: a linear layer, and whitening by principal components; and a linear layer before one.

`inner` is the aggregator; `models.join` takes it by name,
`aggregator_options={"inner": {"aggregator": "netvlad", "aggregator_options": {"clusters": 16}}, "dim": 4096}`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvpr.models.aggregators.gem import GeM
from jaxvpr.models.features import Features
from jaxvpr.models.layers import PRECISE, Linear, frozen_in, l2_normalise


class FC(nn.Module):
    """Projects an aggregator's vector to `dim` numbers: a fully connected layer, or a PCA with whitening once learned.

    Attributes:
      inner: the aggregator.
      dim: length of the descriptor.
      l2: normalise the aggregator's vector first.
      conv: the kernel is `[1, 1, in, dim]`, as originals store it that project with a 1x1 convolution.
    """

    inner: nn.Module = GeM()
    dim: int = 512
    l2: bool = False
    conv: bool = False

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> jax.Array:
        """`[B, h, w, C]` to `[B, dim]` in float32."""
        x = self.inner(features, train)
        return Linear(self.dim, 2 if self.conv else 0, precision=PRECISE, name="fc")(l2_normalise(x) if self.l2 else x)

    def frozen_paths(self) -> tuple[str, ...]:
        """Patterns of the parameters of `inner` that do not train."""
        return frozen_in(self.inner, "inner")


class Whiten(nn.Module):
    """The first `dim` principal components (0: all) of an aggregator's unit vector, over a power of their variances.

    AP-GeM (Revaud et al., 2019) divides by `variance^0.25`; 0.5 whitens fully and 0 only rotates the axes. Without a
    file it changes nothing (except that `dim` cuts numbers off).

    Attributes:
      inner: the aggregator.
      dim: components that are kept; 0 keeps as many as the aggregator's vector is long.
      power: of the variances.
    """

    inner: nn.Module = GeM()
    dim: int = 0
    power: float = 0.25

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> jax.Array:
        """`[B, h, w, C]` to `[B, dim]` in float32.

        Raises:
          ValueError: for more components than the aggregator's vector has numbers.
        """
        x = l2_normalise(self.inner(features, train))
        length = x.shape[-1]
        if self.dim > length:
            raise ValueError(f"dim={self.dim}: the aggregator's vector has {length} numbers; set at most {length}")
        dim = self.dim or length
        mean = self.param("mean_", nn.initializers.zeros, (length,))
        components = self.param("components_", lambda _, shape: jnp.eye(*shape), (dim, length))
        variance = self.param("explained_variance_", nn.initializers.ones, (dim,))
        turned = jnp.matmul(x - mean.reshape(1, -1), components.T, precision=PRECISE)
        return turned * jnp.maximum(variance, 1e-24).reshape(1, -1) ** -self.power

    def frozen_paths(self) -> tuple[str, ...]:
        """Patterns of the parameters of `inner` that do not train."""
        return frozen_in(self.inner, "inner")


class Project(nn.Module):
    """A linear layer before an aggregator, begun as the identity.

    What the aggregator does with a frozen backbone's features is where its training starts from.

    Attributes:
      inner: the aggregator.
      dim: channels it is given; 0: as many as the backbone has. Fewer begin with the first ones.
    """

    inner: nn.Module = GeM()
    dim: int = 0

    @nn.compact
    def __call__(self, features: Features, train: bool = False) -> jax.Array:
        """`[B, h, w, C]` to what the aggregator makes of `[B, h, w, dim]`, in float32."""
        layer = Linear(self.dim or features.map.shape[-1], kernel_init=_identity, name="project")
        return self.inner(jax.tree.map(lambda x: layer(x.astype(jnp.float32)), features), train)

    def frozen_paths(self) -> tuple[str, ...]:
        """Patterns of the parameters of `inner` that do not train."""
        return frozen_in(self.inner, "inner")


def _identity(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jnp.eye(shape[0], shape[1])
