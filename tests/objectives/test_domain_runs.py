"""Domain adaptation from a recipe: who trains when, which objectives can be wrapped, and what cannot be adapted."""

import re
from itertools import pairwise

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict
from stopping import Stopped, stopping_at

from configs import common, cosplace_grl, pretrain
from data_pipelines.errors import DataError
from jaxvpr import builders, families
from jaxvpr.cli.overrides import override
from jaxvpr.errors import UserError
from jaxvpr.objectives.objective import Context
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.runs import model_file
from jaxvpr.training import logs, loop

# One residual block: what takes time here is compiling.
SHALLOW = ConfigDict({"widths": (8, 8, 8, 8), "cut": "layer1"})


@pytest.fixture
def config(tiny_config, photo_tree):
    """CosPlace in two groups on `photo_tree`, adapted to its test queries."""
    config = tiny_config.copy_and_resolve_references().unlock()
    config.model.backbone_options, config.model.aggregator_options.dim = SHALLOW, 8
    config.target_data = common.data("at_names", str(photo_tree), "test", role="query")
    config.domain.update(method="grl", hidden=(4,))
    config.epochs, config.steps_per_epoch, config.batch = 4, 3, 16
    config.optimizer = config.optimizer_extra = config.optimizer_shared = common.optimizer("adam", 1e-2)
    return config.lock()


def trained(config, folder, devices=1):
    with jax.numpy_dtype_promotion("standard"):
        mesh = make_mesh(devices=jax.devices()[:devices])
        recipe = families.recipe(config, mesh, [])._replace(validate=lambda variables, extra: {})
        outcome = loop.train(config, folder, recipe, mesh)
    return outcome, [record for record in logs.read(folder) if "loss" in record]


def watching(states, make_step):
    """`make_step` whose step leaves the shared part and the heads after each update in `states`."""

    def make(*args, **kwargs):
        step = make_step(*args, **kwargs)

        def run(state, batches, turn):
            state, metrics = step(state, batches, turn)
            states.append(jax.device_get((state.shared["domain"], state.extra["prototypes"])))
            return state, metrics

        return run

    return make


