"""Cached gradients are the gradients: of every loss, with heads, memories, padding, several streams and devices."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from data_pipelines.draws import Draw
from jaxvpr import models
from jaxvpr.errors import UserError
from jaxvpr.losses.measures import References
from jaxvpr.losses.metric import LOSSES, place_loss
from jaxvpr.losses.miners import MINERS
from jaxvpr.objectives.objective import Objective, Plan, embed_images
from jaxvpr.objectives.place_heads import empty_ring, pushed
from jaxvpr.parallel.mesh import make_mesh, to_global
from jaxvpr.training import optimisers
from jaxvpr.training.grad_cache import cached_gradients, dealt, gathered, refuse_batch_statistics
from jaxvpr.training.optimisers import split_frozen
from jaxvpr.training.state import TrainState, state_shardings
from jaxvpr.training.step import Turn, make_step

ROWS, DIM = 16, 6
LABEL = np.repeat(np.arange(ROWS // 4, dtype=np.int32), 4)
MASK = np.arange(ROWS) % 7 != 3
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(ROWS, 3, 3, 1))


# Optimising these programs would take longer than running them.
quick = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def far(found, wanted):
    """The distance of two trees as a share of the length of the second."""
    difference = jax.tree.map(lambda a, b: np.asarray(a, np.float64) - np.asarray(b, np.float64), found, wanted)
    return float(optax.tree.norm(difference)) / float(optax.tree.norm(jax.tree.map(np.asarray, wanted)))


def test_parts_are_taken_evenly_from_every_devices_rows_and_put_back():
    parts = dealt({"row": np.arange(8)}, 2)
    assert parts["row"].tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]], "two devices hold rows 0-3 and 4-7"
    assert gathered(parts)["row"].tolist() == list(range(8))
    assert gathered(dealt(IMAGES, 4)) == pytest.approx(IMAGES)


def test_every_loss_and_miner_with_padded_rows_and_a_memory():
    """In float64, every loss with one miner and every miner with one loss: against JAX's own gradient of the whole."""

    def embed(weights, part):
        return jnp.tanh(part.reshape(len(part), -1) @ weights[0]) @ weights[1]

    def value(loss, miner, past, z):
        past = References(jnp.concatenate([jax.lax.stop_gradient(z), past]), np.tile(LABEL, 2), None, np.arange(ROWS))
        return place_loss(z, LABEL, MASK, loss=loss, miner=miner, references=past)

    def both(score, weights, images):
        cached, said = cached_gradients(embed, lambda _, z: (score(z), score(z)), weights, (), dealt(images, 4))
        whole, plain = jax.value_and_grad(lambda w: score(embed(w, images)))(weights)
        return (cached[0], said), (plain, whole)

    with jax.enable_x64(True):
        weights = [jnp.asarray(RNG.normal(size=shape)) for shape in ((9, 8), (8, DIM))]
        images, past = jnp.asarray(IMAGES), RNG.normal(size=(ROWS, DIM))
        pairs = [(loss, "pair_margin") for loss in LOSSES] + [("multi_similarity", miner) for miner in MINERS]
        found = quick(lambda *given: [both(partial(value, *pair, past), *given) for pair in pairs])(weights, images)
        for pair, (cached, plain) in zip(pairs, found, strict=True):
            assert np.any(plain[0][0]), pair
            assert far(cached, plain) < 1e-10, pair


class Tiny(nn.Module):
    """A transformer of one block, with noise in training, that also puts out its tokens."""

    width: int = 8
    drop: float = 0.0
    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, images, train=False):
        dense = partial(nn.Dense, dtype=self.dtype, param_dtype=self.dtype)
        norm = partial(nn.LayerNorm, dtype=self.dtype, param_dtype=self.dtype)
        x = dense(self.width, name="patches")(images.astype(self.dtype).reshape(len(images), -1, images.shape[-1]))
        y = norm()(x)
        shares = nn.softmax(jnp.einsum("bqc,bkc->bqk", dense(self.width)(y), y))
        x = x + nn.Dropout(self.drop, deterministic=not train)(shares @ y)
        x = x + dense(self.width)(jnp.tanh(dense(4 * self.width)(norm()(x))))
        return dense(DIM)(jnp.tanh(x.mean(1)) * 3), x


