"""Losses of heads that answer positions, each `(raw [B, numbers], at [B, 3], coding) -> float32 [B]`.

`raw` is what a head of `models.positions` gives and `at` the normalised positions, north, east and bearing in turns,
which is NaN where it is not known: such rows are learned from their position alone. All gradients are finite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvpr.losses.measures import LOWEST
from jaxvpr.models.positions import Cells, Coding, Direct, Hypersphere, Mixture, metres_apart

# What the learned scalars of `weighted` start from: at 0 they would have no gradient.
LEARNED_START = 0.5


def l2(raw: jax.Array, at: jax.Array, coding: Direct | Hypersphere, *, wrap: bool = False) -> jax.Array:
    """The mean of the squared differences of a coding's numbers (Gaza, section 3.5.1).

    Args:
      wrap: the bearing of `Direct` differs by at most half a turn. Without, as the document has it, 359 and 1 degrees
        are nearly a whole turn apart.
    """
    return _mean(jnp.square(_differences(raw, at, coding, wrap)), at, coding)


def l1(raw: jax.Array, at: jax.Array, coding: Direct | Hypersphere, *, wrap: bool = False) -> jax.Array:
    """The mean of the absolute differences; `wrap` as for `l2`."""
    return _mean(jnp.abs(_differences(raw, at, coding, wrap)), at, coding)


def weighted(
    raw: jax.Array, at: jax.Array, coding: Direct, learned: jax.Array, *, wrap: bool = True, metres: bool = False
) -> jax.Array:
    """exp(-alpha²) dpos + alpha² + exp(-beta²) dbearing + beta², both weights learned (Gaza, section 3.5.1).

    A weight cannot exceed 1, and a difference below 1 drives its scalar to 0: in normalised numbers, which differ by
    less, the loss ends as a plain sum. In metres and degrees the weights end as the inverse of the mean difference.

    Args:
      learned: [2], alpha and beta; they start from `LEARNED_START`.
      wrap: bearings differ by at most half a turn.
      metres: differences are metres and degrees; else means of squared normalised differences.
    """
    alpha, beta = jnp.square(learned[0]), jnp.square(learned[1])
    known = _known(at)
    away = _differences(raw, at, coding, wrap)
    if metres:
        position, turned = metres_apart(coding.area, coding.outputs(raw), at), 360.0 * jnp.abs(away[..., 2])
    else:
        position, turned = jnp.mean(jnp.square(away[..., :2]), -1), jnp.square(away[..., 2])
    return jnp.exp(-alpha) * position + alpha + jnp.where(known, jnp.exp(-beta) * turned + beta, 0.0)


def haversine(
    raw: jax.Array,
    at: jax.Array,
    coding: Direct | Hypersphere,
    *,
    metres: float = 1000.0,
    turn: float = 1.0,
) -> jax.Array:
    """The distance along a great circle (ReGeo's loss), and half of 1 - cos of what the bearing is off.

    Float32 computes 0.1 m to 5e-7 m; what rounding takes is what the coding's numbers are coarse by: 1 mm of 10 km for
    `Direct` and a spread hypersphere, a metre for one in degrees.

    Args:
      metres: of one unit of the loss.
      turn: weight of the bearing, whose part is 1 for the opposite one.
    """
    found, _ = coding.decode(raw)
    apart = metres_apart(coding.area, found, at) / metres
    if not coding.bearing:
        return apart
    both = _known(at) & jnp.isfinite(found[..., 2])
    away = jnp.where(both, found[..., 2], 0.0) - jnp.where(both, at[..., 2], 0.0)
    return apart + turn * jnp.square(jnp.sin(np.pi * away))


def cross_entropy(raw: jax.Array, at: jax.Array, coding: Cells) -> jax.Array:
    """Cross entropy with the class of a position, or with its soft labels (Gaza, section 3.5.2).

    Where the bearing is not known, a cell's probability is that of all its sectors together.
    """
    target = coding.encode(at)
    sectors = np.arange(coding.directions, dtype=np.int32)
    classes = target.cells[..., None] * coding.directions + sectors.reshape((1,) * target.cells.ndim + (-1,))
    seen = jnp.take_along_axis(raw, classes.reshape(*raw.shape[:-1], -1), -1).reshape(classes.shape)
    sector = target.sector[..., None, None]
    mine = (sector < 0) | (sector == sectors.reshape((1,) * target.cells.ndim + (-1,)))
    of_cells = jax.nn.logsumexp(jnp.where(mine, seen, LOWEST), -1)
    return jax.nn.logsumexp(raw, -1) - jnp.sum(target.weights * of_cells, -1)


def mixture(raw: jax.Array, at: jax.Array, coding: Mixture) -> jax.Array:
    """The negative logarithm of the density that a mixture gives to a position, of the area and of a turn.

    Without a known bearing it is the density of the position alone: each hypothesis' density of bearings sums to one.
    """
    found, known = coding.hypotheses(raw), _known(at)
    away = (at[..., None, :2] - found.means) * jnp.exp(-found.log_sigmas)
    each = -0.5 * jnp.sum(jnp.square(away), -1) - jnp.sum(found.log_sigmas, -1) - float(np.log(2 * np.pi))
    if found.toward is not None:
        angle = 2 * np.pi * jnp.where(known, at[..., 2], 0.0)
        direction = jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)[..., None, :]
        kappa = _length(found.toward)
        turned = jnp.sum(found.toward * direction, -1) - kappa - jnp.log(jax.scipy.special.i0e(kappa))
        each = each + jnp.where(known[..., None], turned, 0.0)
    return -jax.nn.logsumexp(jax.nn.log_softmax(found.logits, -1) + each, -1)


class PositionLoss(NamedTuple):
    """A loss by name: the function, the codings it goes with, its options, and how many scalars it learns."""

    function: Callable[..., jax.Array]
    codings: tuple[type, ...]
    options: dict[str, Any]
    learned: int = 0


LOSSES: dict[str, PositionLoss] = {
    "l2": PositionLoss(l2, (Direct, Hypersphere), {"wrap": False}),
    "l1": PositionLoss(l1, (Direct, Hypersphere), {"wrap": False}),
    "weighted": PositionLoss(weighted, (Direct,), {"wrap": True, "metres": False}, learned=2),
    "haversine": PositionLoss(haversine, (Direct, Hypersphere), {"metres": 1000.0, "turn": 1.0}),
    "cross_entropy": PositionLoss(cross_entropy, (Cells,), {}),
    "mixture": PositionLoss(mixture, (Mixture,), {}),
}


def loss_for(loss: str, coding: Coding) -> PositionLoss:
    """The loss of that name, for a coding.

    Raises:
      ValueError: for a name that does not exist, or a loss that does not go with the coding; says which do.
    """
    if loss not in LOSSES:
        raise ValueError(f"no loss of positions {loss!r}; there are {sorted(LOSSES)}")
    found, kind = LOSSES[loss], type(coding)
    if kind not in found.codings:
        fit = [name for name, one in LOSSES.items() if kind in one.codings]
        raise ValueError(f"the loss {loss!r} does not go with the head {kind.__name__.lower()!r}, which takes {fit}")
    if found.learned and not coding.bearing:
        raise ValueError(f"the loss {loss!r} weighs position against bearing, and this head has none (bearing=false)")
    return found


def _differences(raw: jax.Array, at: jax.Array, coding: Direct | Hypersphere, wrap: bool) -> jax.Array:
    """Differences [..., numbers] of what the head says and what it should; 0 where that is not known.

    A point of the hypersphere whose bearing is not known is compared in (w, sqrt(x² + y²), 0, z).
    """
    known, filled = _known(at)[..., None], jnp.where(jnp.isnan(at), 0.0, at)
    said, wanted = coding.outputs(raw), coding.encode(filled)
    if not coding.bearing:
        return said - wanted
    away = said - wanted
    if isinstance(coding, Hypersphere):
        across = coding.across(said) - coding.across(wanted)
        blind = jnp.stack([away[..., 0], across, jnp.zeros_like(across), away[..., 3]], -1)
        return jnp.where(known, away, blind)
    last = away[..., 2:] - jnp.round(away[..., 2:]) if wrap else away[..., 2:]
    return jnp.concatenate([away[..., :2], jnp.where(known, last, 0.0)], -1)


def _mean(terms: jax.Array, at: jax.Array, coding: Direct | Hypersphere) -> jax.Array:
    """The mean of the terms [..., numbers] of each row: of all, or of those but one without its bearing."""
    count = terms.shape[-1] - (~_known(at)).astype(terms.dtype) * float(coding.bearing)
    return jnp.sum(terms, -1) / count


def _known(at: jax.Array) -> jax.Array:
    return jnp.isfinite(at[..., 2])


def _length(vectors: jax.Array) -> jax.Array:
    """Lengths [...] of vectors; of a zero one the gradient is zero."""
    squares = jnp.sum(jnp.square(vectors), -1)
    long = squares > 0
    return jnp.where(long, jnp.sqrt(jnp.where(long, squares, 1.0)), 0.0)
