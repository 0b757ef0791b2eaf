"""Tables on stdout: what a terminal of each width shows, and the lines that a file or a pipe gets."""

import io
import re

import numpy as np
import pytest
from rich.console import Console

from jaxvpr.reports import terminal
from jaxvpr.reports.terminal import Figure
from jaxvpr.retrieval.recall import Recall

TITLE = (
    "minicity test | 600 queries (0 without positive) | 1,872 database images | 25m | 64x64 area | 256-D | "
    "flat L2 (exact)"
)
NS = (1, 5, 10, 20, 100)
RIGHT = {
    "thumbnail": (114, 283, 387, 501, 594),
    "untrained": (53, 200, 330, 472, 596),
    "cosplace-city": (462, 561, 581, 597, 600),
}
INTERVAL = re.compile(r"[\d.]+-[\d.]+")


def measured(right):
    """600 queries, so many of which have a positive among their first N."""
    rank = np.full(600, -1)
    for n, before, upto in zip(NS, (0, *right), right, strict=False):
        rank[before:upto] = n - 1
    return Recall(NS, rank, np.ones(600, bool))


ROWS = {name: measured(right) for name, right in RIGHT.items()}


@pytest.fixture
def shown(monkeypatch):
    """What a terminal shows: shown(width, print the table, **environment) -> its lines."""

    def run(width, table, **environment):
        out = io.StringIO()
        console = Console(
            file=out, force_terminal=True, width=width, _environ={"TERM": "xterm-256color", **environment}
        )
        monkeypatch.setattr(terminal, "_terminal", lambda: console)
        table()
        return out.getvalue().splitlines()

    return run


def plain(lines):
    return [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in lines]


def the_table():
    terminal.recalls(TITLE, ROWS, ["upper bound 50.0"])


def expected(name, pattern):
    found = ROWS[name]
    return [pattern.format(found.of_all[n], *found.interval(n)) for n in NS]


def test_beside_their_figures_where_there_is_room(shown):
    lines = plain(shown(120, the_table))
    assert lines[0] == TITLE and lines[1].split() == [f"R@{n}" for n in NS] and max(map(len, lines)) <= 120
    for line, name in zip(lines[3:6], ROWS, strict=True):
        assert re.split(r"  +", line) == [name, *expected(name, "{:.1f} ({:.1f}-{:.1f})")]
    assert "77.0 (73.5-80.2)" in lines[5] and "100.0 (99.4-100.0)" in lines[5], "by hand, after Wilson"
    assert lines[6:] == ["  upper bound 50.0", "  in brackets: 95 % interval", ""]


def test_below_them_on_eighty_columns(shown):
    lines = plain(shown(80, the_table))
    assert max(map(len, lines)) <= 80 and " ".join(lines[:2]) == TITLE
    for number, name in enumerate(ROWS):
        above, below = lines[4 + 2 * number], lines[5 + 2 * number]
        assert above.split() == [name, *expected(name, "{:.1f}")] and below.split() == expected(name, "{1:.1f}-{2:.1f}")
        ends = [match.end() for match in re.finditer(r"\S+", above)][1:]
        assert ends == [match.end() for match in re.finditer(r"\S+", below)], "each below its own"
    assert "  below each figure: 95 % interval" in lines


def test_not_at_all_on_fifty(shown):
    lines = plain(shown(50, the_table))
    rows = [line.split() for line in lines if line.startswith(tuple(ROWS))]
    assert rows == [[name, *expected(name, "{:.1f}")] for name in ROWS]
    assert max(map(len, lines)) <= 50 and not any(map(INTERVAL.search, lines)) and "interval" not in "".join(lines)


def test_colours_only_where_they_are_wanted(shown):
    assert plain(shown(120, the_table)) == plain(shown(120, the_table, NO_COLOR="1"))
    bold = next(line for line in shown(120, the_table) if "cosplace-city" in line)
    assert bold.startswith("\x1b[1m")
    for line in shown(120, the_table, NO_COLOR="1"):
        assert not re.search(r"\x1b\[[0-9;]*(3[0-8]|9[0-7])", line)


def test_a_file_gets_a_line_a_row(capsys):
    terminal.recalls(TITLE, ROWS, ["upper bound 50.0"])
    assert capsys.readouterr().out.splitlines() == [
        TITLE,
        "  thumbnail      R@1  19.0 (16.1-22.3)  R@5  47.2  R@10  64.5  R@20  83.5  R@100  99.0",
        "  untrained      R@1   8.8 (6.8-11.4)   R@5  33.3  R@10  55.0  R@20  78.7  R@100  99.3",
        "  cosplace-city  R@1  77.0 (73.5-80.2)  R@5  93.5  R@10  96.8  R@20  99.5  R@100 100.0",
        "  upper bound 50.0",
    ]


def test_answers_of_a_photo(shown, capsys, monkeypatch):
    rows = [
        ("1", ["48.137154, 11.576124", Figure("0.123"), "a[1].jpg"]),
        ("2", ["no coordinates", Figure("1.234"), "b.jpg"]),
    ]

    def answers():
        terminal.show("photo.jpg", ("rank", "place", "distance", "image"), rows)

    lines = plain(shown(80, answers))
    assert lines[0] == "photo.jpg" and lines[1].split() == ["rank", "place", "distance", "image"]
    assert re.split(r"  +", lines[3]) == ["1", "48.137154, 11.576124", "0.123", "a[1].jpg"] and "interval" not in lines
    monkeypatch.setattr(terminal, "_terminal", lambda: None)
    answers()
    assert capsys.readouterr().out.splitlines() == [
        "photo.jpg",
        "  1  48.137154, 11.576124  distance 0.123  a[1].jpg",
        "  2  no coordinates        distance 1.234  b.jpg",
    ]


def run(name, seed, recall=None):
    test = {"dataset": "city", "threshold": "25m", "queries": 200, "recall": {"1": recall, "5": 80.0},
            "interval95": {"1": [40.0, 44.0]}}  # fmt: skip
    return {"name": name, "row": "", "column": "", "seed": seed, "state": "finished", "failure": None, "validation": [],
            "test": [test] if recall else [], "seconds": 12.4 if recall else None, "planning_seconds": None,
            "domain_accuracy": None}  # fmt: skip


def test_a_sweep(shown, capsys, monkeypatch):
    """Two seeds of 40 and 44 have a mean of 42; Student's t of one degree reaches 12.706 * 2 to either side."""
    document = {"name": "two", "runs": [run("a", 0, 40.0), run("a", 1, 44.0), run("b", 0, 41.5), run("c", 0)]}
    lines = shown(100, lambda: terminal.sweep(document))
    told = plain(lines)
    assert told[0] == "two: city, within 25 m" and told[1].split() == ["R@1", "R@5", "seeds", "seconds"]
    assert re.split(r"  +", told[3]) == ["a", "42.0 (16.6-67.4)", "80.0", "2", "12"] and lines[3].startswith("\x1b[1m")
    assert re.split(r"  +", told[4]) == ["b", "41.5 (40.0-44.0)", "80.0", "1", "12"] and "c  " not in "".join(told)
    monkeypatch.setattr(terminal, "_terminal", lambda: None)
    terminal.sweep(document)
    assert "  b  R@1  41.5 (40.0-44.0)  R@5  80.0  seeds 1  seconds 12" in capsys.readouterr().out
    terminal.sweep({"name": "none", "runs": [run("c", 0)]})
    assert capsys.readouterr().out == ""