def objective(model, streams=("source", "target")):
    """Compares images with each other, with a memory and with prototypes, and one stream with the other."""

    def init(key, dim):
        ring = {name: x.astype(model.dtype) if x.dtype == jnp.float32 else x for name, x in empty_ring(24, DIM).items()}
        return {"prototypes": np.random.default_rng(2).normal(size=(2, 4, DIM)).astype(model.dtype)}, ring

    def embed(params, stats, aux, batch, key):
        descriptor, tokens = model.apply({"params": params}, batch["image"], train=True, rngs={"dropout": key})
        return {"descriptor": descriptor, "tokens": tokens}, stats

    def loss(extra, aux, outputs, batches, at):
        z, batch = outputs["source"]["descriptor"], batches["source"]
        ring = pushed(aux, z, batch["label"], batch["mask"])
        past = References(ring["descriptor"], ring["label"], ring["mask"], jnp.arange(len(z)))
        value = place_loss(z, batch["label"], batch["mask"], loss="multi_similarity", references=past)
        by_label = jax.nn.log_softmax(z @ extra["prototypes"].T)[jnp.arange(len(z)), batch["label"]]
        value = value - jnp.sum(jnp.where(batch["mask"], by_label, 0)) / jnp.sum(batch["mask"])
        nearer = jnp.square(outputs[streams[-1]]["tokens"].mean(1) - outputs["source"]["tokens"].mean(1)[::-1])
        return value + jnp.mean(nearer), ring, {"first": z[0, 0]}

    draws = {stream: Draw.of_steps([np.arange(ROWS)] * 4) for stream in streams}
    return Objective(streams, 4, lambda *_: (Plan(draws), {}), loss, embed, init, slots=2, by_class=("prototypes",))


def setup(goal, model, *, parts, mesh=None, images=IMAGES, frozen=()):
    """(state, compiled step, batches): plain descent at a rate of 1, so that a step is the gradient."""
    mesh = mesh or make_mesh(devices=jax.devices()[:1])
    tuner = optimisers.build("sgd", rate=1.0, total=9, momentum=0.0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images[:1])["params"]
    drawn = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: drawn.normal(0, 0.5, leaf.shape).astype(leaf.dtype), shapes)
    extra, aux = goal.init(jax.random.key(1), DIM)
    state = TrainState(
        step=np.int32(0),
        params=params,
        stats={},
        extra=extra,
        shared={},
        aux=aux,
        opt={
            "model": tuner.transform.init(split_frozen(params, frozen)[0]),
            "heads": jax.vmap(tuner.transform.init, axis_size=2)(extra),
            "shared": tuner.transform.init({}),
        },
        ema={},
        rate_scale=np.float32(1),
        key=jax.random.key(2),
    )
    shardings = state_shardings(mesh, state, goal.by_class)
    tuners = dict.fromkeys(optimisers.GROUPS, tuner)
    step = make_step(goal, tuners, mesh, shardings, total=9, frozen=frozen, grad_cache=parts)
    rows = len(images) // ROWS
    batches = {
        stream: to_global(
            mesh,
            {"image": images * (number + 1), "label": np.repeat(LABEL, rows), "mask": np.repeat(MASK, rows)},
        )
        for number, stream in enumerate(goal.streams)
    }
    state = jax.device_put(state, shardings)
    compiled = step.lower(state, batches, Turn(np.int32(0), np.int32(1))).compile({"xla_backend_optimization_level": 0})
    return state, compiled, batches


def moved(state, step, batches):
    """How a step moves the trained arrays, the memory it leaves, and what it measures."""
    before = jax.device_get((state.params, state.extra))
    state, metrics = step(state, batches, Turn(np.int32(0), np.int32(1)))
    assert bool(metrics.pop("ok")) and bool(metrics.pop("counts"))
    after = jax.device_get((state.params, state.extra))
    return jax.tree.map(np.subtract, after, before), jax.device_get(state.aux), jax.device_get(metrics)


