"""The plain softmax of classification: a linear layer with a bias, cross entropy, accuracy; classes may be sharded.

As in `margins`, the label is picked by comparison and not by gathering, so that logits stay split along the classes.
"""

import jax
import jax.numpy as jnp

from jaxvpr.losses.measures import mean

PAD = -1e30  # the logit of a row that only pads


def linear(features: jax.Array, kernel: jax.Array, bias: jax.Array, classes: int | None = None) -> jax.Array:
    """Logits float32 [B, C] of features [B, D], as torch's linear layer: `features @ kernel.T + bias`.

    Args:
      kernel: [C, D]. bias: [C, 1], an axis more than it needs, so that it is split as the kernel is.
      classes: how many of the C rows are classes; the logits of the others are `PAD`.

    Raises:
      ValueError: for shapes that do not fit.
    """
    if features.ndim != 2 or kernel.shape[1:] != features.shape[1:] or bias.shape != (len(kernel), 1):
        raise ValueError(
            f"features {features.shape}, kernel {kernel.shape} and bias {bias.shape} must be [B, D], [C, D] and [C, 1]"
        )
    product = jnp.einsum("bd,cd->bc", features, kernel, precision=jax.lax.Precision.HIGHEST)
    return classes_alone(product + bias.T, classes)


def cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    *,
    mask: jax.Array | None = None,
    classes: int | None = None,
    smoothing: float = 0.0,
    weight: jax.Array | None = None,
) -> jax.Array:
    """Mean cross entropy; equals torch's `cross_entropy(logits, labels, label_smoothing=smoothing)`.

    Args:
      logits: [B, C]. labels: int32 [B], in [0, classes); those of masked rows are ignored.
      mask: bool [B], rows that count; None counts all.
      classes: how many of the C columns are classes; the columns after them must hold `PAD`. None: all.
      smoothing: the share of the target that is spread evenly over all classes (Szegedy et al., CVPR 2016).
      weight: [B], a factor of each row's loss; the mean is still over the rows that count.

    Returns:
      float32 scalar, the mean over the rows that count (0 where none does).
    """
    column = jax.lax.broadcasted_iota(labels.dtype, logits.shape, 1)
    known = logits.shape[1] if classes is None else classes
    target = jnp.sum(jnp.where(column == labels[:, None], logits, 0), 1)
    if smoothing:
        even = jnp.sum(jnp.where(column < known, logits, 0), 1) / known
        target = (1 - smoothing) * target + smoothing * even
    loss = jax.nn.logsumexp(logits, axis=1) - target
    return _mean(loss if weight is None else loss * weight.astype(loss.dtype), mask)


def accuracy(logits: jax.Array, labels: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """The share of the rows that count whose largest logit [B, C] is their label's; float32 scalar in [0, 1]."""
    hit = jnp.argmax(logits, 1).astype(labels.dtype) == labels
    return _mean(hit.astype(jnp.float32), mask)


def classes_alone(logits: jax.Array, classes: jax.Array | int | None) -> jax.Array:
    """Logits [B, C] with `PAD` in the columns from `classes` on, which only pad; None: all are classes."""
    if classes is None:
        return logits
    column = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 1)
    return jnp.where(column < classes, logits, PAD)


def _mean(values: jax.Array, mask: jax.Array | None) -> jax.Array:
    return mean(values, jnp.ones(values.shape, bool) if mask is None else mask)
