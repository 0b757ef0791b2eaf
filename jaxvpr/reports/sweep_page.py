"""What a sweep leaves in its folder for people and programs: `sweep.json`, `sweep.csv`, `sweep.md`, `sweep.html`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.atomic import write_bytes, write_json
from jaxvpr.reports.charts import COLOURS, Series, many_lines
from jaxvpr.reports.render import render
from jaxvpr.reports.sweep_tables import (
    DOMAIN,
    NOTE,
    Test,
    Variation,
    comma_separated,
    figure_text,
    grid,
    markdown,
    ranks,
    tests,
    unfinished,
    variations,
)
from jaxvpr.reports.tables import duration, threshold_text
from jaxvpr.reports.training import FOOLED, MEANING


def write_sweep(folder: Path, sweep: Mapping[str, Any]) -> None:
    """Writes the four files, each whole or not at all.

    Args:
      folder: of the sweep; it is made.
      sweep: `name`, `recipe`, `rows`, `columns` (titles, or empty) and `runs`, records of `jaxvpr.sweep.record`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "sweep.json", dict(sweep))
    write_bytes(folder / "sweep.csv", comma_separated(sweep).encode())
    write_bytes(folder / "sweep.md", markdown(sweep).encode())
    write_bytes(folder / "sweep.html", html(sweep).encode())


def html(sweep: Mapping[str, Any]) -> str:
    """The page of a sweep: R@1 per epoch of all runs in one picture, and every table."""
    found = variations(sweep["runs"])
    ranked = _ranked(found)
    colours = {one.name: colour for one, colour in zip([one for one in ranked if one.curve], COLOURS, strict=False)}
    lines = [Series(one.name, list(one.curve), list(one.curve.values()), "") for one in ranked]
    return render(
        "sweep.html",
        title=f"Sweep {sweep['name']}",
        sweep=sweep,
        states=Counter(run["state"] for run in sweep["runs"]),
        spent=math.fsum(run["seconds"] or 0 for run in sweep["runs"]),
        recall=many_lines(lines, x_label="epoch", y_label="R@1, %"),
        domains=_domains(ranked, colours),
        meaning=MEANING,
        tests=[_test(sweep, ranked, test) for test in tests(found)],
        grid=grid(found),
        ranked=ranked,
        colours=colours,
        has_domain=any(one.domain is not None for one in ranked),
        mines=any((one.planning_seconds or 0) >= 1 for one in ranked),  # else it is drawing, in milliseconds
        domain_title=DOMAIN,
        note=NOTE,
        failures=[failure for one in found for failure in one.failures],
        waiting=[one.name for one in found if {"waiting", "begun"} & set(one.states)],
        duration=duration,
        threshold_text=threshold_text,
        figure_text=figure_text,
        unfinished=unfinished,
    )


def _test(sweep: Mapping[str, Any], ranked: Sequence[Variation], test: Test) -> dict[str, Any]:
    """What the page says of one test above the figures themselves."""
    measured = next(t for run in sweep["runs"] for t in run["test"] if (t["dataset"], t["threshold"]) == test)
    values = [one.figures[test].first for one in ranked if test in one.figures]
    return {
        "name": test,
        "queries": measured["queries"],
        "ns": ranks(ranked, test),
        "lowest": min(values),
        "best": max(values),
    }


def _ranked(found: Sequence[Variation]) -> list[Variation]:
    """Best first: by the first test, and those without a figure by their last validation."""

    def worth(one: Variation) -> tuple[bool, float]:
        tested = next(iter(one.figures.values()), None)
        return tested is not None, tested.first if tested else list(one.curve.values())[-1] if one.curve else -1.0

    return sorted(found, key=worth, reverse=True)


def _domains(ranked: Sequence[Variation], colours: Mapping[str, str]) -> str:
    """How well each run's domains could be told apart, in the colours of the picture of their recall."""
    lines = [
        Series(one.name, list(one.domain_curve), list(one.domain_curve.values()), colours.get(one.name, "place"))
        for one in ranked
    ]
    return many_lines(
        lines, x_label="step", y_label="accuracy, %", y_range=(0.0, 100.0), level=(f"{FOOLED:.0f} % (fooled)", FOOLED)
    )
