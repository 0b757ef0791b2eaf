"""Domain adaptation: who pulls which way, and what is drawn."""

import pickle

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.draws import Draw
from jaxvpr.losses import domain as losses
from jaxvpr.objectives.domain import Adaptation, adapted
from jaxvpr.objectives.objective import Context, Objective, Plan

STEPS, EPOCHS = 3, 4


class Layer(nn.Module):
    """One linear layer, which stands for a model: its call is what is seen."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(4, use_bias=False)(x)


@pytest.fixture
def linear(monkeypatch):
    """An objective on vectors whose loss is the mean of the first feature, and its model."""
    monkeypatch.setattr("jaxvpr.models.intermediates.PlaceModel", Layer)
    model = Layer()

    def embed(params, stats, aux, batch, key):
        return model.apply({"params": params}, batch["image"], train=True), stats

    def loss(extra, aux, outputs, batches, at):
        return outputs["source"][:, 0].mean(), aux, {"own": outputs["source"].sum()}

    def plan(index, rng, memory, embed):
        rows = rng.integers(0, 9, (STEPS, 6))
        return Plan({"source": Draw.of_steps(rows)}, slot=2, heads_only=1), {"own": np.asarray(index)}

    return Objective(("source",), STEPS, plan, loss, embed, slots=3), model


def parts(seed=0):
    """Parameters of the layer, a classifier with one hidden layer, and batches of both domains."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    params = {"Dense_0": {"kernel": draw(5, 4)}}
    heads = {"Dense_0": {"kernel": draw(4, 3), "bias": draw(3)}, "Dense_1": {"kernel": draw(3, 1), "bias": draw(1)}}
    batches = {
        "source": {"image": draw(6, 5), "mask": jnp.array([1, 1, 1, 0, 1, 1], bool)},
        "target": {"image": draw(2, 5) + 1, "mask": jnp.ones(2, bool)},
    }
    return params, heads, batches


def total(objective, params, heads, batches, epoch):
    """The scalar and the metrics of an objective, stream by stream as the step has it."""
    outputs = {s: objective.embedding(s)(params, {}, {}, batches[s], jax.random.key(0))[0] for s in objective.streams}
    at = Context(jnp.int32(0), jnp.int32(epoch), jnp.float32(0), jnp.int32(0), jax.random.key(0))
    value, _, metrics = objective.loss({"domain": heads}, {}, outputs, batches, at)
    return value, metrics


def cross_entropy(params, heads, batches):
    """The domains' cross entropy, image by image, of source rows 0 and 3 (which does not count) and both targets."""
    kernel = params["Dense_0"]["kernel"]

    def probability(x):
        hidden = jnp.maximum(x @ kernel @ heads["Dense_0"]["kernel"] + heads["Dense_0"]["bias"], 0)
        return 1 / (1 + jnp.exp(-(hidden @ heads["Dense_1"]["kernel"] + heads["Dense_1"]["bias"])[0]))

    source, target = batches["source"]["image"], batches["target"]["image"]
    of_target = -(jnp.log(probability(target[0])) + jnp.log(probability(target[1]))) / 2
    return (-jnp.log(1 - probability(source[0])) + of_target) / 2


