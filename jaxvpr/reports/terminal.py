"""Tables of results on stdout: drawn on a terminal, one line a row where stdout is a file or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from jaxvpr.reports.sweep_tables import Variation, group_runs, ranks, tests
from jaxvpr.reports.tables import threshold_text
from jaxvpr.retrieval.recall import Recall

# Positions of the intervals, the best first -> the note about them.
WHERE = {"beside": "in brackets: 95 % interval", "below": "below each figure: 95 % interval", "": ""}
UNLIMITED = 10_000  # columns of a terminal in which no line wraps


class Figure(NamedTuple):
    """A number of a table, as it is written, and its 95 % interval."""

    text: str
    interval: tuple[float, float] | None = None

    @property
    def span(self) -> str:
        """`73.5-80.2`; empty without an interval."""
        return "{:.1f}-{:.1f}".format(*self.interval) if self.interval else ""


Row = tuple[str, Sequence[str | Figure]]


def show(
    title: str, columns: Sequence[str], rows: Sequence[Row], notes: Sequence[str] = (), strong: str | None = None
) -> None:
    """Prints one table.

    On a terminal intervals stand beside their figures where the width allows, else below them, and on the narrowest not
    at all. Elsewhere each row is a line for grep, `  name  R@1  77.0 (73.5-80.2)  R@5  93.5`, with the interval of its
    first figure alone.

    Args:
      title: above the table.
      columns: headings of the names of rows and of each of their cells. A line repeats them before figures, not before
        texts.
      rows: (name, cells).
      notes: lines below.
      strong: name of the row that is emphasised.
    """
    console = _terminal()
    if console is None:
        print("\n".join([title, *_lines(columns, rows), *(f"  {note}" for note in notes)]), flush=True)
        return
    has_intervals = any(isinstance(cell, Figure) and cell.interval for _, cells in rows for cell in cells)
    for where in WHERE:
        table = _table(columns, rows, where, strong)
        if Measurement.get(console, console.options.update_width(UNLIMITED), table).maximum <= console.width:
            break
    console.print(Text(title))
    console.print(table)
    for note in filter(None, (*notes, WHERE[where] if has_intervals else "")):
        console.print(Text(f"  {note}", style="dim"))
    console.print()


def recalls(title: str, rows: Mapping[str, Recall], notes: Sequence[str] = (), of: str = "R") -> None:
    """Prints recall@N of several methods on the same queries, in per cent over all of them.

    Args:
      title: the protocol line.
      rows: name -> its recall; the last is the one that the others are compared with.
      of: the measure: "R", or "LR" for localisation by classification.
    """
    ns = next(iter(rows.values())).ns
    figures = [
        (name, [Figure(f"{value:5.1f}", recall.interval(n)) for n, value in recall.of_all.items()])
        for name, recall in rows.items()
    ]
    show(title, ["", *(f"{of}@{n}" for n in ns)], figures, notes, strong=list(rows)[-1])


def sweep(document: Mapping[str, Any]) -> None:
    """Prints the recall of the runs of a sweep, a table for each test.

    Args:
      document: the content of `sweep.json`.
    """
    variations = group_runs(document["runs"])
    for test in tests(variations):
        ns = ranks(variations, test)
        done = [variation for variation in variations if test in variation.figures]
        best = max(done, key=lambda variation: variation.figures[test].first)
        columns = ["", *(f"R@{n}" for n in ns), "seeds", "seconds"]
        rows = [(variation.name, _of_variation(variation, test, ns)) for variation in done]
        show(f"{document['name']}: {test[0]}, {threshold_text(test[1])}", columns, rows, strong=best.name)


def _of_variation(variation: Variation, test: tuple[str, str], ns: Sequence[str]) -> list[str | Figure]:
    figure, first = variation.figures[test], next(iter(ns))
    reached = [Figure(f"{figure.recall[n]:5.1f}", figure.interval if n == first else None) for n in ns]
    seconds = "-" if variation.seconds is None else f"{variation.seconds:.0f}"
    return [*reached, Figure(str(figure.seeds)), Figure(seconds)]


def _lines(columns: Sequence[str], rows: Sequence[Row]) -> list[str]:
    width = max((len(name) for name, _ in rows), default=0)
    cells = [[_plain(*cell) for cell in enumerate(zip(columns[1:], cells, strict=True))] for _, cells in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [[f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)] for line in cells]
    return [f"  {name:<{width}}  {'  '.join(line)}".rstrip() for (name, _), line in zip(rows, lines, strict=True)]


def _plain(number: int, cell: tuple[str, str | Figure]) -> str:
    head, value = cell
    if isinstance(value, str):
        return value
    return f"{head} {value.text}" + (f" ({value.span})" if value.span and number == 0 else "")


def _table(columns: Sequence[str], rows: Sequence[Row], where: str, strong: str | None) -> Table:
    """The table, with intervals "beside" or "below" their figures; "" leaves them out."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, padding=(0, 1, 0, 0))
    table.add_column(columns[0], overflow="fold")
    for number, head in enumerate(columns[1:]):
        figures = any(isinstance(cells[number], Figure) for _, cells in rows)
        table.add_column(head, justify="right" if figures else "left", no_wrap=figures, overflow="fold")
    for name, cells in rows:
        table.add_row(Text(name), *(_cell(cell, where) for cell in cells), style="bold" if name == strong else "")
    return table


def _cell(cell: str | Figure, where: str) -> Text:
    if isinstance(cell, str):
        return Text(cell)
    text = Text(cell.text.strip())
    if not cell.span or not where:
        return text
    return text.append(f" ({cell.span})" if where == "beside" else f"\n{cell.span}", style="dim")


def _terminal() -> Console | None:
    """The terminal behind stdout; None where that is a file or a pipe."""
    return Console(file=sys.stdout) if sys.stdout.isatty() else None