def test_a_step_moves_everything_as_without():
    """Two streams, heads, a memory, padded rows and frozen parameters, on one device and on eight."""

    def run(dtype, parts, mesh=None):
        model = Tiny(dtype=dtype)
        with jax.enable_x64(dtype is np.float64):
            return moved(
                *setup(
                    objective(model),
                    model,
                    parts=parts,
                    mesh=mesh,
                    images=IMAGES.astype(dtype),
                    frozen=("patches",),
                )
            )

    plain = run(np.float64, 1)
    weights, heads = plain[0]
    assert not np.any(weights["patches"]["kernel"]) and np.any(weights["Dense_0"]["kernel"])
    assert [np.any(head) for head in heads["prototypes"]] == [False, True]
    assert far(run(np.float64, 4), plain) < 1e-10
    assert far(run(np.float64, 2, make_mesh(model=2)), plain) < 1e-10
    assert far(run(np.float32, 4), plain) < 1e-4


def test_both_passes_see_the_same_noise():
    """The gradient is that of one function, in which the noise of each micro-batch is drawn once."""
    model, parts = Tiny(drop=0.5), 4
    goal = objective(model, streams=("source",))
    state, step, batches = setup(goal, model, parts=parts, images=IMAGES.astype(np.float32))
    (*start, aux), key = jax.device_get((state.params, state.extra, state.aux)), jax.random.fold_in(state.key, 0)

    @partial(quick, static_argnums=2)
    def wanted(params, extra, drop):
        def loss(params, head):
            outputs = []
            for index in range(parts):
                noise = {"dropout": jax.random.fold_in(jax.random.fold_in(key, index), 0)}
                part = batches["source"]["image"][index::parts]
                outputs.append(Tiny(drop=drop).apply({"params": params}, part, train=True, rngs=noise))
            z, tokens = (jnp.stack(each, 1).reshape(ROWS, *each[0].shape[1:]) for each in zip(*outputs, strict=True))
            return goal.loss({"prototypes": head}, aux, {"source": {"descriptor": z, "tokens": tokens}}, batches, None)[
                0
            ]

        return jax.grad(loss, argnums=(0, 1))(params, extra["prototypes"][1])

    found, _, _ = moved(state, step, batches)
    found = jax.tree.map(np.negative, (found[0], found[1]["prototypes"][1]))
    assert far(found, wanted(*start, 0.5)) < 1e-5
    assert far(found, wanted(*start, 0.0)) > 0.1


def test_it_takes_the_memory_of_a_micro_batch():
    model = Tiny(width=32)
    goal, images = objective(model, streams=("source",)), np.zeros((64, 8, 8, 1), np.float32)
    plain, cached = (
        setup(goal, model, parts=parts, images=images)[1].memory_analysis().temp_size_in_bytes for parts in (1, 8)
    )
    assert cached < plain / 3


@pytest.mark.parametrize(
    ("backbone", "options", "layer"),
    [
        ("resnet_small", {}, "backbone/bn1"),
        ("resnet_small", {"frozen_until": "layer3", "frozen_bn": "fixed", "remat": True}, "backbone/layer4_0/bn1"),
        ("resnet_small", {"frozen_bn": "all", "remat": True}, None),
        ("efficientnet_b0", {"frozen_bn": "all", "cut": 2, "depth": 0.5, "width": 0.5}, None),
        ("cct14_224", {"depth": 1}, None),
    ],
)
def test_statistics_of_a_batch_are_refused(backbone, options, layer):
    model = models.join(backbone=backbone, aggregator="gem", backbone_options=options)
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.uint8)
    key = jax.eval_shape(lambda: jax.random.key(0))
    variables = jax.eval_shape(model.init, key, images)

    def update(stats, inputs):
        params, images, key = inputs
        return embed_images(model)(params, stats, {}, {"image": images}, key)[1]

    look = partial(
        refuse_batch_statistics, update, variables.get("batch_stats", {}), (variables["params"], images, key)
    )
    if layer is None:
        look()
        return
    with pytest.raises(UserError, match=rf"grad_cache.*{layer}.*frozen_bn=all") as error:
        look()
    assert "grad_cache=1" in str(error.value)
