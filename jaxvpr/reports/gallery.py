"""The gallery: queries with their first predictions framed green or red, wrong ones first, pictures embedded."""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np

from jaxvpr.reports.pictures import data_uri, named
from jaxvpr.reports.render import render

SIDES = (176, 128, 96)  # pixels of an embedded picture's longer side, tried until all fit into the budget
BUDGET = 4_000_000  # bytes of all embedded pictures together
SHOWN = 48  # queries
PREDICTIONS = 5  # of each query
WRONG_SHARE = 0.7  # of the queries shown, where there are enough wrong ones


Shown: TypeAlias = "str | os.PathLike[str] | tuple[str, ...]"


@dataclass(frozen=True)
class GalleryItem:
    """A query and its predictions, best first.

    Attributes:
      query: path of its picture, or those of its frames, a tuple: a clip is shown as a strip.
      predictions: those of the first predictions.
      right: one truth value a prediction.
      distances: of the descriptors, squared L2; may be empty.
      metres: from the query to each prediction, NaN where unknown; may be empty.
      conditions: of the query, such as ("night", "rain").
      truth: that of the nearest positive, None where there is none; shown where no shown prediction is right.
      truth_rank: rank (from 1) of the first right prediction of all, None where there is none.
      name: of the query; its file name if empty.
      number: row of the query in its data set, by which map and list name it; None where it has none.
    """

    query: Shown
    predictions: Sequence[Shown]
    right: Sequence[bool]
    distances: Sequence[float] = field(default=())
    metres: Sequence[float] = field(default=())
    conditions: Sequence[str] = field(default=())
    truth: Shown | None = None
    truth_rank: int | None = None
    name: str = ""
    number: int | None = None

    @property
    def correct(self) -> bool:
        """Is the first prediction right?"""
        return bool(len(self.right)) and bool(self.right[0])

    @property
    def title(self) -> str:
        """The name of the query."""
        return self.name or Path(str(named(self.query))).name

    @property
    def clips(self) -> bool:
        """Does it show clips?"""
        return any(isinstance(shown, tuple) for shown in (self.query, *self.predictions))

    def missed(self, shown: int) -> bool:
        """Is there a right answer, but not among the first `shown`?"""
        return self.truth is not None and not any(self.right[:shown])


def choose_queries(correct: Sequence[bool] | np.ndarray, most: int = SHOWN) -> list[int]:
    """At most `most` query numbers, wrong ones first, evenly spaced over each kind so that no place dominates.

    Args:
      correct: one truth value a query.
    """
    wrong, right = (np.flatnonzero(np.asarray(correct, bool) == kind) for kind in (False, True))
    wanted = min(len(wrong), max(round(most * WRONG_SHARE), most - len(right)))
    parts = (wrong, wanted), (right, min(len(right), most - wanted))
    return [int(rows[i * len(rows) // count]) for rows, count in parts for i in range(count)]


def draw(
    items: Sequence[GalleryItem], shown: int = PREDICTIONS, *, queries: int | None = None, mapped: Container[int] = ()
) -> str:
    """The section with its filter; empty text without items.

    Args:
      items: what to show, in this order.
      shown: how many predictions of each.
      queries: how many there are, of which `items` are a sample; None where these are all.
      mapped: numbers of the queries that have a place on the map.
    """
    return render(
        "gallery.html",
        items=items,
        shown=shown,
        columns=max((1 + len(item.predictions[:shown]) + item.missed(shown) for item in items), default=0),
        pictures=_embedded(items, shown),
        conditions=sorted({name for item in items for name in item.conditions}),
        distance=distance,
        named=named,
        queries=len(items) if queries is None else queries,
        mapped=mapped,
    )


def _embedded(items: Sequence[GalleryItem], shown: int) -> dict[str, str | None]:
    """Path -> data address of every picture, at the largest size that fits the budget."""
    drawn = [path for item in items for path in (item.query, *item.predictions[:shown])]
    drawn += [item.truth for item in items if item.truth is not None and item.missed(shown)]
    paths = {str(path): path for path in drawn}
    for side in SIDES:
        pictures = {name: data_uri(path, side) for name, path in paths.items()}
        if sum(len(pictures[str(path)] or "") for path in drawn) <= BUDGET:
            break
    return pictures


def distance(metres: float) -> str:
    """1234.5 -> '1.2 km'."""
    return f"{metres / 1000:,.1f} km" if metres >= 1000 else f"{metres:.0f} m" if metres >= 10 else f"{metres:.1f} m"
