"""Softmax losses with a margin on the sphere, over classes that may be sharded along a mesh axis.

Written for one global-view `jax.jit`: with `prototypes` sharded along their classes, logits stay sharded likewise.
Only sums over classes and the gradient of the descriptors cross devices, never the prototypes or the logits, because
the label is picked by comparison and not by gathering.
"""

from functools import partial

import jax
import jax.numpy as jnp

from jaxvpr.losses.measures import unit
from jaxvpr.losses.softmax import classes_alone, cross_entropy

Scalar = jax.Array | float


def margin_softmax(
    descriptors: jax.Array,
    labels: jax.Array,
    prototypes: jax.Array,
    *,
    kind: str,
    scale: Scalar,
    margin: Scalar,
    mask: jax.Array | None = None,
    classes: jax.Array | int | None = None,
    weight: jax.Array | None = None,
) -> jax.Array:
    """Cross entropy of scaled cosines with prototypes, where the cosine of the label's class is made smaller.

    - "cosface": by the margin: `scale * (cos - margin * [class is the label])` (Wang et al., 2018).
    - "arcface": by the margin added to its angle, in radians (Deng et al., 2019). Where the angle passes pi - margin
      the cosine would rise again; from there on `cos - margin * sin(margin)` is used, as in the original, which keeps
      falling.
    - "easy_arcface": as "arcface", but only where the angle to the label's prototype is below 90 degrees. ArcFace's
      code calls it the easy margin, and Divide & Classify trains with it (Trivigno et al., 2023). The loss jumps at 90
      degrees.
    - "subcenter_arcface": as "arcface", where a class is as near as the nearest of its S centres (Deng et al., 2020;
      there S is 3).

    Args:
      descriptors: [B, D], of any length; the cosine divides by it.
      labels: int32 [B], in [0, classes). Those of masked rows are ignored.
      prototypes: [C, D], of any length; [C, S, D] for "subcenter_arcface".
      kind: as above.
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
    if kind == "subcenter_arcface":
        if prototypes.ndim != 3:
            raise ValueError(f"prototypes {prototypes.shape} must be [C, S, D], S centres a class")
        cosine = jnp.max(cosine, 2)
    hit = jax.lax.broadcasted_iota(labels.dtype, cosine.shape, 1) == labels[:, None]
    if kind == "easy_arcface":
        hit &= cosine > 0
    smaller = cosine - margin if kind == "cosface" else _turned(cosine, margin)
    logits = classes_alone(jnp.where(hit, smaller, cosine) * scale, classes)
    return cross_entropy(logits, labels, mask=mask, weight=weight)


cosface = partial(margin_softmax, kind="cosface")
arcface = partial(margin_softmax, kind="arcface")
easy_arcface = partial(margin_softmax, kind="easy_arcface")
subcenter_arcface = partial(margin_softmax, kind="subcenter_arcface")


def _turned(cosine: jax.Array, margin: Scalar) -> jax.Array:
    """The cosines of the angles + margin."""
    margin = jnp.asarray(margin, cosine.dtype)
    # The floor keeps the root's derivative finite where a descriptor meets its prototype.
    sine = jnp.sqrt(jnp.maximum((1 - cosine) * (1 + cosine), 1e-7))
    turned = cosine * jnp.cos(margin) - sine * jnp.sin(margin)
    past = cosine <= -jnp.cos(margin)
    return jnp.where(past, cosine - margin * jnp.sin(margin), turned)


def cosines(descriptors: jax.Array, labels: jax.Array, prototypes: jax.Array) -> jax.Array:
    """Cosines of descriptors with prototypes: [B, C], or [B, C, S] of several centres a class."""
    if descriptors.ndim != 2 or prototypes.ndim < 2 or descriptors.shape[1] != prototypes.shape[-1]:
        raise ValueError(f"descriptors {descriptors.shape} and prototypes {prototypes.shape} must be [B, D] and [C, D]")
    if labels.shape != descriptors.shape[:1]:
        raise ValueError(f"labels {labels.shape} must be [{descriptors.shape[0]}], one per descriptor")
    return jnp.einsum("bd,c...d->bc...", unit(descriptors), unit(prototypes), precision=jax.lax.Precision.HIGHEST)
