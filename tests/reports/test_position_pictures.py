"""How far answers are off: shares and distribution worked by hand, and lines of the map."""

import json
import re

import numpy as np
import pytest

from jaxvpr.models.positions import Area
from jaxvpr.reports import positions, training
from jaxvpr.reports.charts import FEW, SIZE
from jaxvpr.reports.html import write_report
from jaxvpr.retrieval import heads

NAN = float("nan")


@pytest.fixture
def answers():
    true = np.array([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0], [50.0, 50.0], [NAN, NAN]])
    answered = np.array([[3.0, 4.0], [100.0, 60.0], [9000.0, 100.0], [NAN, NAN], [1.0, 1.0]])
    metres = np.array([5.0, 60.0, 9000.0, NAN, NAN])
    training = np.stack(np.meshgrid(np.arange(0.0, 101, 10), np.arange(0.0, 101, 10)), -1).reshape(-1, 2)
    return positions.Answered(true, answered, training, metres, np.array([0.9, NAN, 0.2, NAN, 0.1]))


def test_shares_and_quantiles_worked_by_hand(answers):
    page = positions.draw(answers, {"retrieval": np.array([1.0, 2.0, 30.0, 4.0, 5.0])}, (25.0, 100.0))
    rows = re.findall(r"</span>([\w ]+)</td>(.*?)</tr>", page)
    cells = {name: re.findall(r"<td>(.*?)</td>", row) for name, row in rows}
    # Sorted 5, 60, 9000, none, none: of five the third and the fifth.
    assert cells["this head"] == ["20.0", "40.0", "9,000.0 m", "–"]
    assert cells["retrieval"] == ["80.0", "100.0", "4.0 m", "30.0 m"]


def polylines(svg):
    found = re.findall(r'<polyline points="([^"]+)" fill="none" stroke="var\(--(\w+)\)"', svg)
    return [
        (colour, np.array([[float(n) for n in pair.split(",")] for pair in text.split()])) for text, colour in found
    ]


def test_the_distribution_is_that_of_a_loop(answers):
    metres = np.random.default_rng(0).lognormal(3, 1.5, 400)
    svg = positions.distribution({"a": np.append(metres, [NAN] * 100)}, (25.0,))
    (mark, line), (colour, curve) = polylines(svg)
    assert (mark, colour) == ("thumbnail", "run") and len(np.unique(line[:, 0])) == 1
    ticks = [float(text.replace(",", "")) for text in re.findall(r'text-anchor="middle">([\d.,]+)<', svg)]
    low, high = np.log10([ticks[0], ticks[-1]])
    bottom = SIZE[1] - FEW.foot
    share = (bottom - curve[:, 1]) / (bottom - 12)
    x = low + (curve[:, 0] - curve[0, 0]) / np.ptp(curve[:, 0]) * (high - low)
    for at, found in list(zip(10**x, share, strict=True))[::20]:
        # Coordinates have one digit behind the point.
        assert abs(found - sum(m <= at for m in metres) / 500) < 0.02
    assert share[-1] == pytest.approx(0.8, abs=0.005)  # a fifth has no answer
    assert positions.distribution({"none": np.array([NAN])}) == ""


def test_lines_lead_from_true_to_answered_positions(answers):
    svg = positions.error_map(answers)
    lines = dict(re.findall(r'data-layer="(band\d)" d="(M[^"]*L[^"]*)"', svg))
    ends = {band: [float(n) for n in re.split("[ML ]", text)[1:]] for band, text in lines.items()}
    scale = 100 / (ends["band1"][0] - ends["band0"][0])  # metres a unit, from 100 m between both beginnings
    x, y, to_x, to_y = ends["band0"]
    assert (to_x - x) * scale == pytest.approx(3, abs=0.1) and (y - to_y) * scale == pytest.approx(4, abs=0.1)
    x, y, to_x, to_y = ends["band1"]
    assert to_x == x and (y - to_y) * scale == pytest.approx(60, abs=0.3)
    x, y, to_x, to_y = ends["band2"]
    assert (to_x, to_y) == (1000, y)  # cut at the border
    assert "1 answers lie beyond the map" in svg and "2 images without answer or position" in svg
    tips = json.loads(re.search(r'"application/json">(.*?)</script>', svg)[1])
    assert [tip[2] for tip in tips] == [
        "image 0: 5.0 m off, confidence 0.90", "image 1: 60.0 m off", "image 2: 9,000.0 m off, confidence 0.20"
    ]  # fmt: skip
    assert positions.error_map(answers._replace(true=answers.true * NAN)) == ""


def test_a_plan_is_true_to_scale_in_its_middle():
    area = Area(45.0, 7.0, 45.02, 7.02)
    at = heads.plan(area, np.array([45.0, 45.02, 45.0]), np.array([7.0, 7.0, 7.02]))
    np.testing.assert_allclose(at, [[0, 0], [0, 2223.9], [1572.2, 0]], atol=0.2)
    frame = Area(-10.0, 5.0, 90.0, 205.0, metres=True)
    np.testing.assert_allclose(heads.plan(frame, np.array([0.0]), np.array([25.0])), [[20, 10]])


def test_a_report_has_the_loss_of_both_and_shares_within_a_distance(answers, tmp_path):
    looks = {step: {"val/loss": 2 / step, "val/25m": 10.0 * step, "train/25m": 20.0} for step in (1, 3, 5)}
    log = [{"step": step, "loss": 1 / step, **looks.get(step, {})} for step in range(1, 6)]
    charts = training.charts(log)
    assert "Answers within a distance" in charts and "within 25 m, %" in charts
    assert re.search(r'class="name"[^>]*>batches<', charts) and re.search(r'class="name"[^>]*>val<', charts)
    # Three looks: dots of the loss and of both shares.
    assert charts.count("<circle") == 9
    section = positions.draw(answers, {}, (25.0,))
    page = write_report(tmp_path / "report.html", title="x", loss_log=log, positions=section).read_text()
    assert page.count("How far answers are off") == 1
    assert "How far answers are off" not in write_report(tmp_path / "other.html", title="x").read_text()
