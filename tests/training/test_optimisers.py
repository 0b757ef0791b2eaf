"""Directions against torch's optimisers, step by step; learning rates and their patterns by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvpr.errors import UserError
from jaxvpr.training import optimisers

# name -> (torch's optimiser, its options, ours where they are called otherwise)
TORCH = {
    "sgd": ("SGD", {"momentum": 0.0}, {}),
    "sgd with momentum": ("SGD", {"momentum": 0.9}, {}),
    "sgd with nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}, {}),
    "asgd": ("ASGD", {}, {}),
    "asgd in a hurry": ("ASGD", {"lambd": 0.3, "alpha": 0.6, "t0": 9.0}, {}),
    "adam": ("Adam", {}, {}),
    "adam of other moments": ("Adam", {"betas": (0.7, 0.95), "eps": 1e-3}, {"b1": 0.7, "b2": 0.95, "eps": 1e-3}),
    "adamw": ("AdamW", {}, {}),
    "radam": ("RAdam", {}, {}),
    "radam of other moments": ("RAdam", {"betas": (0.8, 0.9), "eps": 1e-3}, {"b1": 0.8, "b2": 0.9, "eps": 1e-3}),
}
STEPS, RATE, START = 30, 0.05, np.random.default_rng(0).normal(size=(5, 3))


def theirs(case, weight_decay, dtype=np.float64):
    """Torch's weights after each step, under a falling rate, and its optimiser."""
    import torch

    kind, options, _ = TORCH[case]
    weight = torch.nn.Parameter(torch.from_numpy(START.astype(dtype)))
    peer = getattr(torch.optim, kind)([weight], lr=RATE, weight_decay=weight_decay, **options)
    falling = torch.optim.lr_scheduler.LinearLR(peer, 1.0, 0.2, STEPS)
    path = []
    for step in range(STEPS):
        peer.zero_grad()
        ((weight - float(np.sin(step))) ** 2).sum().backward()
        peer.step()
        falling.step()
        path.append(weight.detach().numpy().copy())
    return path, peer.state[weight]


def ours(case, weight_decay, dtype=np.float64):
    """Our weights after each step of the same, and the state."""
    _, options, renamed = TORCH[case]
    keys = renamed or options
    tuner = optimisers.build(
        case.split()[0], rate=RATE, total=STEPS, schedule_name="linear", final=0.2, weight_decay=weight_decay, **keys
    )
    params = {"w": jnp.asarray(START.astype(dtype))}
    state, path = tuner.transform.init(params), []
    update = jax.jit(tuner.update)
    for step in range(STEPS):
        grads = {"w": 2 * (params["w"] - np.sin(step).astype(dtype))}
        params, state = update(grads, state, params, jnp.int32(step))
        path.append(np.asarray(params["w"]))
    return path, state


@pytest.mark.torch
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("case", TORCH)
def test_trajectory_is_torchs(case, weight_decay):
    """In float64: in float32 Adam rounds otherwise, by up to 3e-6 after twenty steps."""
    with jax.enable_x64(True):
        path, _ = ours(case, weight_decay)
    expected, _ = theirs(case, weight_decay)
    np.testing.assert_allclose(path, expected, atol=1e-6)
    assert np.abs(np.diff(expected, axis=0)).max(axis=(1, 2)).min() > 1e-4  # every step moves far more than that


@pytest.mark.torch
@pytest.mark.parametrize("case", ["sgd with nesterov", "asgd in a hurry", "radam", "radam of other moments"])
def test_trajectory_is_torchs_in_float32(case):
    """RAdam's rectification is a small difference of large numbers: it must not drown in float32."""
    np.testing.assert_allclose(ours(case, 0.1, np.float32)[0], theirs(case, 0.1, np.float32)[0], atol=1e-6)


@pytest.mark.torch
@pytest.mark.parametrize("case", ["asgd", "asgd in a hurry"])
def test_asgd_keeps_torchs_average_aside(case):
    with jax.enable_x64(True):
        path, state = ours(case, 0.0)
    _, peer = theirs(case, 0.0)
    np.testing.assert_allclose(state.mean["w"], peer["ax"].numpy(), atol=1e-6)
    assert np.allclose(state.mean["w"], path[-1], atol=1e-6) == (case == "asgd")  # its average begins after 1e6 steps


def test_the_rectification_of_radam_is_exact_in_float32():
    from jaxvpr.training.directions import _rectification

    b2, steps = 0.999, np.array([1, 5, 6, 7, 30, 499, 501, 10_000, 10_000_000])
    longest = 2 / (1 - b2) - 1
    length = longest - 2 * steps * b2**steps / (1 - b2**steps)
    known = np.maximum(length, 5.0)
    expected = np.sqrt((known - 4) * (known - 2) * longest / ((longest - 4) * (longest - 2) * known))
    sure, rectified = _rectification(jnp.asarray(steps, jnp.float32), b2)
    np.testing.assert_array_equal(sure, length > 5)
    np.testing.assert_allclose(np.asarray(rectified)[length > 5], expected[length > 5], rtol=2e-6)


