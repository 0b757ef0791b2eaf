"""The `options` of a recipe's groups: which arguments they may be, and that they arrive."""

import jax.numpy as jnp
import pytest

from configs import common
from jaxvpr.cli.overrides import override_all
from jaxvpr.errors import UserError
from jaxvpr.training.optimisers import from_keys
from jaxvpr.training.options import checked


def function(*, rate: float, steps: int = 1, fast: bool = False, kind: str = "a", given: int = 0, **_):
    pass


def test_options_are_arguments_that_have_no_key_of_their_own():
    taken = {"rate": 1.0, "given": 0}
    options = {"steps": 3, "fast": True, "kind": "b"}
    assert checked("it", function, options, taken) == options and checked("it", function, {}, taken) == {}
    assert checked("it", function, {"rate": 1}, ()) == {"rate": 1}, "an integer is a float too"
    there = r"it has no such argument; there are steps \(int\), fast \(bool\), kind \(str\)$"
    for name in ("rate", "given", "stpes", "_"):
        with pytest.raises(UserError, match=rf"^options\.{name}=1: {there}"):
            checked("it", function, {name: 1}, taken)
    for name, value in (("steps", 1.5), ("steps", True), ("fast", 1), ("kind", 1), ("rate", True), ("rate", "1")):
        with pytest.raises(UserError, match=rf"options\.{name}=.*it takes a value of type \w+$"):
            checked("it", function, {name: value}, ())


def test_an_optimiser_takes_its_own_options():
    """Adam's first step is g / (|g| + eps) of its corrected averages, whatever b1 and b2 are; SGD's with Nesterov's
    momentum is g (1 + momentum)."""
    params, grads = {"w": jnp.asarray([1.0])}, {"w": jnp.asarray([0.25])}

    def first_step(keys):
        tuner = from_keys(keys, total=10)
        moved, _ = tuner.update(grads, tuner.transform.init(params), params, jnp.int32(0))
        return 1.0 - float(moved["w"][0])

    assert first_step(common.optimizer("adam", 0.1, eps=0.75)) == pytest.approx(0.1 * 0.25 / (0.25 + 0.75), rel=1e-5)
    assert first_step(common.optimizer("adam", 0.1)) == pytest.approx(0.1, rel=1e-5)
    assert first_step(common.optimizer("sgd", 0.1, nesterov=True)) == pytest.approx(0.1 * 0.25 * 1.9, rel=1e-5)
    assert first_step(common.optimizer("sgd", 0.1)) == pytest.approx(0.1 * 0.25, rel=1e-5)
    for name, options, there in (
        ("adam", {"lambd": 1.0}, r"b1 \(float\), b2 \(float\), eps \(float\)$"),
        ("sgd", {"b1": 0.9}, r"nesterov \(bool\)$"),
        ("asgd", {"nestrov": True}, r"lambd \(float\), alpha \(float\), t0 \(float\)$"),
    ):
        with pytest.raises(UserError, match=f"the optimiser {name} has no such argument; there are {there}"):
            from_keys(common.optimizer(name, 0.1, **options), total=10)


def test_another_optimiser_leaves_the_options_of_the_first():
    config = common.base().unlock()
    config.optimizer = common.optimizer("adam", 0.1, b1=0.8)
    override_all(config, [("optimizer.options.eps", "1e-6")])
    assert config.optimizer.options.to_dict() == {"b1": 0.8, "eps": 1e-6}
    override_all(config, [("optimizer.options.nesterov", "true"), ("optimizer.name", "sgd")])
    assert config.optimizer.options.to_dict() == {"nesterov": True}
    from_keys(config.optimizer, total=10)
