"""The gallery: queries with their first predictions framed green or red, wrong ones first, pictures embedded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np

from jaxvpr.reports.pictures import data_uri

SIDES = (176, 128, 96)  # pixels of an embedded picture's longer side, tried until all fit into the budget
BUDGET = 4_000_000  # bytes of all embedded pictures together
SHOWN = 48  # queries
RIGHT, WRONG = "\u2713", "\u2717"  # a tick and a cross: green and red are not enough for everyone
WRONG_SHARE = 0.7  # of the queries shown, where there are enough wrong ones


@dataclass(frozen=True)
class GalleryItem:
    """A query and what was found for it, best first.

    Attributes:
      query: path of its picture.
      predictions: paths of the first predictions.
      right: one truth value a prediction.
      distances: of the descriptors, squared L2; may be empty.
      metres: from the query to each prediction, NaN where unknown; may be empty.
      condition: of the query, such as "night".
      truth: path of the nearest positive, None where there is none; shown where no shown prediction is right.
      truth_rank: rank (from 1) of the first right prediction of all, None where there is none.
      name: what the query is called; its file name if empty.
    """

    query: str | os.PathLike[str]
    predictions: Sequence[str | os.PathLike[str]]
    right: Sequence[bool]
    distances: Sequence[float] = field(default=())
    metres: Sequence[float] = field(default=())
    condition: str = ""
    truth: str | os.PathLike[str] | None = None
    truth_rank: int | None = None
    name: str = ""

    @property
    def correct(self) -> bool:
        """Is the first prediction right?"""
        return bool(len(self.right)) and bool(self.right[0])


def spread(correct: Sequence[bool] | np.ndarray, most: int = SHOWN) -> list[int]:
    """At most `most` query numbers, wrong ones first, evenly spaced over each kind so that no place dominates.

    Args:
      correct: one truth value a query.
    """
    wrong, right = (np.flatnonzero(np.asarray(correct, bool) == kind) for kind in (False, True))
    wanted = min(len(wrong), max(round(most * WRONG_SHARE), most - len(right)))
    parts = (wrong, wanted), (right, min(len(right), most - wanted))
    return [int(rows[i * len(rows) // count]) for rows, count in parts for i in range(count)]


def draw(items: Sequence[GalleryItem], shown: int = 5) -> str:
    """The section with its filter; empty text without items. Shows the first `shown` predictions of each."""
    if not items:
        return ""
    items = [items[number] for number in spread([item.correct for item in items])]
    pictures = _embedded(items, shown)
    columns = max(1 + len(item.predictions[:shown]) + _shows_truth(item, shown) for item in items)
    answers = "".join(_answer(item, pictures, shown, columns) for item in items)
    return f'<div id="gallery">{_controls(items)}{answers}</div>'


def _embedded(items: Sequence[GalleryItem], shown: int) -> dict[str, str | None]:
    """Path -> data address of every picture, at the largest size that fits the budget."""
    paths = [os.fspath(path) for item in items for path in (item.query, *item.predictions[:shown])]
    paths += [os.fspath(item.truth) for item in items if item.truth is not None and _shows_truth(item, shown)]
    for side in SIDES:
        pictures = {path: data_uri(path, side) for path in set(paths)}
        if sum(len(pictures[path] or "") for path in paths) <= BUDGET:
            break
    return pictures


def _controls(items: Sequence[GalleryItem]) -> str:
    wrong = sum(not item.correct for item in items)
    kinds = (("", f"all ({len(items)})"), ("wrong", f"wrong ({wrong})"), ("right", f"right ({len(items) - wrong})"))
    buttons = "".join(
        f'<button type="button" value="{value}" aria-pressed="{str(not value).lower()}">{text}</button>'
        for value, text in kinds
    )
    conditions = sorted({item.condition for item in items if item.condition})
    options = "".join(f'<option value="{escape(name, quote=True)}">{escape(name)}</option>' for name in conditions)
    choice = f'<label>condition <select><option value="">all</option>{options}</select></label>' if options else ""
    return f'<div class="controls">{buttons}{choice}</div>'


def _answer(item: GalleryItem, pictures: dict[str, str | None], shown: int, columns: int) -> str:
    verdict = "right" if item.correct else "wrong"
    mark = f"{RIGHT} right" if item.correct else f"{WRONG} wrong"
    name = item.name or Path(item.query).name
    facts = [f'<span class="badge {verdict}">{mark}</span>']
    facts += [f"<span>{escape(item.condition)}</span>"] if item.condition else []
    if not item.correct:
        facts.append(f"<span>{_rank(item)}</span>")
    facts.append(f'<span class="path">{escape(name)}</span>')
    tiles = [_tile("query", pictures[os.fspath(item.query)], "<b>query</b>", name)]
    tiles += [_prediction(item, i, pictures) for i in range(min(shown, len(item.predictions)))]
    if item.truth is not None and _shows_truth(item, shown):
        tiles.append(_tile("truth", pictures[os.fspath(item.truth)], "a right answer", os.fspath(item.truth)))
    return (
        f'<div class="answer" data-verdict="{verdict}" data-condition="{escape(item.condition, quote=True)}">'
        f'<header>{"".join(facts)}</header><div class="strip" style="--count:{columns}">{"".join(tiles)}</div></div>'
    )


def _rank(item: GalleryItem) -> str:
    if item.truth_rank:
        return f"first right answer at rank {item.truth_rank:,}"
    return "no right answer exists" if item.truth is None else "no right answer among the predictions"


def _shows_truth(item: GalleryItem, shown: int) -> bool:
    return item.truth is not None and not any(item.right[:shown])


def _prediction(item: GalleryItem, i: int, pictures: dict[str, str | None]) -> str:
    path = os.fspath(item.predictions[i])
    right = bool(item.right[i])
    words = [f"<b>{i + 1} {RIGHT if right else WRONG}</b>"]
    if len(item.metres) > i and item.metres[i] == item.metres[i]:
        words.append(_distance(item.metres[i]))
    if len(item.distances) > i:
        words.append(f"d\u00b2 {item.distances[i]:.3f}")
    return _tile("right" if right else "wrong", pictures[path], " \u00b7 ".join(words), path)


def _distance(metres: float) -> str:
    return f"{metres / 1000:,.1f} km" if metres >= 1000 else f"{metres:.0f} m" if metres >= 10 else f"{metres:.1f} m"


def _tile(kind: str, picture: str | None, caption: str, path: str) -> str:
    """One framed picture; `caption` is HTML, `path` is text."""
    hint = escape(path, quote=True)
    image = f'<img src="{picture}" alt="{hint}" title="{hint}" loading="lazy">' if picture else ""
    lost = "" if picture else f'<span class="lost" title="{hint}">not readable</span>'
    return f'<figure class="{kind}">{image}{lost}<figcaption>{caption}</figcaption></figure>'
