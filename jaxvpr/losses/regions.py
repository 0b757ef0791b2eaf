"""Similarities of queries to regions of images, and their cross entropy with a teacher's (SFRS).

After Ge et al., "Self-supervising Fine-grained Region Similarities for Large-scale Image Localization", ECCV 2020.
Results are float32, one a query.
"""

import jax
import jax.numpy as jnp

PRECISE = jax.lax.Precision.HIGHEST


def similarities(query: jax.Array, images: jax.Array) -> jax.Array:
    """Dot products [B, k, R] of queries [B, D] with the regions of k images each, [B, k, R, D]."""
    return jnp.einsum("bd,bkrd->bkr", query, images, precision=PRECISE)


def most_similar(query: jax.Array, images: jax.Array) -> jax.Array:
    """The region of each image [B, k, R, D] that is most similar to the query [B, D]: [B, k, D].

    The choice is without gradient; of equally similar regions it is the first.
    """
    chosen = jnp.argmax(similarities(query, images), 2)
    return jnp.take_along_axis(images, chosen[:, :, None, None], 2)[:, :, 0]


def soft_cross_entropy(
    student: jax.Array,
    teacher: jax.Array,
    known: jax.Array,
    *,
    temperature: float,
    teacher_temperature: jax.Array | float,
) -> jax.Array:
    """Cross entropy [B] of a student's similarities [B, k, R] with a teacher's: `-sum softmax(t) log softmax(s)`.

    Both softmax run over all regions of all images of a query. The teacher gets no gradient.

    Args:
      known: bool [B, k], images that take part; the others are ignored.
      temperature, teacher_temperature: what similarities are divided by.

    Returns:
      float32 [B]; 0 for a query without images.
    """
    counts = jnp.broadcast_to(known[:, :, None], student.shape)
    # A query without images compares all of them, which is finite, and counts nothing.
    counts = counts | ~jnp.any(counts, (1, 2), keepdims=True)
    target = jax.nn.softmax(jax.lax.stop_gradient(teacher) / teacher_temperature, (1, 2), where=counts)
    predicted = jax.nn.log_softmax(student / temperature, (1, 2), where=counts)
    entropy = -jnp.sum(jnp.where(counts, target * jnp.where(counts, predicted, 0), 0), (1, 2))
    return jnp.where(jnp.any(known, 1), entropy, 0)
