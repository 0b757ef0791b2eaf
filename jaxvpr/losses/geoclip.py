"""GeoCLIP's loss: an image against coordinates, its own among them (Vivanco Cepeda, Nayak and Shah, NeurIPS 2023)."""

import jax
import jax.numpy as jnp

from jaxvpr.losses.softmax import PAD


def image_to_place(logits: jax.Array, counts: jax.Array) -> jax.Array:
    """Cross entropy of each image's own coordinates among all candidates: float32 [B, P].

    It goes one way alone: no coordinates choose among images.

    Args:
      logits: [B, P, C], cosines over the temperature of P views of each image with C >= B candidates. The own ones of
        image b are column b; those behind the batch's are a queue.
      counts: bool [B, C], candidates that an image is compared with; its own count always.

    Raises:
      ValueError: for shapes that do not fit.
    """
    own = own_columns(logits, counts)
    shown = jnp.where((counts | own)[:, None], logits, PAD)
    return jax.nn.logsumexp(shown, -1) - jnp.sum(jnp.where(own[:, None], logits, 0.0), -1)


def own_is_best(logits: jax.Array, counts: jax.Array) -> jax.Array:
    """Which views' own coordinates have no better candidate: float32 [B, P], 1 or 0. Arguments as `image_to_place`."""
    own = own_columns(logits, counts)
    best = jnp.max(jnp.where((counts & ~own)[:, None], logits, PAD), -1)
    return (jnp.sum(jnp.where(own[:, None], logits, 0.0), -1) >= best).astype(jnp.float32)


def own_columns(logits: jax.Array, counts: jax.Array) -> jax.Array:
    """bool [B, C]: where the candidate is the image's own."""
    if logits.ndim != 3 or counts.shape != (len(logits), logits.shape[-1]) or len(logits) > logits.shape[-1]:
        raise ValueError(f"logits {logits.shape} and counts {counts.shape} must be [B, P, C] and [B, C], C at least B")
    return jnp.eye(*counts.shape, dtype=bool)
