"""Tables and picture of a sweep, against numbers worked out by hand."""

import csv
import io
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from scipy.special import stdtrit

from jaxvpr.reports.charts import Series, many_lines
from jaxvpr.reports.sweep_page import html, write_sweep
from jaxvpr.reports.sweep_tables import comma_separated, group_runs, markdown, student


def run(name, seed=0, right=None, curve=(), failure=None, sets=("city",), domain=None):
    """A record; `right` of 200 queries are right at once, 20 more among five."""
    row, _, column = name.partition("+")
    test = [] if right is None else [
        {"dataset": one, "threshold": "25m", "queries": 200,
         "recall": {"1": right / 2, "5": right / 2 + 10}, "interval95": {"1": [1.25, 98.75], "5": [2.0, 99.0]}}
        for one in sets
    ]  # fmt: skip
    state = "failed" if failure else "waiting" if right is None else "finished"
    return {
        "name": name, "folder": f"{name}-seed{seed}" if seed else name, "row": row, "column": column, "seed": seed,
        "changes": {"loss": row}, "state": state, "test": test, "failure": failure, "domain_accuracy": domain,
        "validation": [{"step": 10 * epoch, "epoch": epoch, "val/R@1": value, "val/R@5": 99.0}
                       for epoch, value in enumerate(curve, 1)],
        "seconds": None if right is None else 30.0, "planning_seconds": None if right is None else 4.0 + seed,
    }  # fmt: skip


RUNS = [
    run("triplet+none", 0, 80, (10, 30)),
    run("triplet+none", 1, 84, (20, 34)),
    run("triplet+none", 2, 88, (30, 38)),
    run("triplet+hard", 0, 100, (11, 41)),
    run("circle+none", 0, None, (), "no option 'dims'\nthere are | others"),
    run("circle+hard"),
]
SWEEP = {"name": "s", "recipe": "r.py:tiny", "rows": "loss", "columns": "miner", "runs": RUNS}


def test_seeds_of_a_name_are_put_together():
    first, second, third, fourth = group_runs(RUNS)
    assert (first.name, first.row, first.column) == ("triplet+none", "triplet", "none")
    figure = first.figures["city", "25m"]
    assert figure.seeds == 3 and figure.recall == {"1": 42.0, "5": 52.0} and first.curve == {1: 20.0, 2: 34.0}
    # 40, 42, 44: standard deviation 2, so 4.303 * 2 / sqrt(3) to either side.
    assert figure.interval == pytest.approx((42 - 4.969, 42 + 4.969), abs=1e-3)
    assert second.figures["city", "25m"].interval == (1.25, 98.75), "one seed keeps the interval over the queries"
    assert third.failures == (("circle+none", "no option 'dims'\nthere are | others"),) and not third.figures
    assert fourth.states == ("waiting",) and fourth.seconds is None and first.seconds == 30
    assert first.planning_seconds == 5 and fourth.planning_seconds is None


# 97.5 % quantiles of Student's t for 1 to 30 degrees of freedom, as statistical tables print them.
STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def test_the_interval_is_students():
    for degrees, quantile in enumerate(STUDENT, 1):
        values = np.random.default_rng(degrees).uniform(49, 51, degrees + 1)
        low, high = student(list(values))
        error = values.std(ddof=1) / math.sqrt(degrees + 1)
        assert (high - low) / 2 / error == pytest.approx(quantile, abs=6e-4)
        assert (low + high) / 2 == pytest.approx(values.mean())
    values = np.random.default_rng(0).uniform(20, 60, 7)
    reach = stdtrit(6, 0.975) * values.std(ddof=1) / math.sqrt(7)
    assert student(list(values)) == pytest.approx((values.mean() - reach, values.mean() + reach), rel=1e-3)
    assert student([0.0, 100.0]) == (0.0, 100.0) and student([5.0, 5.0]) == (5.0, 5.0)


def test_markdown():
    text = markdown(SWEEP)
    assert "R@1 on city, within 25 m, 200 queries:" in text and "Sweep `s` of `r.py:tiny`" in text
    tables = [[line.split(" | ") for line in part.splitlines()] for part in text.split("\n\n") if part[0] == "|"]
    assert all(len({len(line) for line in table}) == 1 for table in tables), "every line has every column"
    assert tables[0][2] == ["| triplet", "42.0 ×3 (37.0–47.0)", "**50.0** (1.2–98.8) |"]
    assert tables[0][0] == ["| loss \\ miner", "none", "hard |"] and tables[0][3] == ["| circle", "failed", "– |"]
    assert tables[1][0] == ["| run", "R@1", "R@5", "best in validation", "seconds", "of them mining |"]
    assert tables[1][2] == ["| triplet+none", "42.0 ×3 (37.0–47.0)", "52.0", "34.0", "30", "5 |"]
    assert tables[1][5] == ["| circle+hard", "–", "–", "–", "–", "– |"]
    assert "- `circle+none`: no option 'dims' there are | others" in text


def test_without_axes_and_with_two_tests():
    runs = [run("a", 0, 40, (5,), sets=("sf", "tokyo")), run("b")]
    text = markdown({**SWEEP, "rows": "", "columns": "", "runs": runs})
    assert "| run | sf 25m R@1 | sf 25m R@5 | tokyo 25m R@1 | tokyo 25m R@5 |" in text and "\\" not in text
    page = html({**SWEEP, "rows": "", "columns": "", "runs": runs})
    assert page.count("All runs, best first") == 2 and "R@1 by" not in page
    nothing = {**SWEEP, "runs": [run("a+b"), run("a+c")]}
    assert "| a+b | – | – |" in markdown(nothing) and "Not measured yet" in html(nothing)


