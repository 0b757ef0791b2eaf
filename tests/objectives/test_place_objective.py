"""Metric learning on places: it learns through the real door, and compares with what it should."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from stopping import Stopped, stopping_at

from configs import common
from data_pipelines.errors import DataError
from data_pipelines.place_table import place_table
from data_pipelines.places import Paths, Places
from jaxvpr import families
from jaxvpr.builders.training_images import training_sets
from jaxvpr.cli.overrides import override
from jaxvpr.errors import UserError
from jaxvpr.objectives.place_heads import Choice, empty_ring, pushed
from jaxvpr.objectives.places import places_objective
from jaxvpr.training import logs, loop
from jaxvpr.verbs import train


@pytest.fixture
def config(tiny_config):
    """Places of 3 images in cells of 30 m, 8 of 25 in a batch."""
    config = tiny_config.copy_and_resolve_references().unlock()
    config.objective = common.places(P=8, K=3, by="cell")
    config.objective.partition.update(M=30.0, alpha=360.0)
    config.batch, config.steps_per_epoch = 24, 8
    return config


def losses_of(config, folder):
    with jax.numpy_dtype_promotion("standard"):
        train.run(config.copy_and_resolve_references().lock(), folder)
    return [record["loss"] for record in logs.read(folder) if "loss" in record]


def test_it_learns(config, tmp_path):
    losses = losses_of(config, tmp_path / "a")
    assert len(losses) == 16 and sum(losses[-4:]) < sum(losses[:4])


def test_places_by_nearness_reach_the_plan_and_are_said(config):
    """Images of `tiny_config` lie in cells of 30 m; within 20 m of each other they are of one."""
    config.objective.update(P=6, min_distance=25.0)
    config.objective.partition.update(by="near", radius=20.0, angle=180.0)
    config.batch, sets = 18, training_sets(config)
    learning = families.FAMILIES["places"](config, sets)
    plan, memory = learning.objective.plan(0, np.random.default_rng([0, 0]), {}, None)
    draw, one = plan.draws["source"], sets[0]
    apart = np.hypot(
        one.east[draw.rows] - one.east[draw.rows][:, ::3].repeat(3, 1),
        one.north[draw.rows] - one.north[draw.rows][:, ::3].repeat(3, 1),
    )
    assert draw.mask.all() and memory == {} and apart.max() <= 20 and (draw.label == np.arange(6).repeat(3)).all()
    assert learning.summary.startswith(
        f"{len(one)} images with 2 others or more within 20 m; 0 images have fewer; a pass"
    )


def test_a_map_too_small_for_its_batches_is_said(config, caplog):
    """At 90 m from each other the grid of 120 m has two to four such places in a batch."""
    config.objective.update(P=8, min_distance=90.0)
    config.objective.partition.update(by="near", radius=20.0, angle=180.0)
    families.FAMILIES["places"](config, training_sets(config))
    assert re.search(r"room for [234] of objective\.P=8 places that are 90 m", caplog.text), caplog.text


def test_it_learns_prototypes_split_over_two_devices(config, tmp_path):
    for key, value in {"loss": "arcface", "miner": "none", "loss_options.scale": "16.0", "K": "1", "P": "24"}.items():
        override(config, f"objective.{key}", value)
    config.mesh.model = 2
    losses = losses_of(config, tmp_path / "a")
    assert len(losses) == 16 and sum(losses[-4:]) < sum(losses[:4])


@pytest.mark.long
def test_cliques_train_and_a_stopped_run_ends_as_the_other(config, tmp_path, monkeypatch):
    """Stopped before the second epoch begins, which draws its cliques by what the first one remembered."""
    config.objective.cliques.update(share=0.5, refresh=2, similar=6)
    config.steps_per_epoch = 4
    losses = losses_of(config, tmp_path / "alone")
    assert len(losses) == 8
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(loop, "make_step", stopping_at(4, loop.make_step))
        losses_of(config, tmp_path / "broken")
    assert losses_of(config, tmp_path / "broken") == losses
    one, other = (tmp_path / name / "model.safetensors" for name in ("alone", "broken"))
    assert one.read_bytes() == other.read_bytes()


def test_two_data_sets_share_the_batches_of_a_recipe_by_weight(config, photo_tree):
    config.more_train_data = ConfigDict({"again": common.data("at_names", str(photo_tree), "train")})
    config.objective.weights, sets = (3, 1), training_sets(config)
    plan, _ = families.FAMILIES["places"](config, sets).objective.plan(0, np.random.default_rng(0), {}, None)
    rows = plan.draws["source"].rows
    assert ((rows >= 75).sum(1) == 6).all() and ((rows < 75).sum(1) == 18).all()
    config.objective.weights = (1,)
    with pytest.raises(UserError, match=r"objective\.weights.*\['.*', '.*'\]"):
        families.FAMILIES["places"](config, sets)


def test_a_memory_compares_with_past_batches():
    """The first batch against a memory that holds but itself is the batch against itself; the second sees the first."""
    places = Places.create("p", Paths.of([f"{i}.jpg" for i in range(12)]), place=np.arange(12) // 3)
    choice, table = Choice("multi_similarity", "multi_similarity"), place_table(places, K=3)
    alone, remembering = (places_objective(table, choice, P=4, steps=2, memory=size) for size in (0, 20))
    _, ring = remembering.init(jax.random.key(0), 5)
    rng, values = np.random.default_rng(0), []
    for step in range(2):
        z = rng.normal(size=(12, 5)).astype(np.float32)
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        batch = {"source": {"label": jnp.arange(12, dtype=jnp.int32) // 3 + 4 * step, "mask": jnp.ones(12, bool)}}
        without, _, _ = alone.loss({}, {}, {"source": jnp.asarray(z)}, batch, None)
        loss, ring, _ = remembering.loss({}, ring, {"source": jnp.asarray(z)}, batch, None)
        values.append((float(without), float(loss)))
    assert values[0][0] == pytest.approx(values[0][1], rel=1e-5) and values[1][1] > 1.01 * values[1][0]


def test_the_ring_drops_the_oldest():
    ring = empty_ring(5, 1)
    for start in (0, 3):
        values = jnp.arange(start, start + 3, dtype=jnp.int32)
        ring = pushed(ring, values.astype(jnp.float32)[:, None], values, values != 4)
    assert ring["label"].tolist() == [3, 4, 5, 0, 1]
    assert ring["mask"].tolist() == [True, False, True, True, True]


MISTAKES = {
    "objective.loss=tripple": r"objective\.loss='tripple'.*'contrastive'.*'triplet'",
    "objective.miner=hardest": r"objective\.miner='hardest'.*'multi_similarity', 'none'",
    "objective.loss_options.alfa=1": r"option.*\balfa\b.*alpha, beta, base",
    "objective.loss=triplet,objective.loss_options.margin=x": r"loss 'triplet': margin='x' is not of type float",
    "objective.K=1,objective.P=24": r"objective\.K=1\b.*\b2\b",
    "objective.K=4,objective.P=6": r"place.*\b4 images.*\b3\b.*K=4",
    "objective.P=7": r"batch=24\b.*objective\.P\b.*objective\.K\b.*\b7 x 3\b",
    "objective.memory=10": r"objective\.memory=10\b.*\b24\b",
    "objective.cliques.share=0.01": r"objective\.cliques.*share=0\.01\b.*objective\.P=8\b.*\b1 to 8\b",
    "objective.cliques.share=-1.0": r"objective\.cliques.*share=-1\.0\b.*objective\.P=8\b.*\b1 to 8\b",
    "objective.cliques.share=0.5,objective.cliques.refresh=0": r"objective\.cliques.*refresh=0\b.*\b1\b",
    "objective.cliques.share=0.5,objective.cliques.sets=1": r"objective\.cliques\.sets=\(1,\).*\b0\b.*\b0\b",
    "objective.cliques.share=0.5,objective.memory=30": r"objective\.memory=30\b.*objective\.cliques\.share=0\b",
    "objective.cliques.share=0.5,objective.cliques.distance=0.0": r"distance=0\.0\b",
    "objective.partition.by=street": r"objective\.partition\.by='street'.*\['cell'",
    "objective.partition.by=near": r"min_distance=0\b.*radius=12\b",
    "objective.partition.by=near,objective.min_distance=12.0,objective.loss=cosface": r"loss='cosface'.*anew",
    "objective.partition.by=near,objective.min_distance=25.0,objective.memory=30": r"objective\.memory=30\b.*anew",
    "objective.partition.by=near,objective.cliques.share=0.5": r"objective\.cliques\.share=0\.5\b.*anew",
    "objective.partition.by=near,train_data.partition.by=cell": r"train_data\.partition=.*partition\.by='near'",
    "accumulate=2": r"accumulate=2\b.*accumulate=1\b.*grad_cache",
}


@pytest.mark.parametrize("change", MISTAKES)
def test_mistakes_are_named(change, config, tmp_path):

    for one in change.split(","):
        override(config, *one.split("="))
    with pytest.raises((UserError, DataError), match=MISTAKES[change]):
        train.run(config.lock(), tmp_path / "run")
