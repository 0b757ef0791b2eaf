"""Directions and schedules against torch's own, step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvpr.errors import UserError
from jaxvpr.training import optimisers

TORCH = {
    "sgd": ("SGD", {"momentum": 0.9, "weight_decay": 0.01}, {"momentum": 0.9, "weight_decay": 0.01}),
    "adam": ("Adam", {"weight_decay": 0.01}, {"weight_decay": 0.01}),
    "adamw": ("AdamW", {"weight_decay": 0.1}, {"weight_decay": 0.1}),
}


@pytest.mark.parametrize("name", sorted(TORCH))
def test_trajectory_is_torchs(name):
    """In float64: in float32 the two round differently, by up to 3e-6 after twenty steps."""
    torch = pytest.importorskip("torch")
    kind, theirs, ours = TORCH[name]
    start = np.random.default_rng(0).normal(size=(5, 3))
    weight = torch.nn.Parameter(torch.from_numpy(start.copy()))
    peer = getattr(torch.optim, kind)([weight], lr=0.05, **theirs)
    tuner = optimisers.build(name, rate=0.05, total=50, **ours)
    with jax.enable_x64(True):
        params = {"w": jnp.asarray(start)}
        state = tuner.transform.init(params)
        for step in range(20):
            target = float(np.sin(step))
            peer.zero_grad()
            ((weight - target) ** 2).sum().backward()
            peer.step()
            params, state = tuner.update({"w": 2 * (params["w"] - target)}, state, params, step)
            np.testing.assert_allclose(params["w"], weight.detach().numpy(), atol=1e-7)


def test_schedules_by_hand():
    cosine = optimisers.schedule("cosine", 1.0, total=10, warmup=2)
    assert [float(cosine(s)) for s in (0, 1, 2, 6, 10)] == pytest.approx([0, 0.5, 1, 0.5, 0], abs=1e-6)
    linear = optimisers.schedule("linear", 2.0, total=4, final=0.5)
    assert [float(linear(s)) for s in range(5)] == pytest.approx([2, 1.75, 1.5, 1.25, 1])
    assert float(optimisers.schedule("constant", 3.0, total=4)(99)) == 3


def test_factors_and_clipping_by_hand():
    tuner = optimisers.build("sgd", rate=0.1, total=9, momentum=0, clip=1.0, factors=(("head/", 10.0), (".*", 0.0)))
    params = {"body/w": np.ones(1, np.float32), "head/w": np.ones(1, np.float32)}
    grads = {"body/w": np.full(1, 3, np.float32), "head/w": np.full(1, 4, np.float32)}
    moved, _ = tuner.update(grads, tuner.transform.init(params), params, 0)
    assert float(moved["body/w"][0]) == 1.0
    assert float(moved["head/w"][0]) == pytest.approx(1 - 10 * 0.1 * 4 / 5, abs=1e-5)


def test_unknown_names_list_what_exists():
    with pytest.raises(UserError, match=r"adamw.*sgd"):
        optimisers.build("lion", rate=1, total=1)
    with pytest.raises(UserError, match="cosine"):
        optimisers.schedule("exponential", 1, total=1)
