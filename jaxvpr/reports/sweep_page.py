"""What a sweep leaves in its folder for people and programs: `sweep.json`, `sweep.csv`, `sweep.md`, `sweep.html`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from data_pipelines.whole import write_bytes, write_json
from jaxvpr.reports.charts import COLOURS, Series, many_lines
from jaxvpr.reports.html import page
from jaxvpr.reports.sweep_tables import (
    DOMAIN,
    NOTE,
    Test,
    Variation,
    best_of,
    comma_separated,
    grid,
    markdown,
    ranks,
    tests,
    unfinished,
    variations,
    written,
)
from jaxvpr.reports.tables import duration, words
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
    states = [run["state"] for run in sweep["runs"]]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    spent = math.fsum(run["seconds"] or 0 for run in sweep["runs"])
    body = [
        f"<h1>{escape(sweep['name'])}</h1>",
        f'<p class="muted">Recipe {escape(sweep["recipe"])}. {len(states)} runs: {counts}. '
        f"Training took {duration(spent)}.</p>",
        _section("R@1 in validation, epoch by epoch", _plot(ranked)),
        _section("Accuracy of the domain classifier", _domains(ranked, colours)),
    ]
    for test in tests(found):
        measured = next(t for run in sweep["runs"] for t in run["test"] if (t["dataset"], t["threshold"]) == test)
        about = f"Test {escape(test[0])}, {escape(words(test[1]))}, {measured['queries']:,} queries"
        tables = (_grid(sweep, found, test) if sweep["rows"] else "") + _list(ranked, test, colours)
        body.append(_section(about, f'{tables}<p class="muted">{NOTE}</p>'))
    body.append(_section("Failed", _failures(found)))
    body.append(_section("Not measured yet", _waiting(found)))
    return page(f"Sweep {sweep['name']}", body)


def _ranked(found: Sequence[Variation]) -> list[Variation]:
    """Best first: by the first test, and those without a figure by their last validation."""

    def worth(one: Variation) -> tuple[bool, float]:
        tested = next(iter(one.figures.values()), None)
        return tested is not None, tested.first if tested else list(one.curve.values())[-1] if one.curve else -1.0

    return sorted(found, key=worth, reverse=True)


def _plot(ranked: Sequence[Variation]) -> str:
    lines = [Series(one.name, list(one.curve), list(one.curve.values()), "") for one in ranked]
    chart = many_lines(lines, x_label="epoch", y_label="R@1, %")
    if not chart:
        return ""
    words = "Mean over the seeds of a run. In colour: the best on the test. Point at a line to bring it forward."
    return f'<div class="panel">{chart}<p class="muted">{words}</p></div>'


def _domains(ranked: Sequence[Variation], colours: Mapping[str, str]) -> str:
    """How well each run's domains could be told apart, in the colours of the picture above."""
    lines = [
        Series(one.name, list(one.domain_curve), list(one.domain_curve.values()), colours.get(one.name, "place"))
        for one in ranked
    ]
    chart = many_lines(
        lines, x_label="step", y_label="accuracy, %", y_range=(0.0, 100.0), level=(f"{FOOLED:.0f} % (fooled)", FOOLED)
    )
    words = f"The first seed of each run, each point the mean of some steps. {MEANING}"
    return f'<div class="panel">{chart}<p class="muted">{words}</p></div>' if chart else ""


def _grid(sweep: Mapping[str, Any], found: Sequence[Variation], test: Test) -> str:
    """R@1 in the cells of rows and columns, the better the darker."""
    rows, columns, cells = grid(found)
    values = [one.figures[test].first for one in found if test in one.figures]
    low, high = min(values), max(values)

    def cell(one: Variation | None) -> str:
        if one is None or test not in one.figures:
            text = "" if one is None else unfinished(one)
            return f'<td class="{"failed" * (text == "failed")}">{text}</td>'
        figure = one.figures[test]
        number, _, rest = written(figure).partition(" ")
        share = 4 + 34 * (figure.first - low) / ((high - low) or 1)
        kind = "heat best" if figure.first == high else "heat"
        number = f"<b>{number}</b>" if figure.first == high else number
        return f'<td class="{kind}" style="--share:{share:.0f}%">{number}<small>{rest}</small></td>'

    heads = "".join(f"<th>{escape(column)}</th>" for column in columns)
    lines = "".join(
        f"<tr><td>{escape(row)}</td>{''.join(cell(cells.get((row, column))) for column in columns)}</tr>"
        for row in rows
    )
    corner = f"{escape(sweep['rows'])} \\ {escape(sweep['columns'])}"
    return (
        f'<div class="panel"><h3>R@1 by {escape(sweep["rows"])} and {escape(sweep["columns"])}, %</h3>'
        f'<div class="scroll"><table class="cells"><thead><tr><th>{corner}</th>{heads}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div></div>"
    )


def _list(ranked: Sequence[Variation], test: Test, colours: Mapping[str, str]) -> str:
    ns, best = ranks(ranked, test), best_of(ranked, test)
    told = any(one.domain is not None for one in ranked)
    mines = any((one.planning_seconds or 0) >= 1 for one in ranked)  # else it is drawing, in milliseconds
    rows = ""
    for one in ranked:
        if test not in one.figures:
            continue
        figure = one.figures[test]
        number, _, rest = written(figure).partition(" ")
        others = "".join(f"<td>{figure.recall[n]:.1f}</td>" for n in ns[1:])
        top = f"{max(one.curve.values()):.1f}" if one.curve else "–"
        domain = f"<td>{'–' if one.domain is None else f'{one.domain:.1f}'}</td>" * told
        spent = (one.seconds, one.planning_seconds)[: 1 + mines]
        took = "".join(f"<td>{'–' if seconds is None else duration(seconds)}</td>" for seconds in spent)
        look = f"border-top-color:var(--{colours.get(one.name, 'place')})"
        rows += (
            f'<tr{" class=run" * (figure.first == best)}><td><span class="key" style="{look}"></span>'
            f"{escape(one.name)}</td><td>{number}<small>{rest}</small></td>{others}<td>{top}</td>{domain}{took}</tr>"
        )
    titles = [
        *(f"R@{n}" for n in ns),
        "best in validation",
        *[DOMAIN] * told,
        "time of a run",
        *["of it mining"] * mines,
    ]
    heads = "".join(f"<th>{title}</th>" for title in titles)
    return (
        '<div class="panel"><h3>All runs, best first</h3><div class="scroll"><table><thead><tr><th>run</th>'
        f"{heads}</tr></thead><tbody>{rows}</tbody></table></div></div>"
    )


def _failures(found: Sequence[Variation]) -> str:
    items = "".join(
        f"<p><b>{escape(folder)}</b><br>{escape(message)}</p>" for one in found for folder, message in one.failures
    )
    return (
        f'<div class="panel">{items}<p class="muted">failure.txt in the folder of a run says where.</p></div>'
        * bool(items)
    )


def _waiting(found: Sequence[Variation]) -> str:
    names = [one.name for one in found if {"waiting", "begun"} & set(one.states)]
    return f'<div class="panel">{escape(", ".join(names))}</div>' if names else ""


def _section(heading: str, content: str) -> str:
    return f"<section><h2>{heading}</h2>{content}</section>" if content else ""