@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_the_model_climbs_what_the_classifier_descends(linear, epoch):
    own, model = linear
    goal = adapted(
        own, model, Adaptation(weight=3.0, gamma=7.0, hidden=(3,), source=2, target=2), images=7, width=4, epochs=EPOCHS
    )
    params, heads, batches = parts()
    value, metrics = total(goal, params, heads, batches, epoch)
    entropy = cross_entropy(params, heads, batches)
    mine = float((batches["source"]["image"] @ params["Dense_0"]["kernel"])[:, 0].mean())
    assert float(value) == pytest.approx(mine + 3 * float(entropy), rel=1e-5)
    coefficient = 2 / (1 + np.exp(-7 * epoch / EPOCHS)) - 1
    assert float(metrics["reversal"]) == pytest.approx(coefficient, abs=1e-6)
    assert float(metrics["domain_loss"]) == pytest.approx(float(entropy), rel=1e-5)

    of_model, of_heads = jax.grad(lambda p, h: total(goal, p, h, batches, epoch)[0], argnums=(0, 1))(params, heads)
    down, down_heads = jax.grad(cross_entropy, argnums=(0, 1))(params, heads, batches)
    alone = jax.grad(lambda p: (batches["source"]["image"] @ p["Dense_0"]["kernel"])[:, 0].mean())(params)
    jax.tree.map(
        lambda got, a, d: np.testing.assert_allclose(got, a - 3 * coefficient * d, atol=1e-5), of_model, alone, down
    )
    jax.tree.map(lambda got, d: np.testing.assert_allclose(got, 3 * d, atol=1e-5), of_heads, down_heads)


def test_accuracy_is_of_both_domains(linear):
    own, model = linear
    goal = adapted(own, model, Adaptation(source=3, target=2), images=7, width=4, epochs=1)
    params, _, batches = parts()
    batches["source"]["mask"] = jnp.ones(6, bool)
    heads = {"Dense_0": {"kernel": jnp.array([[1.0], [0], [0], [0]]), "bias": jnp.zeros(1)}}
    first = lambda s: np.asarray(batches[s]["image"] @ params["Dense_0"]["kernel"])[:, 0]  # noqa: E731
    wanted = 50 * (np.mean(first("source")[[0, 2, 4]] < 0) + np.mean(first("target") > 0))
    assert float(total(goal, params, heads, batches, 0)[1]["domain_accuracy"]) == pytest.approx(wanted)


@pytest.mark.parametrize("method", ["mmd", "linear_mmd", "coral"])
def test_distances_stand_in_for_the_classifier(linear, method):
    own, model = linear
    goal = adapted(
        own, model, Adaptation(method=method, weight=2.0, gamma=9, source=2, target=2), images=7, width=4, epochs=EPOCHS
    )
    params, _, batches = parts()
    z = {s: batches[s]["image"] @ params["Dense_0"]["kernel"] for s in batches}
    masks = batches["source"]["mask"][np.array([0, 3])], batches["target"]["mask"]
    apart = getattr(losses, method)(z["source"][np.array([0, 3])], z["target"], *masks)
    value, metrics = total(goal, params, {}, batches, 3)
    assert float(value) == pytest.approx(float(z["source"][:, 0].mean() + 2 * np.tanh(27 / 8) * apart), rel=1e-5)
    assert float(metrics["domain_loss"]) == pytest.approx(float(apart), rel=1e-5)
    assert goal.shared(jax.random.key(0)) == {}
    assert float(total(goal, params, {}, batches, 0)[0]) == pytest.approx(float(z["source"][:, 0].mean()), rel=1e-5)


def test_its_own_batches_stay_and_targets_come_in_passes(linear):
    own, model = linear
    goal = adapted(own, model, Adaptation(source=2, target=2), images=7, width=4, epochs=1)
    memory, drawn, before = {}, [], {}
    for index in range(7):
        plan, memory = goal.plan(index, np.random.default_rng([1, index]), memory, None)
        alone, before = own.plan(index, np.random.default_rng([1, index]), before, None)
        assert (plan.slot, plan.heads_only) == (alone.slot, alone.heads_only) == (2, 1)
        assert memory["own"] == index and pickle.loads(pickle.dumps(plan)).draws.keys() == {"source", "target"}
        jax.tree.map(np.testing.assert_array_equal, plan.draws["source"], alone.draws["source"])
        for step in range(STEPS):
            drawn.extend(plan.draws["target"].at(step).rows)
    np.testing.assert_array_equal(np.sort(np.reshape(drawn, (6, 7)), 1), np.tile(np.arange(7), (6, 1)))
