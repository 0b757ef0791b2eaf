"""A lower learning rate where validation no longer gets better: torch's ReduceLROnPlateau as a pure function.

What it remembers is a `Watch` on the host, plain numbers that go into a checkpoint's JSON as they are. Its `scale`
multiplies the rate of whatever schedule there is: `Optimiser.update(..., scale=watch.scale)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from jaxvpr.errors import UserError


class Watch(NamedTuple):
    """What is remembered from one validation to the next.

    Attributes:
      best: the best value so far; None before the first that is a number.
      bad: validations in a row that were not better.
      cooling: validations for which none counts as bad.
      scale: what the learning rate is multiplied by.
    """

    best: float | None = None
    bad: int = 0
    cooling: int = 0
    scale: float = 1.0


Rule = Callable[[Watch, float, float], Watch]


def plateau(
    *,
    mode: str = "min",
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    cooldown: int = 0,
    min_rate: float = 0.0,
    validations: int = 0,
) -> Rule:
    """The rule `(watch, value, rate) -> watch` to follow after each validation.

    `value` is what validation gave and `rate` the learning rate of the moment without the watch's scale. Every process
    must follow it with the same value, or their programs drift apart.

    Args:
      mode: "min" where lower values are better, as of a loss; "max" for a recall.
      factor: of the rate, once more than `patience` validations in a row were not better.
      threshold: by which share of the best a value must be better to count.
      cooldown: validations after a reduction that count for nothing.
      min_rate: the rate does not fall below this.
      validations: how many the run has; 0 where that is not known.

    Raises:
      UserError: for settings that make no sense, and where the run would end before anything is reduced.
    """
    if mode not in ("min", "max"):
        raise UserError(f"reduction on a plateau: mode={mode!r} is neither 'min' nor 'max'")
    if not 0 < factor < 1:
        raise UserError(f"reduction on a plateau: factor={factor} must lie between 0 and 1")
    if min(patience, threshold, cooldown, min_rate) < 0:
        raise UserError("reduction on a plateau: patience, threshold, cooldown and min_rate must not be below 0")
    # The first is the best there is, `patience` more may be worse, the next one reduces, and one must see it.
    if 0 < validations < patience + 3:
        raise UserError(
            f"reduction on a plateau never comes: the run has {validations} validations, patience={patience} needs "
            f"{patience + 3}; lower patience, validate more often or train for longer"
        )

    def follow(watch: Watch, value: float, rate: float) -> Watch:
        better = _better(mode, value, watch.best, threshold)
        best, bad = (value, 0) if better else (watch.best, watch.bad + 1)
        cooling = watch.cooling
        if cooling:
            cooling, bad = cooling - 1, 0
        if bad <= patience:
            return Watch(best, bad, cooling, watch.scale)
        return Watch(best, 0, cooldown, _reduced(watch.scale, rate, factor, min_rate))

    return follow


def _better(mode: str, value: float, best: float | None, threshold: float) -> bool:
    if best is None:
        return not math.isnan(value)
    return value < best * (1 - threshold) if mode == "min" else value > best * (1 + threshold)


def _reduced(scale: float, rate: float, factor: float, min_rate: float) -> float:
    """The next scale; as in torch, a reduction of less than 1e-8 is none."""
    lower = max(rate * scale * factor, min_rate)
    return lower / rate if rate * scale - lower > 1e-8 else scale
