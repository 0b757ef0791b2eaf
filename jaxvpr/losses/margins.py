"""Softmax losses with a margin on the sphere, over classes that may be sharded along a mesh axis.

Written for one global-view `jax.jit`: with `prototypes` sharded along their classes, logits stay sharded the same way.
Only sums over classes and the gradient of the descriptors cross devices, never the prototypes or the logits, because
the label is picked by comparison and not by gathering.
"""

import jax
import jax.numpy as jnp

from jaxvpr.losses.measures import unit
from jaxvpr.losses.softmax import classes_alone, cross_entropy

Scalar = jax.Array | float


def cosface(
    descriptors: jax.Array,
    labels: jax.Array,
    prototypes: jax.Array,
    *,
    scale: Scalar,
    margin: Scalar,
    mask: jax.Array | None = None,
    classes: jax.Array | int | None = None,
    weight: jax.Array | None = None,
) -> jax.Array:
    """Large-margin cosine loss: cross entropy of `scale * (cos - margin * [class is the label])` (Wang et al., 2018).

    Args:
      descriptors: [B, D], of any length; the cosine divides by it.
      labels: int32 [B], in [0, classes). Those of masked rows may be anything.
      prototypes: [C, D], of any length.
      scale, margin: numbers or traced scalars.
      mask: bool [B], rows that count; None counts all.
      classes: how many of the C rows are classes; the rows after them pad and have no influence. None: all.
      weight: [B], a factor of each row's loss (`miners.row_weights`); the mean is still over the rows that count.

    Returns:
      float32 scalar, the mean over the rows that count (0 where none does).

    Raises:
      ValueError: for shapes that do not fit.
    """
    cosine = cosines(descriptors, labels, prototypes)
    hit = _hit(cosine, labels)
    return cross_entropy(
        classes_alone(jnp.where(hit, cosine - margin, cosine) * scale, classes), labels, mask=mask, weight=weight
    )


def arcface(
    descriptors: jax.Array,
    labels: jax.Array,
    prototypes: jax.Array,
    *,
    scale: Scalar,
    margin: Scalar,
    mask: jax.Array | None = None,
    classes: jax.Array | int | None = None,
    weight: jax.Array | None = None,
) -> jax.Array:
    """Angular margin loss: cross entropy of `scale * cos(angle + margin * [class is the label])` (Deng et al., 2019).

    Where the angle passes pi - margin the cosine would rise again; from there on `cos - margin * sin(margin)` is used,
    as in the original, which keeps falling. Arguments, result and errors are those of `cosface`; `margin` in radians.
    """
    cosine = cosines(descriptors, labels, prototypes)
    hit = _hit(cosine, labels)
    return cross_entropy(classes_alone(_turned(cosine, hit, margin) * scale, classes), labels, mask=mask, weight=weight)


def easy_arcface(
    descriptors: jax.Array,
    labels: jax.Array,
    prototypes: jax.Array,
    *,
    scale: Scalar,
    margin: Scalar,
    mask: jax.Array | None = None,
    classes: jax.Array | int | None = None,
    weight: jax.Array | None = None,
) -> jax.Array:
    """`arcface` that asks for the margin only where the angle to the label's prototype is below 90 degrees.

    What ArcFace's code calls the easy margin, and Divide & Classify trains with (Trivigno et al., 2023). The loss jumps
    at 90 degrees. Arguments, result and errors are those of `arcface`.
    """
    cosine = cosines(descriptors, labels, prototypes)
    near = _hit(cosine, labels) & (cosine > 0)
    return cross_entropy(
        classes_alone(_turned(cosine, near, margin) * scale, classes), labels, mask=mask, weight=weight
    )


def subcenter_arcface(
    descriptors: jax.Array,
    labels: jax.Array,
    prototypes: jax.Array,
    *,
    scale: Scalar,
    margin: Scalar,
    mask: jax.Array | None = None,
    classes: jax.Array | int | None = None,
    weight: jax.Array | None = None,
) -> jax.Array:
    """`arcface` where a class is as near as the nearest of its S centres (Deng et al., 2020; there S is 3).

    `prototypes` are [C, S, D]; the other arguments, result and errors are those of `arcface`.
    """
    if prototypes.ndim != 3:
        raise ValueError(f"prototypes {prototypes.shape} must be [C, S, D], S centres a class")
    cosine = jnp.max(cosines(descriptors, labels, prototypes), 2)
    hit = _hit(cosine, labels)
    return cross_entropy(classes_alone(_turned(cosine, hit, margin) * scale, classes), labels, mask=mask, weight=weight)


def _turned(cosine: jax.Array, hit: jax.Array, margin: Scalar) -> jax.Array:
    """Cosines, at the label's class those of the angle + margin."""
    margin = jnp.asarray(margin, cosine.dtype)
    # The floor keeps the root's derivative finite where a descriptor meets its prototype.
    sine = jnp.sqrt(jnp.maximum((1 - cosine) * (1 + cosine), 1e-7))
    turned = cosine * jnp.cos(margin) - sine * jnp.sin(margin)
    past = cosine <= -jnp.cos(margin)
    turned = jnp.where(past, cosine - margin * jnp.sin(margin), turned)
    return jnp.where(hit, turned, cosine)


def cosines(descriptors: jax.Array, labels: jax.Array, prototypes: jax.Array) -> jax.Array:
    """Cosines of descriptors with prototypes: [B, C], or [B, C, S] of several centres a class."""
    if descriptors.ndim != 2 or prototypes.ndim < 2 or descriptors.shape[1] != prototypes.shape[-1]:
        raise ValueError(f"descriptors {descriptors.shape} and prototypes {prototypes.shape} must be [B, D] and [C, D]")
    if labels.shape != descriptors.shape[:1]:
        raise ValueError(f"labels {labels.shape} must be [{descriptors.shape[0]}], one per descriptor")
    return jnp.einsum("bd,c...d->bc...", unit(descriptors), unit(prototypes), precision=jax.lax.Precision.HIGHEST)


def _hit(cosine: jax.Array, labels: jax.Array) -> jax.Array:
    """Bool [B, C]: which class is the row's label."""
    return jax.lax.broadcasted_iota(labels.dtype, cosine.shape, 1) == labels[:, None]