@pytest.mark.long
def test_a_run_stops_and_goes_on_and_devices_do_not_matter(config, tmp_path, monkeypatch):
    states, make_step = [], loop.make_step
    monkeypatch.setattr(loop, "make_step", watching(states, make_step))
    alone, log = trained(config, tmp_path / "alone")
    assert [record["reversal"] for record in log] == pytest.approx([np.tanh(5 * (step // 3) / 4) for step in range(12)])
    assert all(0 <= record["domain_accuracy"] <= 100 for record in log)
    # A group is idle in every second epoch, its prototypes rest; one classifier trains in all.
    for before, after in pairwise(domain["Dense_0"]["kernel"] for domain, _ in states):
        assert before.shape == (8, 4) and np.abs(after - before).max() > 1e-4
    prototypes = [heads for _, heads in states]
    np.testing.assert_array_equal(prototypes[0][1], prototypes[2][1])
    np.testing.assert_array_equal(prototypes[3][0], prototypes[5][0])
    assert not np.array_equal(prototypes[3][1], prototypes[5][1])

    monkeypatch.setattr(loop, "make_step", stopping_at(7, make_step))
    with config.unlocked():
        config.checkpoint.every_steps = 1
    with pytest.raises(Stopped):
        trained(config, tmp_path / "broken")
    monkeypatch.setattr(loop, "make_step", make_step)
    resumed, log_resumed = trained(config, tmp_path / "broken")
    jax.tree.map(np.testing.assert_array_equal, alone.best, resumed.best)
    assert log == log_resumed
    _, eight = trained(config, tmp_path / "eight", devices=8)
    for name in ("loss", "domain_loss", "grad_norm"):
        np.testing.assert_allclose([r[name] for r in eight], [r[name] for r in log], rtol=5e-3, err_msg=name)


def test_statistics_alone(config, tmp_path):
    """Nothing is trained, and the averages are those of the target's batches, one after the other."""
    mesh, file = make_mesh(devices=jax.devices()[:1]), tmp_path / "begun.safetensors"
    model_file.write_model(file, config, builders.initial_variables(config))
    with config.unlocked():
        config.domain.method, config.epochs, config.batch, config.init = "batchnorm", 1, 8, str(file)
    outcome, log = trained(config, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, outcome.best["params"], outcome.initial["params"])
    with jax.numpy_dtype_promotion("standard"):
        recipe, model = families.recipe(config, mesh, []), builders.model(config)
        plan, _ = recipe.objective.plan(0, np.random.default_rng([config.seed, 0]), {}, None)
        variables = outcome.initial
        for step in range(3):
            batch = recipe.sources["target"].read(plan.draws["target"].at(step), config.seed, step, "target")
            _, moved = model.apply(variables, batch["image"], train=True, mutable=["batch_stats"])
            variables = {**variables, **moved}
    got, wanted = (flatten_dict(tree["batch_stats"]) for tree in (outcome.best, variables))
    for path, value in wanted.items():
        np.testing.assert_allclose(got[path], value, rtol=1e-4, atol=1e-5)
        assert not np.array_equal(value, flatten_dict(outcome.initial["batch_stats"])[path])
    assert [record["loss"] for record in log] == [0, 0, 0]


OBJECTIVES = {
    "places": lambda: common.places(P=8, K=2, by="cell"),
    "pretraining": lambda: pretrain.classes(by="cell", min_images=1),
    "mined_triplets": lambda: common.mined_triplets(positive="10m", soft="20m", negatives=2, refresh=16, pool=20),
}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("on", ["descriptor", "map"])
def test_other_objectives(name, on, config):
    """Any objective can be adapted; traced, not run."""
    with config.unlocked():
        config.objective, config.domain.on, config.domain.source = OBJECTIVES[name](), on, 4
        config.steps_per_epoch = 1
    with jax.numpy_dtype_promotion("standard"):
        mesh = make_mesh(devices=jax.devices()[:1])
        goal = families.recipe(config, mesh, []).objective
        assert goal.streams == ("source", "target")
        variables, elements = builders.shapes(config), (16, 4) if name == "mined_triplets" else (16,)

        def loss(variables, batches):
            key = jax.random.key(0)
            heads = {**jax.tree.map(lambda x: x[0], goal.init(key, 8)[0]), **goal.shared(key)}
            embedded = {
                s: goal.embedding(s)(variables["params"], variables["batch_stats"], {}, batches[s], key)[0]
                for s in goal.streams
            }
            at = Context(jnp.int32(0), jnp.int32(0), jnp.float32(0), jnp.int32(0), key)
            return goal.loss(heads, goal.init(key, 8)[1], embedded, batches, at)[::2]

        batches = {
            stream: {
                "image": jax.ShapeDtypeStruct((*shape, 32, 32, 3), jnp.uint8),
                "label": jax.ShapeDtypeStruct(shape[:1], jnp.int32),
                "mask": jax.ShapeDtypeStruct(shape[:1], jnp.bool_),
            }
            for stream, shape in (("source", elements), ("target", (8,)))
        }
        if (name, on) == ("pretraining", "descriptor"):
            with pytest.raises(UserError, match=r"domain\.on='descriptor'.*domain\.on=map"):
                jax.eval_shape(loss, variables, batches)
            return
        value, metrics = jax.eval_shape(loss, variables, batches)
    assert value.shape == () and {"domain_accuracy", "domain_loss", "reversal"} <= set(metrics)


MISTAKES = {
    "domain.method=dann": r"domain\.method='dann'.*\['grl', 'mmd', 'linear_mmd', 'coral', 'ba",
    "domain.on=token": r"domain\.on='token'.*\('descriptor', 'map'\)",
    "domain.target=6": r"domain\.target=6\b.*\b8\b.*\b8 devices",
    "domain.method=coral;accumulate=8": r"domain\.method='coral'.*accumulate=8\b.*\b2\b",
    "epochs=1": r"epochs=1\b.*domain\.gamma=10\.0",
    "domain.method=batchnorm": r"domain\.method='batchnorm'.*init=FILE",
    "domain.weight=-1.0": r"domain.*weight=-1\.0.*negative",
    "domain.hidden=(0,)": r"domain.*hidden=\(0,\).*\b1\b",
    "domain.method=linear_mmd;domain.source=4": r"domain\.source=4\b.*domain\.target=8\b.*linear_mmd",
    "target_data.role=target": r"\b75 images.*role.*'target'",
}


@pytest.mark.parametrize("change", MISTAKES)
def test_mistakes_are_named(change, config):
    for one in change.split(";"):
        key, _, value = one.partition("=")
        override(config, key, value)
    mesh = make_mesh(devices=jax.devices()[:1] if "accumulate" in change else None)
    with pytest.raises((UserError, DataError), match=MISTAKES[change]):
        families.recipe(config, mesh, [])


@pytest.mark.parametrize(("key", "value"), [("domain.method", "dann"), ("target_data", ConfigDict({}))])
def test_an_adaptation_that_cannot_be_is_told_before_images_are_prepared(key, value, config, monkeypatch):
    monkeypatch.setitem(families.FAMILIES, config.objective.name, lambda config, sets: pytest.fail("prepared"))
    with config.unlocked():
        config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=key):
        families.recipe(config, make_mesh(), [])


def test_target_images_are_needed(config, tmp_path):
    with config.unlocked():
        config.target_data = ConfigDict({})
    with pytest.raises(UserError, match=r"domain\.method='grl'.*target_data\.reader=folder"):
        families.recipe(config, make_mesh(), [])
    (tmp_path / "photos").mkdir()
    override(config, "target_data.root", str(tmp_path / "photos"))
    assert config.target_data.reader == "folder"
    with pytest.raises(DataError, match=re.escape(str(tmp_path / "photos"))):
        families.recipe(config, make_mesh(), [])
    for number in range(3):
        cv2.imwrite(str(tmp_path / "photos" / f"{number}.jpg"), np.full((40, 50, 3), 60 * number, np.uint8))
    recipe = families.recipe(config, make_mesh(), [])
    plan, _ = recipe.objective.plan(0, np.random.default_rng(0), {}, None)
    batch = recipe.sources["target"].read(plan.draws["target"].at(0), 0, 0, "target")
    assert batch["image"].shape == (8, 32, 32, 3) and batch["mask"].all() and sorted(set(batch["row"])) == [0, 1, 2]


@pytest.mark.parametrize("frozen_bn", ["all", ""])
def test_statistics_that_cannot_move(frozen_bn, config):
    with config.unlocked():
        config.domain.method, config.init, config.target_data = "batchnorm", "somewhere", config.train_data
        config.model.aggregator, config.model.aggregator_options = "spoc", ConfigDict({})
        config.model.backbone_options = ConfigDict({**SHALLOW, "frozen_bn": frozen_bn})
        if not frozen_bn:
            config.model.backbone, config.model.backbone_options = "squeezenet", ConfigDict({})
    with pytest.raises(UserError, match=rf"model\.backbone='{config.model.backbone}'.*frozen_bn=update"):
        families.recipe(config, make_mesh(), [])


@pytest.mark.parametrize("preset", cosplace_grl.PRESETS)
def test_presets_fit_their_models(preset):
    config = cosplace_grl.get_config(preset)
    assert bool(config.target_data) == (config.domain.method == "grl") == (preset != "by_day")
    assert builders.shapes(config)["params"]
