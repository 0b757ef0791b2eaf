"""Learning rates against torch's schedulers, step by step."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from jaxvpr.cli.overrides import override
from jaxvpr.errors import UserError
from jaxvpr.training.schedules import schedule

RATE, STEPS = 0.3, 30
# name -> (torch's schedulers of an optimiser, our options)
PER_STEP = {
    "constant": (lambda lr, o: lr.ConstantLR(o, 1.0), {}),
    "cosine to the end": (lambda lr, o: lr.CosineAnnealingLR(o, STEPS), {}),
    "cosine that rises again": (lambda lr, o: lr.CosineAnnealingLR(o, 7), {"length": 7}),
    "cosine above a floor": (lambda lr, o: lr.CosineAnnealingLR(o, 11, RATE * 0.1), {"length": 11, "final": 0.1}),
    "linear to the end": (lambda lr, o: lr.LinearLR(o, 1.0, 0.25, STEPS), {"final": 0.25}),
    "linear and flat": (lambda lr, o: lr.LinearLR(o, 0.5, 0.2, 12), {"start": 0.5, "final": 0.2, "length": 12}),
    "multi_step": (lambda lr, o: lr.MultiStepLR(o, [5, 6, 20], 0.3), {"milestones": (5, 6, 20), "gamma": 0.3}),
}


def rates_of(make, steps, every=1, warmup=None):
    """Torch's rates of `steps` steps; the scheduler moves every so many of them, one for the warm-up at each."""
    import torch

    lr = torch.optim.lr_scheduler
    peer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))], lr=RATE)
    slow, fast, rates = make(lr, peer), lr.LinearLR(peer, *warmup) if warmup else None, []
    for step in range(steps):
        rates.append(peer.param_groups[0]["lr"])
        peer.step()
        if (step + 1) % every == 0:
            slow.step()
        if fast:
            fast.step()
    return rates


def ours(name, steps, **options):
    at = schedule(name.split()[0], RATE, total=steps, **options)
    return [float(at(jnp.int32(step))) for step in range(steps)]


@pytest.mark.torch
@pytest.mark.parametrize("case", PER_STEP)
def test_per_step_it_is_torchs(case):
    make, options = PER_STEP[case]
    np.testing.assert_allclose(ours(case, STEPS, **options), rates_of(make, STEPS), atol=1e-6 * RATE)


@pytest.mark.torch
@pytest.mark.parametrize("case", [case for case in PER_STEP if "end" not in case])
def test_per_epoch_it_is_torchs_with_the_warm_up_over_it(case):
    """Epochs of 4 steps; the warm-up moves at each step, as in the recipes of GSV-Cities."""
    make, options = PER_STEP[case]
    warmup, steps = (1 / 8, 1.0, 14), 4 * STEPS
    expected = rates_of(make, steps, every=4, warmup=warmup)
    product = np.divide(rates_of(make, steps, 4), RATE) * rates_of(lambda lr, o: lr.LinearLR(o, *warmup), steps)
    if "floor" in case:  # torch's step from rate to rate drifts from the product of the two where there is a floor
        expected = product
    np.testing.assert_allclose(expected, product, rtol=1e-9)
    found = ours(case, steps, per="epoch", period=4, warmup=6, warmup_epochs=2, warmup_start=1 / 8, **options)
    np.testing.assert_allclose(found, expected, atol=1e-6 * RATE)


@pytest.mark.torch
@pytest.mark.parametrize("case", [case for case in PER_STEP if "end" not in case])
def test_per_step_it_follows_the_warm_up_as_torchs_sequence(case):
    make, options = PER_STEP[case]

    def sequence(lr, o):
        return lr.SequentialLR(o, [lr.LinearLR(o, 0.2, 1.0, 5), make(lr, o)], [5])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its own schedulers in a way that it warns of
        expected = rates_of(sequence, STEPS + 5)
    found = ours(case, STEPS + 5, warmup=5, warmup_start=0.2, **options)
    np.testing.assert_allclose(found, expected, atol=1e-6 * RATE)


