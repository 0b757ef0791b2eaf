"""The runs of a sweep as tables: every figure with its interval, in Markdown and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple

from jaxvpr.reports.tables import threshold_text

Test = tuple[str, str]  # data set, threshold
DOMAIN = "domain accuracy, last fifth"
NOTE = (
    "In brackets the 95 % interval: Wilson's over the queries for one run; for a mean over n seeds (marked ×n) "
    "Student's t over the seeds. Runs of one seed differ by chance too, which Wilson's interval does not cover."
)


class Figure(NamedTuple):
    """The recall of a variation on one test: the mean over its finished seeds.

    Attributes:
      seeds: how many are finished.
      recall: {"1": per cent, ...}.
      interval: of R@1, 95 %: over the queries for one seed, over the seeds for several.
    """

    seeds: int
    recall: dict[str, float]
    interval: tuple[float, float]

    @property
    def first(self) -> float:
        """The recall at the first rank that was measured: R@1."""
        return next(iter(self.recall.values()))


class Variation(NamedTuple):
    """The runs of one name.

    Attributes:
      name, row, column: of the variation.
      states: of its seeds.
      figures: {test: Figure}, for those seeds that are finished.
      curve: {epoch: R@1 of the first validation set, mean over the seeds that have come so far}.
      seconds: of a run, mean; None where none is finished. planning_seconds: the part of them spent on mining.
      failures: (folder, message) of the seeds that failed.
      domain: accuracy of the domain classifier over the last fifth of the steps, per cent, mean over the seeds; None
        where there is no such classifier.
      domain_curve: {step: the same as a mean of the steps around it}, of the first seed alone.
    """

    name: str
    row: str
    column: str
    states: tuple[str, ...]
    figures: dict[Test, Figure]
    curve: dict[int, float]
    seconds: float | None
    planning_seconds: float | None
    failures: tuple[tuple[str, str], ...]
    domain: float | None
    domain_curve: dict[float, float]


def group_runs(records: Sequence[Mapping[str, Any]]) -> list[Variation]:
    """Entries of `runs` of a `sweep.json`, those of one name together, in their order."""
    named: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        named.setdefault(record["name"], []).append(record)
    return [_variation(of_one) for of_one in named.values()]


def _variation(records: Sequence[Mapping[str, Any]]) -> Variation:
    measured: dict[Test, list[Mapping[str, Any]]] = {}
    for test in (test for record in records for test in record["test"]):
        measured.setdefault((test["dataset"], test["threshold"]), []).append(test)
    curves: dict[int, list[float]] = {}
    for line in (line for record in records for line in record["validation"]):
        values = [value for key, value in line.items() if key.endswith("/R@1")]
        if values:
            curves.setdefault(line["epoch"], []).append(values[0])
    seconds, planning = (
        [record[key] for record in records if record[key] is not None] for key in ("seconds", "planning_seconds")
    )
    domains = [record["domain_accuracy"] for record in records if record["domain_accuracy"]]
    return Variation(
        records[0]["name"],
        records[0]["row"],
        records[0]["column"],
        tuple(record["state"] for record in records),
        {test: _figure(entries) for test, entries in measured.items()},
        {epoch: fmean(values) for epoch, values in sorted(curves.items())},
        fmean(seconds) if seconds else None,
        fmean(planning) if planning else None,
        tuple((record["folder"], record["failure"]) for record in records if record["failure"]),
        fmean([domain["last_fifth"] for domain in domains]) if domains else None,
        dict(zip(domains[0]["step"], domains[0]["percent"], strict=True)) if domains else {},
    )


def _figure(measured: Sequence[Mapping[str, Any]]) -> Figure:
    recall = {n: fmean([entry["recall"][n] for entry in measured]) for n in measured[0]["recall"]}
    first = next(iter(recall))
    if len(measured) == 1:
        low, high = measured[0]["interval95"][first]
    else:
        low, high = student([entry["recall"][first] for entry in measured])
    return Figure(len(measured), recall, (low, high))


def student(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of two percentages or more (Student's t), within 0 and 100."""
    from scipy.special import stdtrit  # of scipy.stats, which takes a second to import, it needs this alone

    reach = float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / math.sqrt(len(values))
    middle = fmean(values)
    return max(0.0, middle - reach), min(100.0, middle + reach)


def tests(variations: Sequence[Variation]) -> list[Test]:
    """Every test that a variation was measured on, in order."""
    return list(dict.fromkeys(test for variation in variations for test in variation.figures))


def ranks(variations: Sequence[Variation], test: Test) -> list[str]:
    """R@N that were measured, at most three."""
    return next((list(variation.figures[test].recall)[:3] for variation in variations if test in variation.figures), [])


def best_of(variations: Sequence[Variation], test: Test) -> float:
    """The highest recall of a test at its first rank, R@1; NaN where there is none."""
    figures = [variation.figures[test] for variation in variations if test in variation.figures]
    return max((figure.first for figure in figures), default=math.nan)


def figure_text(figure: Figure) -> str:
    """R@1 with its interval: '41.0 (37.1–45.0)', or '41.0 ×3 (38.2–43.8)' for a mean over three seeds."""
    many = f" ×{figure.seeds}" if figure.seeds > 1 else ""
    return f"{figure.first:.1f}{many} ({figure.interval[0]:.1f}–{figure.interval[1]:.1f})"


