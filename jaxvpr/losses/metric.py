"""Metric learning on places by name: a loss and a miner, each with its options, on one batch of descriptors."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from jaxvpr.losses.measures import References
from jaxvpr.losses.miners import MINERS, Pairs, row_weights
from jaxvpr.losses.pairs import PAIR_LOSSES, compare
from jaxvpr.losses.ranking import LIST_LOSSES

# Name -> (function, its options with their defaults).
LOSSES: dict[str, tuple[Callable[..., jax.Array], dict[str, Any]]] = {**PAIR_LOSSES, **LIST_LOSSES}


def options_of(kind: str, table: Mapping[str, tuple[Callable, dict[str, Any]]], name: str, given: Mapping) -> dict:
    """The options of a loss or miner: its defaults, and over them those given.

    Args:
      kind: "loss" or "miner", for the message.
      table: `LOSSES` or `MINERS`.

    Raises:
      ValueError: for an unknown name or option; lists those that exist.
    """
    if name not in table:
        raise ValueError(f"unknown {kind} {name!r}; there are {', '.join(table)}")
    defaults = table[name][1]
    unknown = sorted(set(given) - set(defaults))
    if unknown:
        raise ValueError(
            f"{kind} {name!r} has no option {', '.join(unknown)}; there are {', '.join(defaults) or 'none'}"
        )
    return {**defaults, **given}


def mine(
    descriptors: jax.Array,
    labels: jax.Array,
    mask: jax.Array | None = None,
    *,
    miner: str,
    miner_options: Mapping[str, Any] | None = None,
    references: References | None = None,
) -> Pairs:
    """The pairs [B, M] that a miner keeps; arguments and errors are those of `place_loss`."""
    options = options_of("miner", MINERS, miner, miner_options or {})
    similarity, pairs = compare(jax.lax.stop_gradient(descriptors), labels, mask, jax.lax.stop_gradient(references))
    return MINERS[miner][0](similarity, pairs, **options)


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
      descriptors: [B, D], the global batch: sharded over devices as it comes, one `jax.jit` sees it whole.
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
    pairs = mine(descriptors, labels, mask, miner=miner, miner_options=miner_options, references=references)
    function = LOSSES[loss][0]
    if loss in PAIR_LOSSES:
        return function(descriptors, labels, mask, pairs=pairs, references=references, **options)
    weight = None
    if miner != "none":
        weight = row_weights(pairs, triplets=miner == "batch_hard", symmetric=references is None)
    return function(descriptors, labels, mask, references=references, weight=weight, **options)
