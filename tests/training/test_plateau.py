"""The watch over a plateau against torch's ReduceLROnPlateau, validation by validation."""

import json

import numpy as np
import pytest

from jaxvpr.errors import UserError
from jaxvpr.training.plateau import Watch, plateau

RATE = 0.02
CASES = {
    "torch's defaults": {},
    "for a recall": {"mode": "max", "patience": 2, "factor": 0.5},
    "impatient": {"mode": "min", "patience": 0, "factor": 0.7},
    "cooling": {"mode": "max", "patience": 1, "cooldown": 3, "factor": 0.3},
    "with a floor": {"mode": "min", "patience": 1, "factor": 0.2, "min_rate": 1e-3},
    "hard to please": {"mode": "max", "patience": 2, "threshold": 0.05, "factor": 0.5},
    "down to nothing": {"mode": "min", "patience": 0, "factor": 0.01},
}


def values(mode, count=80):
    """Recalls or losses that get better, stay, jump and are once not a number."""
    rng = np.random.default_rng(3)
    course = 60 * (1 - np.exp(-np.arange(count) / 12)) + rng.normal(0, 1.5, count)
    course[25:40] = course[25]
    course[50] = np.nan
    return (course if mode == "max" else 100 - course).tolist()


def follow(options, course, base):
    """Our rates after each value; between two values the watch goes through JSON as through a checkpoint."""
    rule, watch, rates = plateau(**options), Watch(), []
    for value, rate in zip(course, base, strict=True):
        watch = rule(Watch(**json.loads(json.dumps(watch._asdict()))), value, rate)
        rates.append(rate * watch.scale)
    return rates


@pytest.mark.torch
@pytest.mark.parametrize("case", CASES)
def test_it_is_torchs(case):
    import torch

    options = CASES[case]
    theirs = {"min_lr" if key == "min_rate" else key: value for key, value in options.items()}
    peer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(peer, **theirs)
    course, expected = values(options.get("mode", "min")), []
    for value in course:
        scheduler.step(value)
        expected.append(peer.param_groups[0]["lr"])
    np.testing.assert_allclose(follow(options, course, [RATE] * len(course)), expected, rtol=1e-12)
    assert len(set(expected)) > 1, "nothing was ever reduced: the case shows nothing"


@pytest.mark.torch
def test_it_multiplies_a_schedule_as_torchs_do():
    import torch

    lr = torch.optim.lr_scheduler
    peer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    falling, watching = lr.LinearLR(peer, 1.0, 0.1, 80), lr.ReduceLROnPlateau(peer, "max", 0.5, 2)
    course, expected = values("max"), []
    for value in course:
        watching.step(value)
        expected.append(peer.param_groups[0]["lr"])
        peer.step()
        falling.step()
    base = [RATE * (1 - 0.9 * epoch / 80) for epoch in range(80)]
    found = follow({"mode": "max", "factor": 0.5, "patience": 2}, course, base)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_by_hand():
    rule = plateau(mode="max", factor=0.5, patience=1, cooldown=1)
    watch, seen = Watch(), []
    for value in (float("nan"), 50.0, 50.004, 50.0, 40.0, 40.0, 40.0, 60.0):
        watch = rule(watch, value, 1.0)
        seen.append(tuple(watch))
    assert seen == [
        (None, 1, 0, 1.0),
        (50.0, 0, 0, 1.0),
        (50.0, 1, 0, 1.0),  # better by less than 1e-4 of it
        (50.0, 0, 1, 0.5),
        (50.0, 0, 0, 0.5),  # cools down
        (50.0, 1, 0, 0.5),
        (50.0, 0, 1, 0.25),
        (60.0, 0, 0, 0.25),
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mode": "most"}, "mode='most'.*'min'.*'max'"),
        ({"factor": 1.0}, r"factor=1\.0\b.*\b0\b.*\b1\b"),
        ({"factor": 0.0}, r"factor=0\.0\b.*\b0\b.*\b1\b"),
        ({"patience": -1}, r"patience, threshold, cooldown.*min_rate.*\b0\b"),
        ({"patience": 5, "validations": 7}, r"\b7 validations.*patience=5\b.*\b8\b"),
    ],
)
def test_mistakes_are_told(options, said):
    with pytest.raises(UserError, match=said):
        plateau(**options)


def test_as_few_validations_as_it_needs():
    """The first of three is the best, the second reduces, the third sees the lower rate."""
    rule = plateau(mode="max", patience=0, validations=3)
    assert rule(rule(Watch(), 2.0, 1.0), 1.0, 1.0).scale == pytest.approx(0.1)
