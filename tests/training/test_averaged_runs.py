"""Runs that average their weights, lower their rate on a plateau and cache gradients; killed ones end as the others."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxvpr import builders, families
from jaxvpr.errors import UserError
from jaxvpr.parallel import hosts
from jaxvpr.training import logs, loop
from jaxvpr.training.checkpoint import Checkpoints

VALUES = {3: 50.0, 6: 40.0, 9: 45.0, 12: 30.0}
DECAY, FROZEN = 0.7, "backbone/(conv1|bn1)/"


@pytest.fixture
def config(tiny_config):
    """Four epochs of three steps; the first validation is the best, so that the third epoch has half the rate."""
    config = tiny_config.copy_and_resolve_references().unlock()
    config.epochs, config.steps_per_epoch, config.batch, config.grad_cache = 4, 3, 16, 2
    config.model.backbone_options.widths = (4, 4, 4, 4)
    config.model.backbone_options.frozen_bn = "all"
    config.model.aggregator_options.fc_norm = False
    config.frozen, config.frozen_random = (FROZEN,), True
    config.optimizer.update({"schedule": "constant", "warmup": 0, "rate": 0.01})
    config.ema.decay = DECAY
    config.plateau.update({"factor": 0.5, "patience": 0, "options": {"cooldown": 1}})
    return config.lock()


def train(config, folder, monkeypatch, leaves_at=99):
    """The outcome, and what each validation and each step saw: {step: variables}, [state before the step]."""

    class Told(hosts.StopRequest):
        def __call__(self, step):
            return step >= leaves_at

    monkeypatch.setattr(loop.hosts, "StopRequest", Told)
    mesh, validated = builders.mesh(config), []

    def validate(variables, extra):
        validated.append(jax.device_get(variables))
        return {"val/R@1": VALUES[3 * (len(logs.read(folder)) // 4 + 1)]}

    recipe = families.recipe(config, mesh, [])._replace(validate=validate)
    folder.mkdir(exist_ok=True)
    return loop.train(config, folder, recipe, mesh), validated


def assert_equal(found, wanted):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.long
def test_what_is_kept_is_averaged_and_a_run_told_to_leave_ends_as_one_left_alone(config, tmp_path, monkeypatch):
    steps, make_step = [], loop.make_step

    def watched(*args, **kwargs):
        step = make_step(*args, **kwargs)

        def run(state, *rest):
            state, metrics = step(state, *rest)
            steps.append(flatten_dict(jax.device_get(state.params), sep="/"))
            return state, metrics

        return run

    with monkeypatch.context() as patched:
        patched.setattr(loop, "make_step", watched)
        outcome, validated = train(config, tmp_path / "alone", monkeypatch)

    assert outcome.finished and outcome.best_step == 3
    rates = [r["learning_rate"] for r in logs.read(tmp_path / "alone") if "loss" in r]
    assert rates == pytest.approx([0.01] * 6 + [0.005] * 6), "after 6 one bad validation, after 9 one that cools down"

    mean = flatten_dict(outcome.initial["params"], sep="/")
    for number, params in enumerate(steps):
        mean = {path: old + np.float32(1 - DECAY) * (params[path] - old) for path, old in mean.items()}
        if number % 3 == 2:
            seen = flatten_dict(validated[number // 3]["params"], sep="/")
            for path, leaf in seen.items():
                np.testing.assert_allclose(leaf, mean[path], atol=1e-6, err_msg=path)
                assert np.array_equal(leaf, params[path]) == path.startswith(("backbone/conv1/", "backbone/bn1/")), path
    assert_equal(outcome.best, validated[0])
    checkpoints = Checkpoints(tmp_path / "alone" / "checkpoints", read_only=True)
    for which, index in (("best", 0), ("last", 3)):
        assert_equal(checkpoints.variables(builders.shapes(config), which)[1], validated[index])
    checkpoints.close()

    part, _ = train(config, tmp_path / "broken", monkeypatch, leaves_at=7)
    assert not part.finished
    again, last = train(config, tmp_path / "broken", monkeypatch)
    assert_equal((again.best, last[-1]), (outcome.best, validated[-1]))
    assert (tmp_path / "broken" / "log.jsonl").read_bytes() == (tmp_path / "alone" / "log.jsonl").read_bytes()


REFUSED = {
    r"decay.*warmup.*\b1\.5\b": {"ema.decay": 1.5},
    r"factor=1\.5\b.*\b0\b.*\b1\b": {"plateau.factor": 1.5},
    "mode='most'.*'min'.*'max'": {"plateau.options": {"mode": "most"}},
    r"config\.plateau: options\.coldown=1: .*no such argument; .*cooldown \(int\)": {"plateau.options": {"coldown": 1}},
    r"config\.optimizer: options\.t0=1: .*adam has no .*; there are b1 \(float\), b2": {"optimizer.options": {"t0": 1}},
    r"\b4 validations.*patience=2\b.*\b5\b": {"plateau.patience": 2},
    r"\b2 validations.*patience=": {"every_epochs": 3},
    r"plateau\.factor=.*val_data": {"val_data": {}},
    r"accumulate=2\b.*grad_cache=2\b.*\b1\b": {"accumulate": 2},
    r"batch=16\b.*\b32\b.*grad_cache.*\b8 x 4\b": {"grad_cache": 4},
    "grad_cache.*backbone/bn1.*frozen_bn=all": {"model.backbone_options.frozen_bn": "update"},
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_makes_no_sense_is_told(config, tmp_path, monkeypatch, said):
    config = config.copy_and_resolve_references().unlock()
    for key, value in REFUSED[said].items():
        *groups, last = key.split(".")
        group = config
        for name in groups:
            group = group[name]
        group[last] = type(group[last])(value)
    with pytest.raises(UserError, match=said):
        train(config.lock(), tmp_path / "run", monkeypatch)
