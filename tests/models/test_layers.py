"""Layers against numbers worked out by hand and against PyTorch's."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvpr.models.layers import BatchNorm, Conv, LayerNorm, l2_normalise, max_pool

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def test_batch_norm_by_hand():
    # 1 and 3: mean 2, biased variance 1, unbiased 2.
    layer = BatchNorm(average=False)
    variables = layer.init(jax.random.key(0), jnp.zeros((1, 1)))
    y, new = layer.apply(variables, jnp.array([[1.0], [3.0]]), mutable=["batch_stats"])
    np.testing.assert_allclose(y, [[-1], [1]], atol=1e-5)
    np.testing.assert_allclose(new["batch_stats"]["mean"], 0.1 * 2, rtol=1e-6)
    np.testing.assert_allclose(new["batch_stats"]["var"], 0.9 * 1 + 0.1 * 2, rtol=1e-6)


def test_initialisation_leaves_the_statistics_alone():
    variables = jax.jit(BatchNorm(average=False).init)(jax.random.key(0), jnp.full((4, 2), 7.0))
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], 0)
    np.testing.assert_array_equal(variables["batch_stats"]["var"], 1)


@pytest.mark.torch
def test_batch_norm_trains_as_torch_does():
    import torch

    theirs = torch.nn.BatchNorm2d(5)
    with torch.no_grad():
        theirs.weight.copy_(torch.from_numpy(normal(5)))
    ours = BatchNorm(average=False)
    variables = ours.init(jax.random.key(0), jnp.zeros((1, 2, 2, 5)))
    variables = {**variables, "params": {**variables["params"], "scale": theirs.weight.detach().numpy()}}
    weigh = normal(3, 4, 6, 5)

    def loss(params, stats, x):
        y, new = ours.apply({"params": params, "batch_stats": stats}, x, mutable=["batch_stats"])
        return jnp.sum(y * weigh), new["batch_stats"]

    grad = jax.jit(jax.grad(loss, argnums=(0, 2), has_aux=True))
    for _ in range(3):
        x = 3 * normal(3, 4, 6, 5) + 2
        there = torch.from_numpy(x).permute(0, 3, 1, 2).requires_grad_()
        theirs.zero_grad()
        (theirs(there) * torch.from_numpy(weigh).permute(0, 3, 1, 2)).sum().backward()
        grads, stats = grad(variables["params"], variables["batch_stats"], x)
        variables = {**variables, "batch_stats": stats}
        np.testing.assert_allclose(grads[1], there.grad.permute(0, 2, 3, 1).numpy(), atol=1e-5)
        np.testing.assert_allclose(grads[0]["scale"], theirs.weight.grad.numpy(), atol=2e-4)
        np.testing.assert_allclose(stats["mean"], theirs.running_mean.numpy(), rtol=1e-5)
        np.testing.assert_allclose(stats["var"], theirs.running_var.numpy(), rtol=1e-5)


def test_batch_norm_keeps_digits_where_the_mean_is_large():
    # Around zero, E[x²] - E[x]² of numbers near 1000 would be off by several per cent.
    x = 1000 + normal(512, 3)
    layer = BatchNorm(average=False)
    variables = layer.init(jax.random.key(0), x)
    variables["batch_stats"]["mean"] = jnp.full(3, 999.0)
    y = layer.apply(variables, x, mutable=["batch_stats"])[0]
    np.testing.assert_allclose(y.std(0), 1, atol=1e-3)


@pytest.mark.parametrize(
    ("size", "stride", "padding"), [(1, 1, 0), (1, 2, 0), (3, 1, 1), (3, 2, 1), (7, 2, 3), (7, 2, 0)]
)
@pytest.mark.torch
def test_conv_is_torchs(size, stride, padding):
    import torch

    layer = Conv(4, size, stride, padding, use_bias=True)
    for height, width in ((9, 12), (8, 15)):
        x, kernel, bias = normal(2, height, width, 3), normal(size, size, 3, 4), normal(4)
        ours = layer.apply({"params": {"kernel": kernel, "bias": bias}}, x)
        theirs = torch.nn.functional.conv2d(
            torch.from_numpy(x).permute(0, 3, 1, 2),
            torch.from_numpy(kernel).permute(3, 2, 0, 1),
            torch.from_numpy(bias),
            stride,
            padding,
        )
        np.testing.assert_allclose(ours, theirs.permute(0, 2, 3, 1).numpy(), atol=2e-5)


@pytest.mark.torch
@settings(deadline=None, max_examples=20)
@given(height=st.integers(3, 12), width=st.integers(3, 12), ceil=st.booleans(), padding=st.sampled_from([0, 1]))
def test_max_pool_is_torchs(height, width, ceil, padding):
    import torch

    x = normal(1, height, width, 2) - 5
    theirs = torch.nn.functional.max_pool2d(torch.from_numpy(x).permute(0, 3, 1, 2), 3, 2, padding, ceil_mode=ceil)
    # PyTorch drops a last window that would lie in the padding alone; with no padding there is none.
    ours = max_pool(x, 3, 2, padding, ceil and not padding)
    if not (ceil and padding):
        np.testing.assert_array_equal(ours, theirs.permute(0, 2, 3, 1).numpy())


def test_l2_normalise_by_hand_and_at_zero():
    np.testing.assert_allclose(l2_normalise(jnp.array([3.0, 4.0])), [0.6, 0.8], rtol=1e-6)
    assert l2_normalise(jnp.ones(3, jnp.bfloat16)).dtype == jnp.float32
    gradient = jax.grad(lambda x: jnp.sum(l2_normalise(x)))(jnp.zeros(4))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("length", [1e-9, 2e-5, 1.0, 1e12])
def test_l2_normalise_gives_unit_length_to_short_and_long_vectors(length):
    unit = normal(3, 5)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    np.testing.assert_allclose(l2_normalise(unit * np.float32(length)), unit, atol=1e-6)


@pytest.mark.torch
@pytest.mark.parametrize("eps", [1e-5, 1e-2])
def test_layer_norm_is_torchs_also_where_the_mean_is_large(eps):
    import torch

    x, scale, bias = normal(2, 3, 6), normal(6), normal(6)
    x[0] += 1000
    found = LayerNorm(eps).apply({"params": {"scale": scale, "bias": bias}}, x)
    expected = torch.nn.functional.layer_norm(torch.from_numpy(x.astype(np.float64)), (6,), eps=eps).numpy()
    np.testing.assert_allclose(found, expected * scale + bias, atol=1e-3)
    np.testing.assert_allclose(found[1], (expected * scale + bias)[1], atol=1e-5)


def test_compute_type_is_the_layers_and_parameters_are_float32():
    makers = (partial(Conv, 4, 3, padding=1), partial(BatchNorm, average=False), LayerNorm)
    for layer in (make(dtype=jnp.bfloat16) for make in makers):
        y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), jnp.ones((1, 4, 4, 4), jnp.bfloat16))
        assert y.dtype == jnp.bfloat16
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_kernels_start_at_the_spread_that_torchvision_gives_them():
    kernel = Conv(64, 3).init(jax.random.key(0), jnp.zeros((1, 4, 4, 32)))["params"]["kernel"]
    assert abs(float(kernel.std()) / np.sqrt(2 / (64 * 9)) - 1) < 0.03
    assert isinstance(Conv(4, 1), nn.Module)
