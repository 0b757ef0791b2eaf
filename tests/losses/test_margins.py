"""Margin losses: by hand, against PyTorch with gradients, and over sharded classes."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxvpr.losses.margins import arcface, cosface, easy_arcface, subcenter_arcface

LOSSES = [cosface, arcface]
RNG = np.random.default_rng(0)
B, C, D = 16, 24, 10
X, W = RNG.normal(size=(B, D)).astype(np.float32), 3 * RNG.normal(size=(C, D)).astype(np.float32)
Y = RNG.integers(0, C, B).astype(np.int32)
MASK = RNG.random(B) < 0.7


def test_two_classes_by_hand():
    # Cosines 0.6 and 0.8 whatever the lengths; label 0, scale 2, margin 0.1: logits 1.0 and 1.6.
    x, w = jnp.array([[3.0, 4.0]]), jnp.array([[2.0, 0.0], [0.0, 7.0]])
    got = cosface(x, jnp.array([0]), w, scale=2.0, margin=0.1)
    np.testing.assert_allclose(got, np.log(1 + np.exp(0.6)), rtol=1e-6)
    turned = np.cos(np.arccos(0.6) + 0.1)
    got = arcface(x, jnp.array([0]), w, scale=2.0, margin=0.1)
    np.testing.assert_allclose(got, np.log(1 + np.exp(2 * (0.8 - turned))), rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_margin_zero_is_softmax_of_scaled_cosines(loss):
    cosine = (X / np.linalg.norm(X, axis=1)[:, None]) @ (W / np.linalg.norm(W, axis=1)[:, None]).T
    logits = 7 * cosine.astype(np.float64)
    expected = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(B), Y])
    np.testing.assert_allclose(loss(X, Y, W, scale=7.0, margin=0.0), expected, rtol=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("margin", [0.4, 2.0])
def test_values_and_gradients_are_those_of_plain_pytorch(loss, margin):
    """In PyTorch the angle is written out with arccos; with a margin of 2 many angles pass pi - margin."""
    import torch

    x, w, y = torch.tensor(X, requires_grad=True), torch.tensor(W, requires_grad=True), torch.tensor(Y).long()
    cosine = torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(w).T
    hit = torch.nn.functional.one_hot(y, C).bool()
    if loss is cosface:
        logits = 30 * torch.where(hit, cosine - margin, cosine)
    else:
        angle = torch.arccos(cosine)
        assert (angle[hit] > np.pi - margin).any() == (margin == 2)
        turned = torch.where(angle < np.pi - margin, torch.cos(angle + margin), cosine - margin * np.sin(margin))
        logits = 30 * torch.where(hit, turned, cosine)
    rows = torch.nn.functional.cross_entropy(logits, y, reduction="none")
    expected = rows[torch.tensor(MASK)].mean()
    expected.backward()
    value_and_grad = jax.value_and_grad(lambda x, w: loss(x, Y, w, scale=30.0, margin=margin, mask=MASK), (0, 1))
    value, (gx, gw) = jax.jit(value_and_grad)(X, W)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
    np.testing.assert_allclose(gx, x.grad.numpy(), atol=1e-5)
    np.testing.assert_allclose(gw, w.grad.numpy(), atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_padded_classes_and_masked_rows_have_no_influence(loss):
    padded = np.concatenate([W, 100 * RNG.normal(size=(8, D)).astype(np.float32)])
    more = np.concatenate([X, RNG.normal(size=(3, D)).astype(np.float32)])
    labels = np.concatenate([Y, np.array([-1, 5, 9999], np.int32)])
    mask = np.arange(B + 3) < B

    @jax.jit
    def run(x, w, classes):
        f = partial(loss, scale=20.0, margin=0.2, mask=mask, classes=classes)
        return jax.value_and_grad(lambda x, w: f(x, labels, w), (0, 1))(x, w)

    value, (gx, gw) = run(more, padded, C)
    plain, (px, pw) = jax.value_and_grad(lambda x, w: loss(x, Y, w, scale=20.0, margin=0.2), (0, 1))(X, W)
    np.testing.assert_allclose(value, plain, rtol=1e-6)
    np.testing.assert_allclose(gx[:B], px, atol=1e-6)
    np.testing.assert_allclose(gw[:C], pw, atol=1e-6)
    assert not np.any(gx[B:]) and not np.any(gw[C:])
    assert loss(X, Y, W, scale=20.0, margin=0.2, mask=np.zeros(B, bool)) == 0


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_finite_on_and_opposite_the_prototype_and_at_zero(loss):
    x = np.stack([W[0], -W[1], np.zeros(D, np.float32)])
    gradient = jax.grad(lambda x, w: loss(x, jnp.arange(3), w, scale=64.0, margin=0.5), (0, 1))(x, W)
    assert all(np.isfinite(leaf).all() for leaf in gradient)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_falls_all_the_way_from_opposite_to_the_prototype(loss):
    angles = np.linspace(0, np.pi, 50, dtype=np.float32)  # between the prototype of the label and its opposite
    x = np.stack([np.cos(angles), np.sin(angles)], 1)
    # The other class is the label's opposite, so that its cosine rises as the label's falls.
    w = np.array([[1, 0], [-1, 0]], np.float32)
    row_loss = jax.jit(lambda row: loss(row[None], jnp.zeros(1, jnp.int32), w, scale=1.0, margin=0.5))
    losses = [float(row_loss(row)) for row in x]
    assert (np.diff(losses) > 0).all()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("shape", [(4, 2), (2, 4)])
def test_sharded_classes_give_the_same_and_are_never_gathered(loss, shape):
    if jax.device_count() < 8:
        pytest.skip("needs eight (simulated) devices")
    mesh = jax.make_mesh(shape, ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    rows, classes = (NamedSharding(mesh, PartitionSpec(axis)) for axis in ("data", "model"))

    def run(x, y, w, mask, scale):
        f = partial(loss, scale=scale, margin=0.3, mask=mask, classes=C - 1)
        return jax.value_and_grad(lambda x, w: f(x, y, w), (0, 1))(x, w)

    arguments = X, np.minimum(Y, C - 2), W, MASK, np.float32(30)
    sharded = jax.jit(run, in_shardings=(rows, rows, classes, rows, NamedSharding(mesh, PartitionSpec())))
    program = sharded.lower(*arguments).compile()
    assert program.output_shardings[1][1].is_equivalent_to(classes, 2)
    moved = re.findall(r"= (.*?) (all-gather|all-to-all|collective-permute|all-reduce)(?:-start)?\(", program.as_text())
    assert moved, "a sharded loss without any exchange would not be the global loss"
    sizes = {
        kind: [tuple(map(int, s.split(","))) for s in re.findall(r"f32\[([\d,]+)\]", what)] for what, kind in moved
    }
    assert set(sizes) == {"all-reduce"}
    for size in sizes["all-reduce"]:
        # Sums over classes [B/data]; gradients of the own rows [B/data, D] and own prototypes [C/model, D].
        assert size in {(B // shape[0],), (B // shape[0], D), (C // shape[1], D)}
    ours, plain = jax.device_get((program(*arguments), jax.jit(run)(*arguments)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, plain)


def test_half_precision_descriptors_are_summed_in_float32():
    got = cosface(X.astype(jnp.bfloat16), Y, W, scale=30.0, margin=0.2)
    assert got.dtype == jnp.float32
    expected = cosface(X.astype(jnp.bfloat16).astype(np.float32), Y, W, scale=30.0, margin=0.2)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_float64_stays_float64():
    with jax.enable_x64(True):
        x, w = (jax.ShapeDtypeStruct(array.shape, jnp.float64) for array in (X, W[:, None]))
        assert jax.eval_shape(partial(subcenter_arcface, scale=30.0, margin=0.2), x, Y, w).dtype == jnp.float64


def test_shapes_that_do_not_fit_are_errors():
    with pytest.raises(ValueError, match=r"descriptors \(16, 10\).*prototypes \(24, 9\)"):
        cosface(X, Y, W[:, :9], scale=1.0, margin=0.0)
    with pytest.raises(ValueError, match=r"labels \(15,\).*\[16\]"):
        arcface(X, Y[:15], W, scale=1.0, margin=0.0)


def test_a_class_is_as_near_as_the_nearest_of_its_centres():
    """By hand: cosines 0.6 and 0.8 with the classes' nearest centres; and one centre a class is plain ArcFace."""
    x, w = jnp.array([[3.0, 4.0]]), jnp.array([[[0.0, -1.0], [2.0, 0.0]], [[0.0, 7.0], [-1.0, 0.0]]])
    got = subcenter_arcface(x, jnp.array([0]), w, scale=2.0, margin=0.1)
    np.testing.assert_allclose(got, np.log(1 + np.exp(2 * (0.8 - np.cos(np.arccos(0.6) + 0.1)))), rtol=1e-6)
    options = {"scale": 30.0, "margin": 0.3, "mask": MASK, "classes": C - 2}
    labels = np.minimum(Y, C - 3)
    expected = jax.value_and_grad(lambda w: arcface(X, labels, w, **options))(W)
    near = np.stack([W, -W], 1)  # The opposite of a centre is the nearer one wherever the cosine is negative.
    value, gradient = jax.value_and_grad(lambda w: subcenter_arcface(X, labels, w, **options))(W[:, None])
    np.testing.assert_allclose(value, expected[0], rtol=1e-6)
    np.testing.assert_allclose(gradient[:, 0], expected[1], rtol=1e-5, atol=1e-6)
    assert abs(subcenter_arcface(X, labels, near, **options) - expected[0]) > 1
    with pytest.raises(ValueError, match=r"prototypes \(24, 10\).*\[C, S, D\]"):
        subcenter_arcface(X, labels, W, **options)