def unfinished(variation: Variation) -> str:
    """The text in place of a missing figure: 'failed', or a dash while it may still come."""
    return "failed" if "failed" in variation.states else "–"


def grid(variations: Sequence[Variation]) -> tuple[list[str], list[str], dict[tuple[str, str], Variation]]:
    """The labels of rows and columns in order, and the variation of each cell that has one."""
    cells = {(variation.row, variation.column): variation for variation in variations}
    return list(dict.fromkeys(row for row, _ in cells)), list(dict.fromkeys(column for _, column in cells)), cells


def markdown(sweep: Mapping[str, Any]) -> str:
    """Tables for a page of results: with two axes one grid of R@1 a test, then every variation with all its figures.

    Args:
      sweep: the content of `sweep.json`.
    """
    variations = group_runs(sweep["runs"])
    queries = {(test["dataset"], test["threshold"]): test["queries"] for run in sweep["runs"] for test in run["test"]}
    parts = [f"Sweep `{sweep['name']}` of `{sweep['recipe']}`. Recall in per cent over all queries. {NOTE}"]
    for test in tests(variations) if sweep["rows"] else ():
        parts.append(f"R@1 on {test[0]}, {threshold_text(test[1])}, {queries[test]:,} queries:")
        parts.append(_grid_markdown(sweep, variations, test))
    parts.append(_list_markdown(variations))
    failures = [failure for variation in variations for failure in variation.failures]
    if failures:
        parts.append("\n".join(["Failed:", "", *(f"- `{name}`: {one_line(message)}" for name, message in failures)]))
    return "\n\n".join(parts) + "\n"


def _grid_markdown(sweep: Mapping[str, Any], variations: Sequence[Variation], test: Test) -> str:
    rows, columns, cells = grid(variations)
    best = best_of(variations, test)
    lines = [[f"{sweep['rows']} \\ {sweep['columns']}", *columns]]
    for row in rows:
        lines.append([row, *(_cell(cells.get((row, column)), test, best) for column in columns)])
    return _table(lines)


def _cell(variation: Variation | None, test: Test, best: float) -> str:
    if variation is None:
        return ""
    if test not in variation.figures:
        return unfinished(variation)
    figure = variation.figures[test]
    number, _, rest = figure_text(figure).partition(" ")
    return f"**{number}** {rest}" if figure.first == best else f"{number} {rest}"


def _list_markdown(variations: Sequence[Variation]) -> str:
    measured = tests(variations)
    many = len(measured) > 1
    heads = ["run", *(f"{t[0]} {t[1]} R@{n}" if many else f"R@{n}" for t in measured for n in ranks(variations, t))]
    has_domain = any(variation.domain is not None for variation in variations)
    lines = [[*heads, "best in validation", *[DOMAIN] * has_domain, "seconds", "of them mining"]]
    for variation in variations:
        cells = [cell for test in measured for cell in _cells(variation, variations, test)]
        top = f"{max(variation.curve.values()):.1f}" if variation.curve else "–"
        took = ["–" if spent is None else f"{spent:.0f}" for spent in (variation.seconds, variation.planning_seconds)]
        domain = "–" if variation.domain is None else f"{variation.domain:.1f}"
        lines.append([variation.name, *cells, top, *[domain] * has_domain, *took])
    return _table(lines)


def _cells(variation: Variation, variations: Sequence[Variation], test: Test) -> list[str]:
    ns = ranks(variations, test)
    if test not in variation.figures:
        return [unfinished(variation), *["–"] * (len(ns) - 1)]
    cells = [_cell(variation, test, best_of(variations, test))]
    return cells + [f"{variation.figures[test].recall[n]:.1f}" for n in ns[1:]]


def _table(lines: Sequence[Sequence[str]]) -> str:
    lines = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def one_line(text: str) -> str:
    """The beginning of a message, on one line."""
    flat = " ".join(text.split())
    return flat if len(flat) <= 200 else flat[:199] + "…"


def comma_separated(sweep: Mapping[str, Any]) -> str:
    """A CSV table: a line for each run and test (one with no figures for a run that is not finished)."""
    ns = list(dict.fromkeys(n for run in sweep["runs"] for test in run["test"] for n in test["recall"]))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    figures = [column for n in ns for column in (f"R@{n}", f"R@{n} low", f"R@{n} high")]
    writer.writerow(["run", "row", "column", "seed", "state", "dataset", "threshold", "queries", *figures,
                     "seconds", "planning_seconds", "domain_accuracy", "failure", "changes"])  # fmt: skip
    for run in sweep["runs"]:
        about = [run["name"], run["row"], run["column"], run["seed"], run["state"]]
        for test in run["test"] or [{"recall": {}}]:
            values = [v for n in ns for v in ((test["recall"][n], *test["interval95"][n]) if n in test["recall"]
                                              else ("", "", ""))]  # fmt: skip
            took = [run["seconds"], run["planning_seconds"], (run["domain_accuracy"] or {}).get("last_fifth")]
            writer.writerow([*about, *(test.get(key, "") for key in ("dataset", "threshold", "queries")), *values,
                             *took, run["failure"], json.dumps(run["changes"])])  # fmt: skip
    return out.getvalue()
