"""Charts of the log of a run, read back from their SVG and compared with numbers worked out by hand."""

import re

import pytest

from jaxvpr.reports.training import charts, column, domain_accuracy

NUMBER = r"(-?[\d.]+)"


def panels(log):
    """{heading: its chart}."""
    panel = r'<div class="panel"><h3>([^<]+)</h3>\s*(<svg.*?</svg>)\s*(?:<p[^>]+>[^<]+</p>)?\s*</div>'
    return dict(re.findall(panel, charts(log), re.S))


def lines(svg):
    """Every line of a chart with axes from 0 to 100 per cent: [(its style, [its heights in per cent])]."""
    grid = {float(text): float(y) for y, text in re.findall(rf'y1="{NUMBER}" [^>]+/><text [^>]+>{NUMBER}</text>', svg)}
    nought, whole = grid[0.0], grid[100.0]
    return [
        (style, [(float(point.split(",")[1]) - nought) / (whole - nought) * 100 for point in points.split()])
        for points, style in re.findall(r'<polyline points="([^"]+)" fill="none" ([^>]*)/>', svg)
    ]


def test_the_domain_classifier_stands_beside_its_reversal_and_the_level_of_guessing():
    log = [{"step": i, "loss": 1.0, "domain_accuracy": 90.0 - 10 * i, "domain_loss": 0.5, "reversal": i / 5}
           for i in range(5)]  # fmt: skip
    found = panels(log)
    assert list(found) == ["Loss", "Domain classifier"], "its loss says nothing that its accuracy does not"
    svg = found["Domain classifier"]
    assert re.findall(r'class="name"[^>]*>([^<]+)<', svg) == ["50 % (fooled)", "reversal × 100", "accuracy"]
    (level, at), (_, reversal), (accuracy, heights) = lines(svg)
    assert at == pytest.approx([50, 50], abs=0.1) and "stroke-dasharray" in level and "dasharray" not in accuracy
    assert reversal == pytest.approx([0, 20, 40, 60, 80], abs=0.1)
    assert heights == pytest.approx([90, 80, 70, 60, 50], abs=0.1)


def test_long_logs_show_the_mean_before_faint_values():
    log = [{"step": i, "domain_accuracy": 100.0 * (i % 2)} for i in range(200)]
    (_, _), (raw, values), (bold, means) = lines(panels(log)["Domain classifier"])
    assert 'opacity=".35"' in raw and max(values) > 99 and min(values) < 1
    assert 'opacity=".35"' not in bold and len(means) == 190, "five to either side, whole windows alone"
    # The first is of steps 0 to 10, five of them odd and so right; the last of 189 to 199, six of them odd.
    expected = [500 / 11, 600 / 11]
    assert means[:2] == pytest.approx(expected, abs=0.1) and means[-2:] == pytest.approx(expected, abs=0.1)


def test_distances_of_domains_have_a_chart_of_their_loss():
    found = panels([{"step": i, "domain_loss": 1 / (i + 1)} for i in range(9)])
    assert list(found) == ["Domain loss"] and "domain loss" in found["Domain loss"]
    assert charts([{"step": 1, "epoch": 1}]) == charts([]) == ""


def test_parts_of_the_loss_are_named():
    parts = {"loss": 3.0, "lateral_loss": 2.0, "frontal_loss": 1.0, "domain_loss": 9.0}
    svg = panels([{"step": i, **parts} for i in range(4)])["Loss"]
    assert re.findall(r'class="name"[^>]*>([^<]+)<', svg) == ["all", "frontal", "lateral"]
    heights = [float(y) for y in re.findall(rf'<polyline points="[\d.]+,{NUMBER} ', svg)]
    assert heights[0] < heights[2] < heights[1], "3, then lateral's 2, then frontal's 1"
    assert ">mean<" in panels([{"step": 1, "loss": 2.0}])["Loss"]


def test_localisation_is_not_mixed_with_retrieval():
    found = panels([{"step": 1, "city/R@1": 40.0, "city/R@5": 60.0, "city/LR@1": 20.0, "city/LR@5": 30.0}])
    names = {key: re.findall(r'class="name"[^>]*>([^<]+)<', svg) for key, svg in found.items()}
    assert names == {"Validation recall": ["R@1", "R@5"], "Validation by classification": ["LR@1", "LR@5"]}


def test_a_step_that_was_repeated_counts_once():
    log = [
        {"step": 2, "a": 5.0},
        {"step": 1, "a": 1.0},
        {"step": 2, "a": 7.0},
        {"step": 3, "a": float("nan")},
        {"b": 1},
    ]
    assert column(log, "a") == ([1, 2], [1.0, 7.0])


def test_the_accuracy_that_a_sweep_keeps():
    assert domain_accuracy([{"step": 1, "loss": 3.0}]) is None
    log = [{"step": step, "domain_accuracy": float(step)} for step in range(1, 13)]
    # A fifth of 12 steps, rounded up, is 10, 11 and 12.
    assert domain_accuracy(log, 4) == {"step": [2, 5, 8, 11], "percent": [2, 5, 8, 11], "last_fifth": 11}
    assert domain_accuracy(log)["percent"] == list(range(1, 13))
