"""What the runs of a sweep of position heads learned: shares within a distance in training and beyond it, as a table
and, where the columns are numbers (of images, say), as curves of capacity and generalisation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from jaxvpr.reports.charts import Series, line_chart
from jaxvpr.reports.render import render
from jaxvpr.reports.sweep_tables import student
from jaxvpr.reports.training import WITHIN_KEY

COLOURS = ("run", "untrained", "other", "right", "wrong", "thumbnail")  # of the rows that are drawn
Record = Mapping[str, Any]


class Learned(NamedTuple):
    """The runs of one name, each at its best validation: means over the seeds.

    Attributes:
      name, row, column: of the runs.
      train, held_out: share of training images and of validation images within the distance, per cent; NaN where it is
        not known.
      interval: 95 % of `held_out`, Student's over the seeds; None of one seed.
      median: metres of the middle answer to validation images; NaN where it is not known.
      seeds: how many.
    """

    name: str
    row: str
    column: str
    train: float
    held_out: float
    interval: tuple[float, float] | None
    median: float
    seeds: int


def section(sweep: Mapping[str, Any]) -> str:
    """The part of a sweep's page; empty text where no run answers positions."""
    distance = _distance(sweep["runs"])
    learned = _learned(sweep["runs"], distance) if distance else []
    if not learned:
        return ""
    return render(
        "position_sweep.html",
        learned=learned,
        distance=distance,
        chart=_chart(sweep, learned, distance),
        isnan=math.isnan,
    )


def _distance(records: Sequence[Record]) -> str:
    """The distance that decides: 25m, or the first that the runs have; "" where they have none."""
    keys = [key for record in records for line in record["validation"] for key in line if WITHIN_KEY.search(key)]
    found = list(dict.fromkeys(key.rpartition("/")[2] for key in keys))
    return "25m" if "25m" in found else next(iter(found), "")


def _learned(records: Sequence[Record], distance: str) -> list[Learned]:
    named: dict[str, list[Record]] = {}
    for record in records:
        if any(_held_out(line, distance) for line in record["validation"]):
            named.setdefault(record["name"], []).append(record)
    return [_of_one(of_name, distance) for of_name in named.values()]


def _of_one(records: Sequence[Record], distance: str) -> Learned:
    best = [max(record["validation"], key=lambda line: _share(line, distance)) for record in records]
    shares = [_share(line, distance) for line in best]
    keys = [next(iter(_held_out(line, distance)), "") for line in best]
    medians = [line.get(f"{key.rpartition('/')[0]}/median_m", math.nan) for line, key in zip(best, keys, strict=True)]
    first = records[0]
    return Learned(
        first["name"],
        first["row"],
        first["column"],
        fmean(line.get(f"train/{distance}", math.nan) for line in best),
        fmean(shares),
        student(shares) if len(shares) > 1 else None,
        fmean(medians),
        len(shares),
    )


def _held_out(line: Record, distance: str) -> list[str]:
    """Keys of a line that say the share of images that do not train; the first set decides."""
    return [key for key in line if key.endswith(f"/{distance}") and not key.startswith("train/")]


def _share(line: Record, distance: str) -> float:
    keys = _held_out(line, distance)
    return float(line[keys[0]]) if keys else -1.0


def _chart(sweep: Mapping[str, Any], learned: Sequence[Learned], distance: str) -> str:
    """Shares against the columns, where these are numbers: training dashed, validation solid, one colour a row."""
    if not sweep["columns"] or not all(_number(one.column) for one in learned):
        return ""
    rows = list(dict.fromkeys(one.row for one in learned))[: len(COLOURS)]
    series = []
    for row, colour in zip(rows, COLOURS, strict=False):
        points = sorted((one for one in learned if one.row == row), key=lambda one: _number(one.column))
        x = [_number(one.column) for one in points]
        series.append(Series(f"{row}, training", x, [one.train for one in points], colour, dash="6 4"))
        series.append(Series(row, x, [one.held_out for one in points], colour, markers=True))
    ticks = sorted({_number(one.column) for one in learned})
    return line_chart(
        series,
        x_label=sweep["columns"],
        y_label=f"within {distance}, %",
        x_ticks=ticks,
        x_log=True,
        y_range=(0.0, 100.0),
    )


def _number(column: str) -> float:
    """The number that a column's name is, above 0; 0 where it is none."""
    try:
        found = float(column.replace(",", ""))
    except ValueError:
        return 0.0
    return found if 0 < found < math.inf else 0.0
