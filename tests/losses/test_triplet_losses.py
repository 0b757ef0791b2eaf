"""Losses of mined triplets: against torch, on numbers worked out by hand, and where descriptors are equal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvpr.losses.triplets import LOSSES, triplet_loss

RNG = np.random.default_rng(7)


def unit(*shape):
    x = RNG.normal(size=shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


BATCH = unit(5, 8), unit(5, 8), unit(5, 4, 8)
OPTIONS = {
    "triplet": {},
    "triplet, wide": {"margin": 0.7},
    "triplet, squared": {"squared": True, "margin": 0.3},
    "sare_independent": {},
    "sare_independent, sharp": {"temperature": 0.14},
    "sare_joint": {},
    "sare_joint, sharp": {"temperature": 0.14},
}


def with_torch(name, options, query, positive, negatives):
    """The same losses, one query and one negative at a time, by torch's own functions."""
    import torch

    values = []
    for q, p, ns in zip(query, positive, negatives, strict=True):
        if name == "triplet" and not options.get("squared"):
            margin = torch.nn.TripletMarginLoss(options.get("margin", 0.1), p=2, reduction="sum")
            values.append(margin(q.expand_as(ns), p.expand_as(ns), ns))
            continue
        near, far = ((q - p) ** 2).sum(), ((q - ns) ** 2).sum(1)
        if name == "triplet":
            values.append(sum(torch.clamp(near + options["margin"] - f, min=0) for f in far))
            continue
        t = options.get("temperature", 1)
        groups = [far] if name == "sare_joint" else [f[None] for f in far]
        values.append(sum(-torch.log_softmax(-torch.cat([near[None], g]) / t, 0)[0] for g in groups))
    return torch.stack(values)


@pytest.mark.torch
@pytest.mark.parametrize("case", OPTIONS)
def test_values_and_gradients_are_those_of_torch(case):
    name, options = case.split(",")[0], OPTIONS[case]
    import torch

    tensors = [torch.tensor(x, requires_grad=True) for x in BATCH]
    expected = with_torch(name, options, *tensors)
    weights = np.arange(1, 6, dtype=np.float32)
    (expected * torch.tensor(weights)).sum().backward()

    def loss(*batch):
        values = triplet_loss(*batch, loss=name, loss_options=options)
        return (values * weights).sum(), values

    (_, values), gradients = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(*map(jnp.asarray, BATCH))
    assert values.dtype == jnp.float32 and values.shape == (5,) and values.min() > 0
    np.testing.assert_allclose(values, expected.detach().numpy(), rtol=2e-5)
    for ours, theirs in zip(gradients, tensors, strict=True):
        np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=2e-4, atol=2e-5)


def test_triplets_by_hand():
    # Distances: 1 to the positive; 2, 1 and 5 to the negatives (the last: 3, 4).
    query = jnp.zeros((1, 2))
    positive = jnp.asarray([[1.0, 0.0]])
    negatives = jnp.asarray([[[0.0, 2.0], [-1.0, 0.0], [3.0, 4.0]]])
    plain = triplet_loss(query, positive, negatives, loss="triplet", loss_options={"margin": 1.5})
    squared = triplet_loss(query, positive, negatives, loss="triplet", loss_options={"margin": 4, "squared": True})
    np.testing.assert_allclose(plain, [0.5 + 1.5], rtol=1e-5)
    np.testing.assert_allclose(squared, [1 + 4], rtol=1e-6)


def test_sare_by_hand():
    # Squared distances: 0 to the positive, log 3 to both negatives, so shares of 1, 1/3 and 1/3.
    away = jnp.sqrt(jnp.log(jnp.asarray(3.0)))
    query, negatives = jnp.zeros((1, 1)), away * jnp.asarray([[[1.0], [-1.0]]])
    alone = triplet_loss(query, query, negatives, loss="sare_independent")
    joint = triplet_loss(query, query, negatives, loss="sare_joint")
    np.testing.assert_allclose(alone, [2 * np.log(4 / 3)], rtol=1e-6)
    np.testing.assert_allclose(joint, [np.log(5 / 3)], rtol=1e-6)


def test_twice_the_temperature_compares_dot_products():
    query, positive, negatives = BATCH
    near, far = (query * positive).sum(1) / 0.07, np.einsum("bd,bnd->bn", query, negatives) / 0.07
    expected = np.log1p(np.exp(far - near[:, None])).sum(1)
    loss = triplet_loss(*map(jnp.asarray, BATCH), loss="sare_independent", loss_options={"temperature": 0.14})
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_equal_descriptors_give_finite_numbers(name):
    query = jnp.asarray(BATCH[0])
    negatives = jnp.broadcast_to(query[:, None], (5, 4, 8))
    options = {"eps": 0.0} if name == "triplet" else {"temperature": 0.01}
    value, gradients = jax.value_and_grad(
        lambda *batch: triplet_loss(*batch, loss=name, loss_options=options).sum(), (0, 1, 2)
    )(query, query, negatives)
    by_hand = {"triplet": 4 * 0.1, "sare_independent": 4 * np.log(2), "sare_joint": np.log(5)}
    np.testing.assert_allclose(value, 5 * by_hand[name], rtol=1e-5)
    assert all(bool(jnp.isfinite(g).all()) for g in gradients)


def test_far_descriptors_do_not_overflow():
    query, positive, negatives = (jnp.asarray(x) * 100 for x in BATCH)
    for name in ("sare_independent", "sare_joint"):
        value, gradient = jax.value_and_grad(
            lambda q, name=name: triplet_loss(q, positive, negatives, loss=name).sum()
        )(query)
        assert bool(jnp.isfinite(value)) and bool(jnp.isfinite(gradient).all())


def test_mistakes_are_named():
    query, positive, negatives = map(jnp.asarray, BATCH)
    with pytest.raises(ValueError, match=r"loss.*'triple'.*triplet, sare_independent, sare_joint"):
        triplet_loss(query, positive, negatives, loss="triple")
    with pytest.raises(ValueError, match=r"'sare_joint'.*option.*\bmargin\b.*temperature"):
        triplet_loss(query, positive, negatives, loss="sare_joint", loss_options={"margin": 1})
    with pytest.raises(ValueError, match=r"\[B, D\].*\[B, D\].*\[B, n, D\]"):
        triplet_loss(query, positive, negatives[:, 0], loss="triplet")