def test_csv():
    lines = list(csv.DictReader(io.StringIO(comma_separated(SWEEP))))
    assert [line["run"] for line in lines] == [one["name"] for one in RUNS]
    assert (lines[1]["seed"], lines[1]["R@1"], lines[1]["R@5"], lines[1]["R@1 low"]) == ("1", "42.0", "52.0", "1.25")
    assert lines[4]["failure"] == RUNS[4]["failure"] and lines[4]["R@1"] == "" and lines[5]["state"] == "waiting"
    assert json.loads(lines[0]["changes"]) == {"loss": "triplet"} and lines[1]["planning_seconds"] == "5.0"


class Balance(HTMLParser):
    """Every element that is opened is closed."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page(tmp_path):
    write_sweep(tmp_path / "out", SWEEP)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        f"sweep.{e}" for e in ("csv", "html", "json", "md")
    ]
    assert json.loads((tmp_path / "out" / "sweep.json").read_text()) == SWEEP
    page = (tmp_path / "out" / "sweep.html").read_text()
    checked = Balance()
    checked.feed(page)
    assert not checked.open and "http" not in page.replace("http-equiv", "")
    assert "6 runs: 4 finished, 1 failed, 1 waiting" in page and "Training took 2 min 0 s" in page
    assert "no option &#39;dims&#39;" in page and '<td class="failed">failed</td>' in page
    best = page[page.index("All runs, best first") :]
    assert best.index("triplet+hard") < best.index("triplet+none"), "best first"
    # Lowest and highest cell have the faintest and the strongest shade.
    assert re.findall(r"--share:(\d+)%", page) == ["4", "38"]
    dangerous = html({**SWEEP, "recipe": "<script>x", "runs": [run("a+b", failure="<script>y")]})
    assert "<script>x" not in dangerous and "<script>y" not in dangerous


def test_seconds_of_mining_stand_beside_those_of_training_where_there_is_mining():
    assert "<th>of it mining</th>" in html(SWEEP)
    drawing = [{**one, "planning_seconds": one["planning_seconds"] and 0.1} for one in SWEEP["runs"]]
    assert "of it mining" not in html({**SWEEP, "runs": drawing})


def test_the_domain_classifier_has_a_picture_and_a_column_where_there_is_one():
    def told(*percent):
        return {"step": [10, 20], "percent": list(percent), "last_fifth": percent[-1]}

    runs = [
        run("grl", 0, 80, (10,), domain=told(90.0, 52.0)),
        run("grl", 1, 84, (20,), domain=told(70.0, 58.0)),
        run("mmd", 0, 90, (30,)),
    ]
    sweep = {**SWEEP, "rows": "", "columns": "", "runs": runs}
    page = html(sweep)
    assert page.count("<th>domain accuracy, last fifth</th>") == 1 and "<td>55.0</td>" in page
    chart = page[page.index("Accuracy of the domain classifier") : page.index("Test city")]
    assert "50 % (fooled)" in chart and "grl 52.0" in chart and "mmd" not in chart and "58" not in chart
    # The colours are those of the picture above, where mmd is the best.
    assert "var(--untrained)" in chart and "var(--run)" not in chart
    heights = dict(re.findall(r'<text x="38" y="([\d.]+)" text-anchor="end">(\d+)</text>', chart))
    level, *_ = re.findall(r'y1="([\d.]+)" y2="[\d.]+" stroke="var\(--muted\)"', chart)
    by_value = {float(text): float(y) - 4 for y, text in heights.items()}
    assert float(level) == pytest.approx((by_value[40] + by_value[60]) / 2, abs=0.2)
    assert "| domain accuracy, last fifth |" in markdown(sweep) and "| 55.0 |" in markdown(sweep)
    assert [line["domain_accuracy"] for line in csv.DictReader(io.StringIO(comma_separated(sweep)))] == [
        "52.0", "58.0", ""
    ]  # fmt: skip
    assert "domain" not in html(SWEEP) and "domain" not in markdown(SWEEP)


def test_many_lines_are_told_apart():
    lines = [Series(f"run {i}", [1, 2, 3], [0, i / 10, 30 + i / 10], "") for i in range(24)]
    svg = many_lines(lines, x_label="epoch", y_label="R@1")
    labels = re.findall(r'<text x="([\d.]+)" y="([\d.]+)">run (\d+) ([\d.]+)</text>', svg)
    assert len(labels) == 24 and {x for x, *_ in labels} == {labels[0][0]}
    by_height = sorted(labels, key=lambda label: float(label[1]))
    assert [int(number) for _, _, number, _ in by_height] == list(range(23, -1, -1)), "as the lines end"
    heights = [float(y) for _, y, *_ in by_height]
    assert (
        min(np.diff(heights)) >= 14.9
        and heights[0] > 0
        and heights[-1] < float(re.search(r'viewBox="0 0 \d+ (\d+)"', svg)[1])
    )
    assert len(re.findall(r'class="one first"', svg)) == 5 and svg.count("var(--place)") == 19
    assert svg.rindex("run 0 ") > svg.rindex("run 23 "), "the best is drawn last, on top"
    assert many_lines([], x_label="", y_label="") == "" == many_lines([Series("a", [], [], "")], x_label="", y_label="")
    assert "nan" not in many_lines([Series("a", [1, 2], [math.nan, 3.0], "")], x_label="", y_label="")
