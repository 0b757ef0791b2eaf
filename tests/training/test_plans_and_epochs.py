"""Epochs of several plans, the measure that decides, stopping early, generations and the seconds of planning: runs of
a linear layer on five numbers an image, stopped in awkward places and gone on with."""

import json

import pytest
from epoch_runs import EPOCH, Run, assert_same, differ

from jaxvpr.errors import UserError
from jaxvpr.training import logs
from jaxvpr.training.checkpoint import Checkpoints
from jaxvpr.training.early_stop import Patience, after, deciding


@pytest.fixture
def start(tmp_path, monkeypatch):
    return lambda name, **keys: Run(tmp_path / name, monkeypatch, **keys)


PER_EPOCH = {
    "optimizer.schedule": "multi_step", "optimizer.per": "epoch", "optimizer.milestones": (1,), "optimizer.gamma": 0.5,
}  # fmt: skip


def test_three_plans_an_epoch_and_a_run_in_parts_equals_one_left_alone(start):
    alone = start("alone", **PER_EPOCH)
    outcome = alone.train()
    assert outcome.finished and alone.plans == list(range(6)) and alone.steps() == [6, 12]
    records = logs.read(alone.folder)
    steps, validations = ([r for r in records if key in r] for key in ("loss", "val/R@1"))
    assert [(r["step"], r["epoch"]) for r in validations] == [(6, 1), (12, 2)]
    assert [r["epoch_of_loss"] for r in steps] == [0.0] * 6 + [1.0] * 6
    assert [r["learning_rate"] for r in steps] == pytest.approx([0.01] * 6 + [0.005] * 6)
    assert differ(alone.seen[0], alone.seen[1]), "plans of one epoch see the model of their moment"

    parts = start("parts", **PER_EPOCH)
    # In the middle of a plan, between two plans of an epoch, at the end of an epoch, in the next plan's middle.
    for leaves_at in (3, 4, 6, 7):
        assert not parts.train(leaves_at).finished and parts.steps()[-1] == leaves_at
    again = parts.train()
    assert parts.plans == list(range(6)), "a plan that was saved is not made again"
    assert parts.log() == alone.log()
    assert_same((again.best, again.initial, parts.seen), (outcome.best, outcome.initial, alone.seen))


def test_plans_without_the_model_are_drawn_ahead_and_leave_no_trace_in_a_run_in_parts(start):
    alone, parts = (start(name, mines=False, period=3) for name in ("alone", "parts"))
    drawn, validate = [], alone.validate
    alone.validate = lambda *given: (drawn.append(alone.plans[-1]), validate(*given))[1]
    outcome = alone.train()
    assert alone.plans == [0, 1, 2, 3] and drawn == [2, 3], "the plan after an epoch is there while that is validated"

    for leaves_at in (2, 6):
        assert not parts.train(leaves_at).finished
        checkpoints = Checkpoints(parts.folder / "checkpoints", read_only=True)
        held = checkpoints.restore(None).host
        checkpoints.close()
        plan = (leaves_at - 1) // 3  # that of the last step, whose memory is held: the next one has been drawn too
        assert parts.plans[-1] == plan + 1 and held["memory.made"] == plan + 1
        assert ("plan.source.rows" in held) == (leaves_at % 3 > 0)
    again = parts.train()
    assert parts.log() == alone.log()
    assert_same((again.best, again.initial, again.planning_seconds), (outcome.best, outcome.initial, 20.0))


def test_a_mistake_in_a_plan_that_is_drawn_ahead_comes_when_it_is_due(start):
    run, objective = start("run", mines=False), Run.objective

    def mistaken(self):
        plan = objective(self).plan

        def shorter(index, rng, memory, embed):
            made, memory = plan(index, rng, memory, embed)
            return made._replace(
                draws={n: d.at(slice(0, 1)) for n, d in made.draws.items()}
            ) if index == 2 else made, memory

        return objective(self)._replace(plan=shorter)

    run.objective = mistaken.__get__(run)
    with pytest.raises(UserError, match=r"draws 1 steps for the stream 'source'"):
        run.train()
    assert [record["step"] for record in logs.read(run.folder)] == [0, 1, 2, 3]


