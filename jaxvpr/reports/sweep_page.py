"""The files of a sweep for people and programs: `sweep.json`, `sweep.csv`, `sweep.md`, `sweep.html`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.atomic import write_bytes, write_json
from jaxvpr.reports import position_sweep
from jaxvpr.reports.charts import COLOURS, Series, many_lines
from jaxvpr.reports.render import encoded, render
from jaxvpr.reports.sweep_tables import (
    DOMAIN,
    NOTE,
    Test,
    Variation,
    comma_separated,
    figure_text,
    grid,
    group_runs,
    markdown,
    ranks,
    tests,
    unfinished,
)
from jaxvpr.reports.tables import duration, threshold_text
from jaxvpr.reports.training import FOOLED, MEANING


def write_sweep(folder: Path, sweep: Mapping[str, Any]) -> None:
    """Writes the four files, each completely or not at all.

    Args:
      folder: of the sweep; it is made.
      sweep: `name`, `recipe`, `rows`, `columns` (titles, or empty) and `runs`, records of `jaxvpr.sweep.record`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "sweep.json", dict(sweep))
    write_bytes(folder / "sweep.csv", encoded(comma_separated(sweep)))
    write_bytes(folder / "sweep.md", encoded(markdown(sweep)))
    write_bytes(folder / "sweep.html", encoded(html(sweep)))


def html(sweep: Mapping[str, Any]) -> str:
    """The page of a sweep: R@1 per epoch of all runs in one picture, and every table."""
    variations = group_runs(sweep["runs"])
    ranked = _ranked(variations)
    colours = dict(zip((variation.name for variation in ranked if variation.curve), COLOURS, strict=False))
    lines = [Series(variation.name, list(variation.curve), list(variation.curve.values()), "") for variation in ranked]
    return render(
        "sweep.html",
        title=f"Sweep {sweep['name']}",
        sweep=sweep,
        states=Counter(run["state"] for run in sweep["runs"]),
        spent=math.fsum(run["seconds"] or 0 for run in sweep["runs"]),
        recall=many_lines(lines, x_label="epoch", y_label="R@1, %"),
        positions=position_sweep.section(sweep),
        domains=_domains(ranked, colours),
        meaning=MEANING,
        tests=[_test(sweep, ranked, test) for test in tests(variations)],
        grid=grid(variations),
        ranked=ranked,
        colours=colours,
        has_domain=any(variation.domain is not None for variation in ranked),
        mines=any((variation.planning_seconds or 0) >= 1 for variation in ranked),  # else only drawing, in ms
        domain_title=DOMAIN,
        note=NOTE,
        failures=[failure for variation in variations for failure in variation.failures],
        waiting=[variation.name for variation in variations if {"waiting", "begun"} & set(variation.states)],
        duration=duration,
        threshold_text=threshold_text,
        figure_text=figure_text,
        unfinished=unfinished,
    )


def _test(sweep: Mapping[str, Any], ranked: Sequence[Variation], test: Test) -> dict[str, Any]:
    """The facts of one test above its figures."""
    measured = next(t for run in sweep["runs"] for t in run["test"] if (t["dataset"], t["threshold"]) == test)
    values = [variation.figures[test].first for variation in ranked if test in variation.figures]
    return {
        "name": test,
        "queries": measured["queries"],
        "ns": ranks(ranked, test),
        "lowest": min(values),
        "best": max(values),
    }


def _ranked(variations: Sequence[Variation]) -> list[Variation]:
    """Best first: by the first test, and those without a figure by their last validation."""

    def worth(variation: Variation) -> tuple[bool, float]:
        tested, curve = next(iter(variation.figures.values()), None), [-1.0, *variation.curve.values()]
        return tested is not None, tested.first if tested else curve[-1]

    return sorted(variations, key=worth, reverse=True)


def _domains(ranked: Sequence[Variation], colours: Mapping[str, str]) -> str:
    """The accuracy of each run's domain classifier, in the colours of the picture of recall."""
    curves = [(variation.name, variation.domain_curve) for variation in ranked]
    lines = [Series(name, list(curve), list(curve.values()), colours.get(name, "place")) for name, curve in curves]
    return many_lines(
        lines, x_label="step", y_label="accuracy, %", y_range=(0.0, 100.0), level=(f"{FOOLED:.0f} % (fooled)", FOOLED)
    )
