"""Margin losses over a prototype of each place: value and gradient, miners' weights, and classes over devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.place_table import place_table
from data_pipelines.places import Paths, Places
from jaxvpr.errors import UserError
from jaxvpr.objectives.objective import Context
from jaxvpr.objectives.place_heads import Choice, prototype_head
from jaxvpr.objectives.place_plans import Cliques
from jaxvpr.objectives.places import places_objective
from jaxvpr.objectives.prototypes import MARGIN_LOSSES
from jaxvpr.parallel.mesh import batch_sharding, class_shardings, make_mesh

RNG = np.random.default_rng(5)
X = RNG.normal(size=(16, 6)).astype(np.float32)
LABELS = np.repeat(np.arange(5), (2, 3, 3, 4, 4)).astype(np.int32)
MASK = np.arange(16) != 6
CHOICES = {
    "cosface": Choice("cosface", loss_options={"scale": 20.0}),
    "arcface": Choice("arcface", "multi_similarity"),
    "easy_arcface": Choice("easy_arcface", "multi_similarity", loss_options={"scale": 20.0}),
    "subcenter_arcface": Choice("subcenter_arcface", "batch_hard", loss_options={"margin": 0.3, "sub_centers": 2}),
}


def table(K=3, count=5):
    paths = Paths.of([f"{i}.jpg" for i in range(count * K)])
    return place_table(Places.create("p", paths, place=np.arange(count * K) // K, east=0.0, north=0.0), K=K)


def batch_of(labels, mask):
    return {"source": {"label": jnp.asarray(labels), "mask": jnp.asarray(mask)}}


def run(choice, extra, x, labels, mask):
    def value(extra, x):
        slot = jax.tree.map(lambda leaf: leaf[0], extra)
        return HEADS[choice.loss].loss(slot, {}, {"source": x}, batch_of(labels, mask), None)[0]

    return jax.value_and_grad(value, (0, 1))(extra, x)


HEADS = {name: prototype_head(choice, 5) for name, choice in CHOICES.items()}


def literal(choice, x, w):
    """Loss of descriptors and prototypes [5, S, D] in plain NumPy, float64, angle by angle."""
    options = {**MARGIN_LOSSES[choice.loss][1], **(choice.loss_options or {})}
    there = np.flatnonzero(MASK)
    x = x / np.linalg.norm(x, axis=1)[:, None]
    w = w / np.linalg.norm(w, axis=2)[..., None]
    count, losses = np.zeros(16), np.zeros(16)
    for i in there:
        near = [j for j in there if LABELS[i] == LABELS[j] and i != j]
        far = [j for j in there if LABELS[i] != LABELS[j]]
        if choice.miner == "batch_hard":
            pairs = [min(near, key=lambda j: x[i] @ x[j]), max(far, key=lambda j: x[i] @ x[j])]
            count[i] += 1
            count[pairs] += 1
        elif choice.miner == "multi_similarity":
            near, far = (
                [j for j in near if any(x[i] @ x[j] - 0.1 < x[i] @ x[k] for k in far)],
                [k for k in far if any(x[i] @ x[k] + 0.1 > x[i] @ x[j] for j in near)],
            )
            count[i] += len(near) + len(far)
            count[near] += 1
            count[far] += 1
        cosine = (w @ x[i]).max(1)
        own = cosine[LABELS[i]]
        turned = own - options["margin"] if choice.loss == "cosface" else np.cos(np.arccos(own) + options["margin"])
        turned = own if choice.loss == "easy_arcface" and own <= 0 else turned
        logits = options["scale"] * np.where(np.arange(5) == LABELS[i], turned, cosine)
        losses[i] = np.log(np.exp(logits).sum()) - logits[LABELS[i]]
    weight = count / count.max() if choice.miner != "none" else np.ones(16)
    return (losses * weight)[there].mean()


@pytest.mark.parametrize("name", CHOICES)
def test_value_and_gradient_are_those_of_literal_loops(name):
    """On a padded batch; along random directions of the descriptors and of the prototypes, by central differences."""
    extra, aux = HEADS[name].init(jax.random.key(0), 6)
    w = np.asarray(extra["prototypes"], np.float64)[0]
    assert aux == {} and w.shape == ((8, 2, 6) if name == "subcenter_arcface" else (8, 6))
    centres = w[:5].reshape(5, -1, 6)
    choice, x = CHOICES[name], X.astype(np.float64)
    value, (gradient, of_x) = jax.jit(partial(run, choice))(extra, X, LABELS, MASK)
    assert np.isclose(value, literal(choice, x, centres), rtol=1e-5)
    assert not np.any(gradient["prototypes"][0, 5:]) and not np.any(of_x[~MASK])
    of_w = np.asarray(gradient["prototypes"])[0, :5].reshape(centres.shape)
    for seed in range(6):
        dx, dw = (np.random.default_rng([seed, k]).normal(size=v.shape) for k, v in enumerate((x, centres)))
        for step_x, step_w, slope in ((dx, 0 * dw, (of_x * dx).sum()), (0 * dx, dw, (of_w * dw).sum())):
            # So small that no pair is mined otherwise.
            ahead, behind = (literal(choice, x + s * step_x, centres + s * step_w) for s in (1e-7, -1e-7))
            np.testing.assert_allclose(slope, (ahead - behind) / 2e-7, rtol=2e-4, atol=2e-5)


@pytest.mark.torch
def test_it_is_what_the_library_gives():
    pytest.importorskip("pytorch_metric_learning")
    import torch
    from pytorch_metric_learning import losses, miners

    libraries = {
        "cosface": losses.CosFaceLoss(num_classes=5, embedding_size=6, scale=20),
        "arcface": losses.ArcFaceLoss(num_classes=5, embedding_size=6),
        "subcenter_arcface": losses.SubCenterArcFaceLoss(
            num_classes=5, embedding_size=6, margin=np.degrees(0.3), sub_centers=2
        ),
    }
    mined = {"cosface": None, "arcface": miners.MultiSimilarityMiner(), "subcenter_arcface": miners.BatchHardMiner()}
    for name, library in libraries.items():
        x, labels = torch.tensor(X, requires_grad=True), torch.tensor(LABELS).long()
        found = mined[name](x, labels) if mined[name] else None
        value = library(x, labels, found)
        value.backward()
        shape = (1, 5, 2, 6) if name == "subcenter_arcface" else (1, 5, 6)
        extra = {"prototypes": library.W.detach().numpy().T.reshape(shape)}
        got, (gradient, of_x) = run(CHOICES[name], extra, X, LABELS, np.ones(16, bool))
        np.testing.assert_allclose(got, value.item(), rtol=1e-5)
        np.testing.assert_allclose(of_x, x.grad.numpy(), rtol=1e-5, atol=1e-5)
        of_w = library.W.grad.numpy().T.reshape(shape)
        np.testing.assert_allclose(gradient["prototypes"], of_w, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CHOICES)
def test_prototypes_split_over_devices_give_the_same(name):
    if jax.device_count() < 8:
        pytest.skip("needs eight (simulated) devices")
    mesh = make_mesh(4)
    extra, _ = HEADS[name].init(jax.random.key(1), 6)
    shardings = class_shardings(mesh, extra, HEADS[name].by_class)
    assert shardings["prototypes"].shard_shape(extra["prototypes"].shape)[:2] == (1, 2)
    rows = batch_sharding(mesh)
    split = jax.jit(
        partial(run, CHOICES[name]),
        in_shardings=(shardings, rows, rows, rows),
        out_shardings=(None, (shardings, rows)),
    )
    arguments = extra, X, LABELS, MASK
    alone = jax.jit(partial(run, CHOICES[name]))(*arguments)
    for one, other in zip(jax.tree.leaves(split(*arguments)), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_the_margin_grows_over_its_share_of_the_run():
    full, growing = (
        prototype_head(Choice("cosface", loss_options={"margin_warmup": warmup, "margin": margin}), 5)
        for warmup, margin in ((0.0, 0.1), (0.5, 0.4))
    )
    extra, _ = full.init(jax.random.key(2), 6)
    slot = jax.tree.map(lambda leaf: leaf[0], extra)
    values = []
    for progress in (0.125, 0.5, 0.9):
        at = Context(jnp.int32(0), jnp.int32(0), jnp.float32(progress), jnp.int32(0), jax.random.key(0))
        values.append(growing.loss(slot, {}, {"source": X}, batch_of(LABELS, MASK), at)[0])
    expected, _, _ = full.loss(slot, {}, {"source": X}, batch_of(LABELS, MASK), at)
    np.testing.assert_allclose(values[0], expected, rtol=1e-6)
    assert values[1] == values[2] > 1.2 * expected


def test_one_image_a_place_is_enough_without_a_miner():
    single = table(K=1)
    assert places_objective(single, Choice("arcface"), P=2, steps=1).slots == 1
    with pytest.raises(UserError, match=r"objective\.K=1"):
        places_objective(single, Choice("arcface", "batch_hard"), P=2, steps=1)


@pytest.mark.parametrize(
    ("choice", "parts", "message"),
    [
        (Choice("arcface"), {"memory": 12}, r"objective\.memory=12\b.*objective\.loss='arcface'"),
        (
            Choice("cosface"),
            {"cliques": Cliques(table(), 1)},
            r"objective\.loss='cosface'.*objective\.cliques\.share=0\b",
        ),
        (
            Choice("supcon"),
            {"cliques": Cliques(table(), 1), "memory": 12},
            r"objective\.memory=12\b.*objective\.cliques\.share=0\b",
        ),
        (
            Choice("proxy"),
            {},
            r"loss.*'proxy'.*contrastive, .*listwise_ap, cosface, arcface, easy_arcface, subcenter",
        ),
        (Choice("subcenter_arcface", loss_options={"sub_centers": 0}), {}, r"sub_centers=0\b.*\b1\b"),
        (
            Choice("arcface", loss_options={"margins": 1}),
            {},
            r"'arcface'.*option.*\bmargins\b.*scale, margin",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(choice, parts, message):
    with pytest.raises(UserError, match=message):
        places_objective(table(), choice, P=4, steps=1, **parts)