def test_between_plans_a_save_comes_if_it_is_due_and_a_validation_never(start):
    run = start("run", **{"checkpoint.every_steps": 4, "checkpoint.keep": 9, "every_epochs": 2})
    run.train()
    assert run.steps() == [4, 8, 12] and len(run.validated) == 1
    checkpoints = Checkpoints(run.folder / "checkpoints", read_only=True)
    assert checkpoints.best_step() == 12
    checkpoints.close()


def test_an_epoch_that_is_no_whole_number_of_plans_is_told(start):
    with pytest.raises(UserError, match=r"steps_per_epoch=7\b.*\b2 steps"):
        start("run", steps_per_epoch=7).train()


MEASURES = ("a/R@1", "a/R@5", "b/x/R@1", "b/x/R@10")


def test_the_deciding_measure_by_name():
    assert deciding(MEASURES, "") == "a/R@1" and deciding(MEASURES, "R@5") == "a/R@5"
    assert deciding(MEASURES, "b/x/R@10") == "b/x/R@10" and deciding(reversed(MEASURES), "R@1") == "b/x/R@1"
    assert deciding((), "") is None and deciding(("nothing",), "") == "nothing"
    for wanted in ("R@10", "R@2", "c/R@1", "a", "x/R@1"):
        with pytest.raises(UserError, match=rf"config\.best\.measure='{wanted}'.*a/R@1, a/R@5, b/x/R@1"):
            deciding(MEASURES, wanted)
    with pytest.raises(UserError, match=r"'R@5'.*val_data"):
        deciding((), "R@5")


# Of each epoch: val/R@1 is 50, val/R@5 this, zoo/R@5 what is missing to 100.
VALUES = (20.0, 60.0, 40.0, 60.0)


