"""The gradient of a loss on the whole batch in the memory of a small one.

A loss that compares the descriptors of a batch with each other cannot be taken apart into losses of smaller batches,
its gradient can: by the chain rule each micro-batch needs no more of the others than the gradient with respect to its
own descriptors. So every image passes the model twice (Gao et al., "Scaling Deep Contrastive Learning Batch Size under
Memory Limited Setup", RepL4NLP 2021).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.interpreters.partial_eval import dce_jaxpr

from jaxvpr.errors import UserError

T = TypeVar("T")


def dealt(rows: T, count: int) -> T:
    """Arrays `[B, ...]` as `[count, B / count, ...]`, every part taken evenly from every device's rows."""
    return jax.tree.map(lambda x: x.reshape(x.shape[0] // count, count, *x.shape[1:]).swapaxes(0, 1), rows)


def gathered(parts: T) -> T:
    """The inverse of `dealt`: the rows in their order again. Scalars of the parts, `[count]`, become their mean."""

    def rows(x: jax.Array) -> jax.Array:
        return x.mean() if x.ndim == 1 else x.swapaxes(0, 1).reshape(x.shape[0] * x.shape[1], *x.shape[2:])

    return jax.tree.map(rows, parts)


def _shares(wanted: T, count: int) -> T:
    """The gradients by the outputs of each part, of those by what `gathered` made of them."""
    return jax.tree.map(lambda x: dealt(x, count) if x.ndim else jnp.broadcast_to(x / count, (count,)), wanted)


def cached_gradients(
    embed: Callable[[Any, Any], Any],
    loss: Callable[[Any, Any], tuple[jax.Array, T]],
    params: Any,
    extra: Any,
    parts: Any,
) -> tuple[tuple[Any, Any], T]:
    """What `jax.grad` gives for `loss(extra, embed(params, batch))`, and no more than one micro-batch in memory.

    First every micro-batch is embedded, and nothing but the outputs is kept. The loss sees those of the whole batch.
    Then every micro-batch is embedded once more, to pull its share of the loss's gradient back to the parameters.

    Args:
      embed: (params, part) -> outputs, a tree of float arrays `[b, ...]` and scalars. Pure: what is random in it
        comes from a key in `part`, so that both passes see the same.
      loss: (extra, outputs `[B, ...]` of all rows in their order) -> (scalar, what else it has to say).
      params, extra: what the loss is differentiated by.
      parts: the micro-batches, `[m, ...]` each leaf; their rows as `dealt` deals them.

    Returns:
      The gradients by `params` and `extra`, and what else the loss had to say.
    """
    outputs = gathered(jax.lax.map(lambda part: embed(params, part), parts))
    (wanted, of_extra), rest = jax.grad(lambda z, e: loss(e, z), argnums=(0, 1), has_aux=True)(outputs, extra)
    count = len(jax.tree.leaves(parts)[0])

    def replay(total: Any, inputs: Any) -> tuple[Any, None]:
        part, share = inputs
        _, pull = jax.vjp(lambda p: embed(p, part), params)
        return jax.tree.map(jnp.add, total, pull(share)[0]), None

    zeros = jax.tree.map(jnp.zeros_like, params)
    of_params, _ = jax.lax.scan(replay, zeros, (parts, _shares(wanted, count)))
    return (of_params, of_extra), rest


def layer_of_batch_statistics(update: Callable[[Any, Any], Any], stats: Any, inputs: Any) -> str | None:
    """The path of the first layer whose statistics depend on what the model is shown, None where those of none do.

    Its program is looked at and not run: what it computes for statistics alone must need nothing but statistics.

    Args:
      update: (stats, inputs) -> stats.
      stats, inputs: arrays or tracers, or their shapes.
    """
    paths = [path for path, _ in jax.tree.leaves_with_path(stats)]
    if not paths:
        return None
    program = jax.make_jaxpr(update)(stats, inputs).jaxpr

    def depends_on_inputs(wanted: list[bool]) -> bool:
        return any(dce_jaxpr(program, wanted)[1][len(paths) :])

    if not depends_on_inputs([True] * len(paths)):
        return None
    layer = next(path[:-1] for path in paths if depends_on_inputs([path is other for other in paths]))
    return jax.tree_util.keystr(layer, simple=True, separator="/")


def refuse_batch_statistics(update: Callable[[Any, Any], Any], stats: Any, inputs: Any) -> None:
    """Makes sure that a model does not normalise by its batch; arguments as of `layer_of_batch_statistics`.

    Raises:
      UserError: for one that does; names the first layer.
    """
    layer = layer_of_batch_statistics(update, stats, inputs)
    if layer is not None:
        raise UserError(
            f"grad_cache: {layer} normalises by the statistics of its batch. A micro-batch has other statistics than "
            "the whole batch, so the gradient would be that of another function. Let BatchNorm run on its running "
            "averages (model.backbone_options.frozen_bn=all in ResNets and EfficientNets), do without it (dinov2, vit, "
            "cct; aggregator_options.fc_norm=False), or leave grad_cache=1"
        )