def test_factors_clipping_and_scale_by_hand():
    tuner = optimisers.build("sgd", rate=0.1, total=9, momentum=0, clip=1.0, factors=(("head/", 10.0), (".*", 0.0)))
    params = {"body/w": np.ones(1, np.float32), "head/w": np.ones(1, np.float32)}
    grads = {"body/w": np.full(1, 3, np.float32), "head/w": np.full(1, 4, np.float32)}
    moved, _ = tuner.update(grads, tuner.transform.init(params), params, 0)
    assert float(moved["body/w"][0]) == 1.0
    assert float(moved["head/w"][0]) == pytest.approx(1 - 10 * 0.1 * 4 / 5, abs=1e-5)
    moved, _ = tuner.update(grads, tuner.transform.init(params), params, 0, scale=0.5)
    assert float(moved["head/w"][0]) == pytest.approx(1 - 0.5 * 10 * 0.1 * 4 / 5, abs=1e-5)


VIT = {
    "backbone/patch_embed/proj/kernel": 1 / 16,
    "backbone/cls_token": 1 / 16,
    "backbone/pos_embed": 1 / 16,
    "backbone/register_tokens": 1 / 16,
    "backbone/blocks_0/attn/qkv/kernel": 1 / 8,
    "backbone/blocks_1/ls1/gamma": 1 / 4,
    "backbone/blocks_2/mlp/fc1/bias": 1 / 2,
    "backbone/norm/scale": 1.0,
    "aggregator/blocks_0/kernel": 1.0,
}


def test_layer_decay_by_hand():
    tuner = optimisers.build("sgd", rate=1.0, total=1, momentum=0.0, layer_decay=0.5)
    assert tuner.factors_of(VIT) == VIT
    ones = {path: jnp.ones(()) for path in VIT}
    moved, _ = tuner.update(ones, tuner.transform.init(ones), ones, 0)
    assert {path: float(1 - value) for path, value in moved.items()} == VIT
    with_factor = tuner._replace(factors=(("aggregator/", 10.0), (r"blocks_2/", 3.0)))
    assert with_factor.factors_of(VIT) == {
        **VIT, "aggregator/blocks_0/kernel": 10.0, "backbone/blocks_2/mlp/fc1/bias": 1.5
    }  # fmt: skip


def test_layer_factors_tell_block_1_from_block_11():
    paths = [f"backbone/blocks_{i}/w" for i in range(12)]
    pairs = dict(optimisers.layer_factors(paths, 0.9))
    assert pairs["^backbone/blocks_1/"] == pytest.approx(0.9**11) and pairs["^backbone/blocks_11/"] == 0.9
    tuner = optimisers.build("adamw", rate=1.0, total=1, layer_decay=0.9)
    assert list(tuner.factors_of(paths).values()) == pytest.approx([0.9 ** (12 - i) for i in range(12)])


def test_mistakes_are_told():
    with pytest.raises(UserError, match=r"adamw.*asgd.*radam.*sgd"):
        optimisers.build("lion", rate=1, total=1)
    with pytest.raises(UserError, match=r"nesterov=True.*momentum"):
        optimisers.build("sgd", rate=1, total=1, momentum=0.0, nesterov=True)
    with pytest.raises(TypeError, match="beta1"):
        optimisers.build("adam", rate=1, total=1, beta1=0.5)
    tuner = optimisers.build("adam", rate=1, total=1, layer_decay=0.5)
    with pytest.raises(UserError, match=r"layer_decay=0\.5\b.*blocks"):
        tuner.check(["backbone/layer1_0/conv1/kernel"])
    with pytest.raises(UserError, match=r"layer_decay=1\.5\b.*\b0\b.*\b1\b"):
        tuner._replace(layer_decay=1.5).check(VIT)
    with pytest.raises(UserError, match=r"'hed/'.*parameter"):
        tuner._replace(factors=(("hed/", 2.0),)).check(VIT)


@pytest.mark.parametrize("name", ["adam", "adamw", "asgd", "radam", "sgd"])
def test_a_head_of_a_stack_moves_as_one_alone(name):
    """The step slices the stacked heads and their states; one that rests keeps its own count."""
    tuner = optimisers.build(name, rate=0.1, total=9, weight_decay=0.1)
    heads = {"prototypes": jnp.asarray(START.astype(np.float32)).reshape(5, 1, 3)}
    stacked, alone = jax.vmap(tuner.transform.init, axis_size=5)(heads), {"prototypes": heads["prototypes"][2]}
    one, state = jax.tree.map(lambda x: x[2], stacked), tuner.transform.init(alone)
    sliced, update = dict(alone), jax.jit(tuner.update)
    for step in range(3):
        sliced, one = update({"prototypes": sliced["prototypes"] - 1}, one, sliced, step)
        alone, state = update({"prototypes": alone["prototypes"] - 1}, state, alone, step)
    jax.tree.map(np.testing.assert_array_equal, (sliced, one), (alone, state))
    assert jax.tree.map(jnp.shape, one) == jax.tree.map(lambda x: x.shape[1:], stacked)
