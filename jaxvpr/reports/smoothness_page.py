"""The page of smoothness: similarity against metres and degrees, and the similarities of the images of one street."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.atomic import write_bytes
from jaxvpr.reports.charts import Series, line_chart, number
from jaxvpr.reports.render import encoded, render

SUMMARY = ("along the street", "turned", "nearest", "different places")
COLOURS = ("run", "untrained", "other", "right")  # of the models: no more than that are drawn
SIDE = 480  # units of the matrix


class Photo(NamedTuple):
    """An image of the matrix: its `data:` address, None where it cannot be shown, and what stands below it."""

    picture: str | None
    caption: str
    path: str


def write(
    file: str | os.PathLike[str],
    title: str,
    measured: Sequence[Mapping[str, Any]],
    photos: Sequence[Photo],
    notes: Sequence[str],
) -> None:
    """Writes the page.

    Args:
      measured: what `smoothness.json` holds (docs/metrics.md), of this model and those that it is compared with; all of
        the same images.
      photos: the images of the matrix, in its order.
    """
    names = _names(measured)
    page = render(
        "smoothness.html",
        title=title,
        notes=notes,
        rows=[(name, colour, one, summary(one)) for name, colour, one in zip(names, COLOURS, measured, strict=False)],
        charts=[
            (heading, meaning, _chart(measured, names, key, label))
            for key, label, heading, meaning in (
                ("metres", "metres along the street", "Along a street", "Pairs on one street that look the same way."),
                ("degrees", "degrees turned", "Turned at one spot", "Pairs of one spot."),
            )
        ],
        headings=SUMMARY,
        matrices=_matrices(measured, names),
        photos=photos,
        side=SIDE,
        number=number,
    )
    write_bytes(file, encoded(page))


def summary(one: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """The cells of `SUMMARY` of a model."""
    bins, floor = one["metres"]["bins"], one["metres"]["floor"]
    nearest = f"{bins[0]['mean']:.3f} at {bins[0]['x']:.1f} m" if bins else "–"
    lengths = _length(one["metres"], " m"), _length(one["degrees"], "°")
    return *lengths, nearest, "–" if floor is None else f"{floor:.3f}"


def _names(measured: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the models are called, each by another name."""
    names: list[str] = []
    for one in measured:
        again = sum(name.partition(" #")[0] == one["name"] for name in names)
        names.append(f"{one['name']} #{again + 1}" if again else one["name"])
    return names


def _length(curve: Mapping[str, Any], unit: str) -> str:
    """The correlation length in words."""
    if curve["correlation_length"] is not None:
        return f"{curve['correlation_length']:.1f}{unit}"
    if curve["longer_than"] is not None:
        return f"longer than {curve['longer_than']:.0f}{unit}"
    return "–"


def _chart(measured: Sequence[Mapping[str, Any]], names: Sequence[str], key: str, label: str) -> str:
    """Means with markers, quartiles of the first model faint, floors dashed."""
    lines: list[Series] = []
    for at, (name, colour, one) in enumerate(zip(names, COLOURS, measured, strict=False)):
        x, mean, lower, upper = ([row[c] for row in one[key]["bins"]] for c in ("x", "mean", "lower", "upper"))
        if len(x) < 2:  # one point is no curve
            continue
        quartiles = [] if at else [Series("", x, line, colour, faint=True) for line in (lower, upper)]
        floor = one[key]["floor"]
        level = [] if floor is None else [Series("", [x[0], x[-1]], [floor] * 2, colour, dash="5 5", faint=True)]
        lines += [*quartiles, *level, Series(name, x, mean, colour, markers=True)]
    return line_chart(lines, x_label=label, y_label="cosine similarity")


def _matrices(measured: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """One picture for each model whose row of images is that of the first; all have one scale of colours."""
    rows = _images(measured[0])
    shown = [(name, one) for name, one in zip(names, measured, strict=True) if _images(one) == rows and rows]
    if not shown:
        return []
    off = [np.array(one["matrix"])[~np.eye(len(rows), dtype=bool)] for _, one in shown]
    low, high = min(part.min() for part in off), max(part.max() for part in off)
    metres = [image["metres"] for image in measured[0]["row"]]
    labelled = _spread(metres)
    return [
        {
            "name": name,
            "low": float(low),
            "high": float(high),
            "cells": [
                (i, j, value, 100 * float(np.clip((value - low) / ((high - low) or 1), 0, 1)))
                for i, line in enumerate(one["matrix"])
                for j, value in enumerate(line)
            ],
            "metres": metres,
            "labelled": labelled,
        }
        for name, one in shown
    ]


def _images(one: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """What tells the images of a row from others, wherever their folder lies."""
    return [(Path(image["path"]).name, image["metres"], image["heading"]) for image in one["row"]]


def _spread(metres: Sequence[float], most: int = 6) -> list[int]:
    """Rows whose metres are written beside the matrix: evenly spaced ones."""
    return sorted({round(k) for k in np.linspace(0, len(metres) - 1, min(most, len(metres)))})