@pytest.mark.parametrize(
    ("measure", "best", "scales"),
    # The plateau's rule halves the rate after a validation that is not better; equal is not.
    [("", 6, (1, 0.5, 0.25)), ("R@5", 12, (1, 1, 0.5)), ("zoo/R@5", 6, (1, 0.5, 0.25))],
)
def test_the_measure_decides_what_is_best_and_when_the_rate_falls(start, measure, best, scales):
    keys = {"plateau.factor": 0.5, "plateau.patience": 0, "best.measure": measure, "epochs": 4, "checkpoint.keep": 1}
    run = start("run", values=VALUES, **keys)
    outcome = run.train()
    assert outcome.best_step == best and run.steps() == sorted({best, 24})
    assert_same(outcome.best, run.validated[best // EPOCH - 1])
    rates = [record["learning_rate"] for record in logs.read(run.folder) if "loss" in record]
    assert rates[EPOCH::EPOCH] == pytest.approx([0.01 * scale for scale in scales])


def test_a_measure_that_validation_has_not_is_told_after_the_first(start):
    with pytest.raises(UserError, match=r"'R@10'.*val/R@1, val/R@5, zoo/R@5"):
        start("run", **{"best.measure": "R@10"}).train()


def test_patience_by_hand():
    seen, patience = [], Patience()
    for value in (float("nan"), 0.0, 40.0, 40.0, 39.0, 40.1, 12.0):
        patience = after(Patience(**json.loads(json.dumps(patience._asdict()))), value)
        seen.append(tuple(patience))
    assert seen == [(None, 1), (0.0, 0), (40.0, 0), (40.0, 1), (40.0, 2), (40.1, 0), (40.1, 1)]


COURSE = (20.0, 60.0, 60.0, 70.0, 65.0, 70.0, 99.0)


def test_it_ends_after_as_many_validations_that_were_no_better_and_stays_ended(start, caplog):
    keys = {"best.measure": "R@5", "best.patience": 2, "epochs": 7}
    alone = start("alone", values=COURSE, **keys)
    with caplog.at_level("INFO", "jaxvpr"):
        outcome = alone.train()
    why = "no val/R@5 above 70.0 in 2 validations"
    assert f"ended at step 36 of 42: {why}" in caplog.text
    assert logs.read(alone.folder)[-1] == {"step": 36, "ended": why}
    assert outcome.finished and outcome.best_step == 24 and alone.steps() == [24, 30, 36]
    assert_same(outcome.best, alone.validated[3])

    alone.before.clear()
    again = alone.train()
    assert again.finished and again.best_step == 24 and not alone.before, "nothing was trained"
    assert_same(again.best, outcome.best)

    parts = start("parts", values=COURSE, **keys)
    for leaves_at in (18, 30, 33):  # each within a row of validations that are no better
        assert not parts.train(leaves_at).finished
    assert parts.train().finished and parts.log() == alone.log()


def test_without_patience_it_goes_on(start):
    run = start("run", values=(50.0, 40.0, 30.0), epochs=3)
    assert run.train().finished and run.steps()[-1] == 18


GENERATIONS = {"ema.decay": 0.5, "plateau.factor": 0.5, "plateau.patience": 0, "best.measure": "R@5", "epochs": 3}


def test_a_new_generation_starts_as_the_first_did_and_keeps_what_it_inherits(start):
    run = start("run", values=(60.0, 50.0, 40.0), generations=(3, 7), **GENERATIONS)
    outcome = run.train()
    first = run.before[0]
    for number, last in ((6, 5), (14, 13)):
        born = run.before[number]
        assert born.step == number and differ(run.before[last].params, first.params)
        assert_same(born._replace(step=first.step, aux=first.aux), first)
    # The first generation ended where it was validated; the second in the middle of an epoch.
    assert_same(run.inherited[0], run.validated[0]["params"])
    assert_same([run.before[n].aux["old"] for n in (5, 6, 13)], [first.aux["old"], run.inherited[0], run.inherited[0]])
    assert_same(run.before[14].aux["old"], run.inherited[1])
    assert differ(run.inherited[0], run.inherited[1]) and len(run.inherited) == 2
    assert_same(run.seen[3], run.seen[0])  # plans are made with the new one
    assert_same(outcome.initial["params"], first.params)
    # The second generation's first validation cannot be worse than one before it: the rate stays whole.
    rates = [record["learning_rate"] for record in logs.read(run.folder) if "loss" in record]
    assert rates == pytest.approx([0.01] * 18)

    parts = start("parts", values=(60.0, 50.0, 40.0), generations=(3, 7), **GENERATIONS)
    for leaves_at in (6, 7, 14):
        assert not parts.train(leaves_at).finished
    again = parts.train()
    assert len(parts.inherited) == 2, "each switch comes once"
    assert parts.log() == run.log()
    assert_same((again.best, parts.inherited, parts.before), (outcome.best, run.inherited, run.before))


def test_a_generation_counts_its_own_validations(start):
    """50 and 40 were two in a row that are no better, and would halve the rate twice, if step 12 began nothing new."""
    keys = {"best.measure": "R@5", "best.patience": 2, "epochs": 4, "plateau.factor": 0.5, "plateau.patience": 0}
    run = start("run", values=(60.0, 50.0, 40.0, 30.0), generations=(6,), **keys)
    outcome = run.train()
    assert outcome.finished and outcome.best_step == 6 and run.steps()[-1] == 24
    assert [float(run.before[step].rate_scale) for step in (0, 6, 12, 18)] == [1, 1, 1, 1]


def test_seconds_of_planning_are_summed_over_the_parts(start):
    """A plan takes 5 s of a clock that stands still otherwise, and the log knows nothing of it."""
    run, slower = start("run"), start("slower")
    outcome = run.train()
    assert (outcome.planning_seconds, outcome.seconds) == (30.0, 30.0)
    slower.train(3)
    slower.clock += 1000  # between the parts
    outcome = slower.train()
    assert (outcome.planning_seconds, outcome.seconds) == (30.0, 30.0)
    assert run.log() == slower.log() and b"planning" not in run.log()
    (events,) = (run.folder / "tensorboard").iterdir()
    assert events.read_bytes().count(b"planning_seconds") == 6
