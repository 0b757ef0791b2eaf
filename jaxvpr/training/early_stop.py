"""Which measure of a validation decides, and when there were enough validations that were no better.

Both are plain numbers on the host. Every process must follow them with the same values, or one would stop alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from jaxvpr.errors import UserError


class Patience(NamedTuple):
    """What is remembered from one validation to the next; goes into a checkpoint's JSON as it is.

    Attributes:
      best: the highest value so far; None before the first that is a number.
      bad: validations in a row, up to now, that were not higher than it.
    """

    best: float | None = None
    bad: int = 0


def after(patience: Patience, value: float) -> Patience:
    """The patience after one more validation.

    Strictly higher counts, as in the Deep VG benchmark (Berton et al., CVPR 2022), which stops training after three in
    a row that were not.
    """
    lowest = float("-inf") if patience.best is None else patience.best
    return Patience(value) if value > lowest else patience._replace(bad=patience.bad + 1)


def deciding(measures: Iterable[str], wanted: str) -> str | None:
    """The measure that decides which checkpoint is the best, of those of a validation.

    Args:
      measures: `<set>/R@<N>`, those of the first validation set first.
      wanted: one of them, or `R@<N>` for that of the first set, or "" for the first of all.

    Returns:
      Its name; None where there are no measures and none is wanted.

    Raises:
      UserError: for one that does not exist; lists those that do.
    """
    names = list(measures)
    if not wanted:
        return names[0] if names else None
    of_first = f"{names[0].rpartition('/')[0]}/{wanted}" if names else ""
    for name in (wanted, of_first):
        if name in names:
            return name
    there = f"there are {', '.join(names)}, or R@N alone for the first set" if names else "the recipe has no val_data"
    raise UserError(f"config.best.measure={wanted!r} is not measured in validation; {there}")


class Deciding(NamedTuple):
    """Which measure of a validation decides which checkpoint is the best.

    Attributes:
      wanted: the recipe's `best.measure`, as of `deciding`.
      measures: {measure: "max" or "min", what is better}; one that is not there is better the higher it is.
    """

    wanted: str
    measures: Mapping[str, str]

    def name(self, measured: Mapping[str, float]) -> str | None:
        """Its name, of those of a validation; None where there are none. UserError for one that is not there."""
        return deciding(measured, self.wanted)

    def lower_is_better(self, name: str | None) -> bool:
        return self.measures.get(name or "") == "min"

    def score(self, name: str, value: float) -> float:
        """The value as a number that is better the higher it is."""
        return -value if self.lower_is_better(name) else value
