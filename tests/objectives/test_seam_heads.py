"""What the seam must carry beyond today's families, each through the real loop: heads of any shape, new heads, other
devices, elements that more devices share, measures of a family."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from seam_runs import ROWS, SIZE, STEPS, apply, losses, params, random_rows, recipe, spread, train

from configs import common
from data_pipelines.draws import Draw
from data_pipelines.sources import ArraySource
from jaxvpr.errors import UserError
from jaxvpr.objectives.objective import Objective, Plan, embed_elements
from jaxvpr.objectives.prototypes import Prototypes, head_start, padded
from jaxvpr.training import logs, loop


def test_more_devices_than_queries_share_the_images_of_a_batch(images, tmp_path):
    """4 elements of 6 images on 8 devices: the same run as on one, and each device reads 3 images."""

    def plan(index, rng, memory, embed):
        return Plan({"source": Draw.of_steps(rng.integers(0, ROWS, (STEPS, 4, 6)), rng.integers(0, 9, (STEPS, 4)))}), {}

    def loss(extra, aux, outputs, batches, at):
        z, batch = outputs["source"], batches["source"]
        assert z.shape == (4, 6, 8) and batch["mask"].shape == batch["label"].shape == (4,)
        gap = jnp.square(z[:, :1] - z[:, 1:2]).sum(-1) - jnp.square(z[:, :1] - z[:, 2:]).sum(-1)
        each = jax.nn.softplus(5 * gap).sum(1) * batch["mask"]
        return each.mean(), aux, {"labels": batch["label"].sum() * 1.0}

    objective = Objective(("source",), STEPS, plan, loss, embed_elements(apply), images={"source": 6})
    made = recipe(objective, images, np.zeros((1, *SIZE, 3), np.uint8))
    one = train(tmp_path / "one", made, {"batch": 4}, devices=1)
    eight = train(tmp_path / "eight", made, {"batch": 4}, devices=8)
    np.testing.assert_allclose(losses(tmp_path / "one"), losses(tmp_path / "eight"), rtol=1e-5)
    np.testing.assert_allclose(params(one), params(eight), atol=1e-6)
    with pytest.raises(UserError, match=r"batch=3 elements of 6 images.*multiple of 8"):
        train(tmp_path / "refused", made, {"batch": 3}, devices=8)


def classes(counts, **options):
    """Classification by stacked prototypes and, beside them, a head of rank 3 that has no classes."""
    head = Prototypes(np.array(counts), "cosface", scale=10.0, margin=0.1)

    def init(key, dim):
        return {"prototypes": head.init(key, dim), "mixer": jnp.tile(jnp.eye(dim)[None], (len(counts), 1, 1))}, {}

    def plan(index, rng, memory, embed):
        slot = index % len(counts)
        rows = rng.integers(0, ROWS, (STEPS, 8))
        start = head_start(options.get("head_steps", 0), index, len(counts))
        return Plan({"source": Draw.of_steps(rows, rows % counts[slot])}, slot, start), memory

    def loss(extra, aux, outputs, batches, at):
        return head(extra["prototypes"], outputs["source"] @ extra["mixer"], batches["source"], at), aux, {}

    return Objective(("source",), STEPS, plan, loss, apply, init, slots=len(counts), by_class=("prototypes",))


def test_a_run_goes_on_with_other_devices_and_another_split_of_its_classes(numbers, tmp_path):
    """4 devices, then 8 with mesh.model=2 and split parameters, then 2 without, against a run that changes nothing."""
    made = recipe(classes((5, 7)), ArraySource(str(numbers)), np.zeros((1, 5), np.float32))
    averaged = {"ema.decay": 0.5, "optimizer.momentum": 0.5}
    alone = train(tmp_path / "alone", made, {"epochs": 4, **averaged}, devices=4)
    layouts, split = [], []
    make_step = loop.make_step

    def noted(objective, groups, mesh, shardings, **options):
        parts = shardings.params, shardings.ema, shardings.opt["model"]
        layouts.append({name: sharding.spec for name, sharding in shardings.extra.items()})
        split.append([sum(not sharding.is_fully_replicated for sharding in jax.tree.leaves(part)) for part in parts])
        return make_step(objective, groups, mesh, shardings, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "make_step", noted)
        train(tmp_path / "run", made, {"epochs": 2, **averaged}, devices=4)
        other = {"mesh.model": 2, "mesh.fsdp_mib": 1e-6}
        train(tmp_path / "run", made, {"epochs": 3, **averaged, **other}, devices=8, model=2)
        changed = train(tmp_path / "run", made, {"epochs": 4, **averaged}, devices=2)
    assert layouts[1] == {"prototypes": P(None, "model"), "mixer": P()}, "classes alone are split"
    assert split[0] == split[2] == [0, 0, 0] and split[1][0] == split[1][1] == split[1][2] > 0
    np.testing.assert_allclose(losses(tmp_path / "alone"), losses(tmp_path / "run"), rtol=2e-5)
    np.testing.assert_allclose(params(alone), params(changed), atol=1e-6)


def test_padding_depends_on_the_classes_alone():
    assert [padded(count) for count in (1, 8, 9, 4095, 4096, 4097)] == [8, 8, 16, 4096, 4096, 4224]
    assert [padded(count) for count in (2**20 - 1, 2**20, 10_000_000)] == [2**20, 2**20, 10_000_384]


def test_new_heads_train_alone_when_their_group_begins_for_the_first_time(numbers, tmp_path):
    """Two groups in turns: in the first 3 of 4 steps of each one's first plan the model stands still."""
    objective = classes((5, 7), head_steps=3)
    made = recipe(objective, ArraySource(str(numbers)), np.zeros((1, 5), np.float32))
    states = {}
    make_step = loop.make_step

    def watched(*args, **kwargs):
        step = make_step(*args, **kwargs)

        def run(state, batches, turn):
            states[int(turn.number)] = jax.device_get((state.params, state.extra))
            return step(state, batches, turn)

        return run

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "make_step", watched)
        train(tmp_path / "run", made, {"epochs": 3})

    def moved(part, step):
        pairs = zip(jax.tree.leaves(states[step][part]), jax.tree.leaves(states[step + 1][part]), strict=True)
        return any(np.any(a != b) for a, b in pairs)

    assert [moved(0, step) for step in range(11)] == [False] * 3 + [True] + [False] * 3 + [True] * 4
    assert all(moved(1, step) for step in range(11))


@pytest.mark.parametrize(("better", "best"), [("min", 8), ("max", 4)])
def test_any_measure_of_a_family_decides_and_says_what_is_better(better, best, numbers, tmp_path):
    values = [{"val/metres": value} for value in (30.0, 12.0, 20.0)]
    objective = Objective(("source",), STEPS, random_rows((8,)), spread, apply)
    made = recipe(
        objective, ArraySource(str(numbers)), np.zeros((1, 5), np.float32), measured=values,
        measures={"val/metres": better},
    )  # fmt: skip
    keys = {"epochs": 3, "best.measure": "metres", "val_data": {"val": common.data("at_names", "nowhere")},
            "plateau.factor": 0.5, "plateau.patience": 0}  # fmt: skip
    assert train(tmp_path / "run", made, keys).best_step == best
    rates = [record["learning_rate"] for record in logs.read(tmp_path / "run") if "loss" in record]
    assert rates[STEPS * 2] == pytest.approx(0.01 if better == "min" else 0.005)
