"""A linear layer behind any head on the descriptors of frames: a PCA of clips, once it is fitted."""

import flax.linen as nn
import jax

from jaxvpr.models.layers import PRECISE, Linear, frozen_in, l2_normalise
from jaxvpr.models.sequences.ordered import Cat


class Projected(nn.Module):
    """Projects a head's vector to `dim` numbers, as the aggregator "fc" does with an aggregator's.

    Single images, which go without a head, are not projected.

    Attributes:
      inner: the head; with "cat" its `frames` say how many a clip has.
      dim: length of the descriptor.
      l2: normalise the head's vector first.
    """

    inner: nn.Module = Cat()
    dim: int = 512
    l2: bool = False

    @property
    def l2_frames(self) -> bool:
        """Whether `inner` takes unit vectors."""
        return bool(getattr(self.inner, "l2_frames", False))

    @property
    def frames(self) -> int:
        """How many frames a clip has; 0 for any number."""
        return getattr(self.inner, "frames", 0)

    @property
    def width(self) -> int:
        """The fewest frames of a clip."""
        return getattr(self.inner, "width", 1)

    @nn.compact
    def __call__(self, frames: jax.Array, train: bool = False) -> jax.Array:
        """`[B, F, D]` to `[B, dim]` in float32."""
        x = self.inner(frames, train)
        return Linear(self.dim, precision=PRECISE, name="fc")(l2_normalise(x) if self.l2 else x)

    def frozen_paths(self) -> tuple[str, ...]:
        """Patterns of the parameters of `inner` that do not train."""
        return frozen_in(self.inner, "inner")
