"""The part of a sweep's page about position heads: means over seeds and curves, read back and worked by hand."""

import re

import pytest

from jaxvpr.reports import position_sweep


def record(name, *lines):
    row, _, column = name.partition("+")
    keys = ("val/25m", "train/25m", "val/median_m")
    validation = [{"epoch": k, **dict(zip(keys, line, strict=True))} for k, line in enumerate(lines)]
    return {"name": name, "row": row, "column": column, "validation": validation}


RUNS = [
    record("cells+100", (30.0, 99.0, 40.0), (50.0, 98.0, 20.0), (45.0, 100.0, 30.0)),
    record("cells+100", (60.0, 96.0, 10.0)),
    record("cells+1000", (80.0, 90.0, 8.0)),
    record("direct+100", (10.0, 20.0, 90.0)),
    record("direct+1000", (20.0, 21.0, 60.0)),
]


def test_means_over_seeds_where_each_was_best():
    learned = {one.name: one for one in position_sweep._learned(RUNS, "25m")}
    cells = learned["cells+100"]
    assert (cells.train, cells.held_out, cells.median, cells.seeds) == (97.0, 55.0, 15.0, 2)
    assert cells.interval == (0.0, 100.0)  # t of one degree of freedom is 12.7
    assert learned["cells+1000"].interval is None


def test_the_curves_of_numbers_of_images():
    page = position_sweep.section({"columns": "images", "runs": RUNS})
    assert "Answers within 25m" in page and "97.0" in page and "0.0–100.0, ×2" in page
    found = re.findall(r'<polyline points="([^"]+)" fill="none" stroke="var\(--(\w+)\)" [^>]*/>', page)
    heights = [[float(pair.split(",")[1]) for pair in points.split()] for points, _ in found]
    grid = {float(tick): float(y) for y, tick in re.findall(r'y1="([\d.]+)" [^>]+/><text [^>]+>([\d.]+)</text>', page)}
    shares = [(y - grid[0]) / (grid[100] - grid[0]) * 100 for line in heights for y in line]
    assert [colour for _, colour in found] == ["run", "run", "untrained", "untrained"]
    assert shares == pytest.approx([97, 90, 55, 80, 20, 21, 10, 20], abs=0.1)


def test_names_that_are_no_numbers_have_a_table_alone():
    named = [record("soft+wide", (1.0, 2.0, 3.0))]
    page = position_sweep.section({"columns": "width", "runs": named})
    assert "<polyline" not in page and "soft+wide" in page
    assert position_sweep.section({"columns": "", "runs": [record("a", (1.0, 2.0, 3.0))]}).count("<tr>") == 2
    other = [{"name": "a", "row": "", "column": "", "validation": [{"epoch": 1, "val/R@1": 3.0}]}]
    assert position_sweep.section({"columns": "", "runs": other}) == ""