def test_a_rows_weight_multiplies_its_loss():
    weight = RNG.random(B).astype(np.float32)
    rows = [float(cosface(X, Y, W, scale=5.0, margin=0.1, mask=np.arange(B) == row)) for row in range(B)]
    got = cosface(X, Y, W, scale=5.0, margin=0.1, mask=MASK, weight=weight)
    np.testing.assert_allclose(got, np.mean((np.array(rows) * weight)[MASK]), rtol=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize("margin", [0.2, 0.9])
def test_the_easy_margin_is_asked_for_below_90_degrees_alone(margin):
    """Against PyTorch with the angle written out, as Divide & Classify trains."""
    import torch

    x, w, y = torch.tensor(X, requires_grad=True), torch.tensor(W, requires_grad=True), torch.tensor(Y).long()
    cosine = torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(w).T
    own = cosine[torch.arange(B), y]
    assert 0 < (own > 0).sum() < B
    turned = torch.where(own > 0, torch.cos(torch.arccos(own) + margin), own)
    logits = 30 * torch.where(torch.nn.functional.one_hot(y, C).bool(), turned[:, None], cosine)
    rows = torch.nn.functional.cross_entropy(logits, y, reduction="none")
    rows[torch.tensor(MASK)].mean().backward()
    run = partial(easy_arcface, scale=30.0, margin=margin, mask=MASK, classes=C)
    padded = np.concatenate([W, np.ones((8, D), np.float32)])
    value, (gx, gw) = jax.jit(jax.value_and_grad(lambda x, w: run(x, Y, w), (0, 1)))(X, padded)
    np.testing.assert_allclose(value, rows[torch.tensor(MASK)].mean().item(), rtol=1e-5)
    np.testing.assert_allclose(gx, x.grad.numpy(), atol=1e-5)
    np.testing.assert_allclose(gw[:C], w.grad.numpy(), atol=1e-5)
    assert not np.any(gw[C:])
