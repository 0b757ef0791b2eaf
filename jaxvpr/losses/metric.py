"""Metric learning on places by name: a loss and a miner, each with its options, on one batch of descriptors."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from jaxvpr.losses.compared import Compared, Pairs, compare
from jaxvpr.losses.measures import References
from jaxvpr.losses.miners import MINERS, row_weights
from jaxvpr.losses.pairs import PAIR_LOSSES
from jaxvpr.losses.ranking import LIST_LOSSES

# Name -> (function, its options with their defaults).
LOSSES: dict[str, tuple[Callable[..., jax.Array], dict[str, Any]]] = {**PAIR_LOSSES, **LIST_LOSSES}


def options_of(what: str, table: Mapping[str, tuple[Callable, dict[str, Any]]], name: str, given: Mapping) -> dict:
    """The options of a loss or miner: its defaults, and over them those given.

    Args:
      what: "loss" or "miner", for the message.
      table: `LOSSES` or `MINERS`.

    Raises:
      ValueError: for an unknown name or option (lists those that exist), or a value of another type.
    """
    if name not in table:
        raise ValueError(f"unknown {what} {name!r}; there are {', '.join(table)}")
    defaults = table[name][1]
    unknown = sorted(set(given) - set(defaults))
    if unknown:
        raise ValueError(
            f"{what} {name!r} has no option {', '.join(unknown)}; there are {', '.join(defaults) or 'none'}"
        )
    for option, value in given.items():
        kind = type(defaults[option])
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise ValueError(f"{what} {name!r}: {option}={value!r} is not of type {kind.__name__}")
    return {**defaults, **given}


def mine(batch: Compared, *, miner: str, miner_options: Mapping[str, Any] | None = None) -> Pairs:
    """Those of the batch's pairs that a miner of `MINERS` keeps; a choice, without gradient.

    Raises:
      ValueError: for an unknown miner or option; lists those that exist.
    """
    options = options_of("miner", MINERS, miner, miner_options or {})
    return MINERS[miner][0](jax.lax.stop_gradient(batch.similarity), batch.pairs, **options)


def mined_weights(batch: Compared, pairs: Pairs, miner: str) -> jax.Array | None:
    """How a loss that needs no pairs uses a miner: a factor [B] of each row; None without mining."""
    if miner == "none":
        return None
    return row_weights(pairs, triplets=miner == "batch_hard", symmetric=batch.mutual)


def place_loss(
    descriptors: jax.Array,
    labels: jax.Array,
    mask: jax.Array | None = None,
    *,
    loss: str,
    miner: str = "none",
    loss_options: Mapping[str, Any] | None = None,
    miner_options: Mapping[str, Any] | None = None,
    references: References | None = None,
) -> jax.Array:
    """A loss of `LOSSES` on the pairs that a miner of `MINERS` keeps; a ranking loss weighs its rows by them.

    Args:
      descriptors: [B, D], the global batch: sharded over devices, under one global-view `jax.jit`.
      labels: int32 [B], the place of each.
      mask: bool [B], rows that count; None counts all.
      loss, miner: names.
      loss_options, miner_options: what differs from the defaults.
      references: what the batch is compared with (cross-batch memory); None: itself.

    Returns:
      Scalar, float32 (float64 for float64 descriptors); 0 where nothing counts.

    Raises:
      ValueError: for unknown names or options (lists those that exist), or shapes that do not fit.
    """
    options = options_of("loss", LOSSES, loss, loss_options or {})
    batch = compare(descriptors, labels, mask, references)
    pairs = mine(batch, miner=miner, miner_options=miner_options)
    if loss in LIST_LOSSES:
        batch = batch._replace(weight=mined_weights(batch, pairs, miner))
    else:
        batch = batch._replace(pairs=pairs)
    return LOSSES[loss][0](batch, **options)