def test_schedules_by_hand():
    cosine = schedule("cosine", 1.0, total=10, warmup=2)
    assert [float(cosine(s)) for s in (0, 1, 2, 6, 10)] == pytest.approx([0, 0.5, 1, 0.5, 0], abs=1e-6)
    linear = schedule("linear", 2.0, total=4, final=0.5)
    assert [float(linear(s)) for s in range(5)] == pytest.approx([2, 1.75, 1.5, 1.25, 1])
    assert float(schedule("constant", 3.0, total=4)(99)) == 3
    epochs = schedule("linear", 1.0, total=20, period=5, per="epoch")
    assert [float(epochs(s)) for s in (0, 4, 5, 9, 10, 19)] == pytest.approx([1, 1, 0.75, 0.75, 0.5, 0.25])


def test_the_published_warm_up_from_one_part_in_n():
    """GSV-Cities' recipes begin with 1/n of the rate and reach all of it at step n-1."""
    n = 8
    found = ours("constant", 20, warmup=n - 1, warmup_start=1 / n)
    assert found == pytest.approx([RATE * min(1.0, (step + 1) / n) for step in range(20)], rel=1e-6)


MISTAKES = {
    r"'exponential'.*\['constant', 'cosine'": {"name": "exponential"},
    "'step'.*'epoch'.*'week'": {"name": "constant", "per": "week"},
    r"warm-up.*\b100 steps.*\b100 steps": {"name": "constant", "warmup": 100},
    r"warm-up.*\b105 steps.*\b100 steps": {"name": "cosine", "warmup": 5, "warmup_epochs": 10},
    r"warm-up.*-1 steps.*\b0 steps": {"name": "cosine", "warmup": -1},
    r"cosine.*length=96\b.*\b95 steps": {
        "name": "cosine", "warmup": 5, "length": 96,
    },
    r"linear.*length=11\b.*\b10 epochs": {
        "name": "linear", "per": "epoch", "length": 11,
    },
    r"linear.*length=-2\b.*\b1\b": {"name": "linear", "length": -2},
    r"milestones=\[5, 20, 10\].*\bafter\b": {"name": "multi_step", "milestones": (5, 20, 10)},
    r"milestones=\[5, 5\].*\bafter\b": {"name": "multi_step", "milestones": (5, 5)},
    r"milestones=\[0\].*\b1\b": {"name": "multi_step", "milestones": (0,)},
    r"milestones=\[\].*\bafter\b": {"name": "multi_step"},
    r"milestones=\[5, 7\.5\].*whole.*epochs": {
        "name": "multi_step", "per": "epoch", "milestones": (5, 7.5),
    },
    r"milestones=\['a'\].*whole.*steps": {"name": "multi_step", "milestones": ("a",)},
    r"milestone 100\b": {"name": "multi_step", "milestones": (5, 100)},
    r"milestone 15\b.*\b10 epochs": {
        "name": "multi_step", "per": "epoch", "milestones": (5, 15),
    },
    r"gamma=0\b": {"name": "multi_step", "milestones": (5,), "gamma": 0},
}  # fmt: skip


@pytest.mark.parametrize("said", MISTAKES)
def test_a_schedule_that_never_ends_is_told(said):
    options = dict(MISTAKES[said])
    with pytest.raises(UserError, match=said):
        schedule(options.pop("name"), 1.0, total=100, period=10, **options)


@pytest.mark.parametrize(("text", "kept"), [("(3,5)", (3, 5)), ("[3,5]", (3, 5)), ("5", (5,))])
def test_milestones_come_from_the_command_line(text, kept):
    config = common.base()
    override(config, "optimizer.milestones", text)
    assert config.optimizer.milestones == kept
    rate = schedule("multi_step", 1.0, total=10, milestones=config.optimizer.milestones)
    assert float(rate(9)) == pytest.approx(0.1 ** len(kept))
