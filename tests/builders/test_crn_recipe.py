"""CRN's second stage: what comes from the NetVLAD of the first, what learns how fast, and what is told without one."""

import logging
import re
from functools import partial

import jax
import numpy as np
import pytest

from jaxvpr import builders, weights
from jaxvpr.cli.recipes import load_config
from jaxvpr.runs import model_file
from jaxvpr.training.optimisers import from_keys

CITY = "configs/crn.py"
FROM = load_config(CITY).init.partition(":")[2]
# Optimising these programs would take longer than running them.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def small(name, init):
    """A recipe of the embedded city with a small network, started from a file."""
    config = load_config(name).unlock()
    config.model.backbone_options.update(widths=(8, 8, 12, 16))
    config.clusters.images, config.init = 0, init
    return config.lock()


def drawn(config, seed):
    """Random numbers in the shapes of a recipe's model, without compiling its initialisation."""
    rng = np.random.default_rng(seed)
    made = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(leaf.dtype), builders.shapes(config))
    return {**made, "batch_stats": jax.tree.map(np.abs, made["batch_stats"])}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The recipe of the first stage, its weights, and the model file of its run."""
    config = small("configs/netvlad.py", "")
    variables = drawn(config, 0)
    return config, variables, model_file.save_model(tmp_path_factory.mktemp("netvlad"), config, variables)


@pytest.fixture(scope="module")
def second(first):
    """The recipe of the second stage, what it draws, and the weights that it starts from."""
    config = small(CITY, f"{first[2]}:{FROM}")
    fresh = drawn(config, 1)
    summed = fresh["params"]["aggregator"]["crn"]["acc_w"]  # never drawn, and never trained
    summed["kernel"][:], summed["bias"][:] = 1, 0
    return config, fresh, builders.initial_variables(config, drawn=fresh)


@pytest.mark.parametrize("preset", ["city", "pitts30k", "msls"])
def test_both_stages_are_of_one_network_and_one_mining(preset):
    second, first = (load_config(f"configs/{name}.py:{preset}") for name in ("crn", "netvlad"))
    assert second.init.startswith(f"runs/{first.name}/model.safetensors:")
    assert (first.model.aggregator, second.model.aggregator) == ("netvlad", "crn")
    ours, theirs = second.model.to_dict() | {"aggregator": ""}, first.model.to_dict() | {"aggregator": ""}
    # What the first leaves to a default the second may name.
    options = ours.pop("aggregator_options")["clusters"], theirs.pop("aggregator_options").get("clusters", 64)
    assert ours == theirs and options[0] == options[1]
    for key in ("image", "train_data", "val_data", "test_data", "batch", "steps_per_epoch", "frozen", "best"):
        assert second[key] == first[key], key
    assert second.objective.name == first.objective.name == "mined_triplets"
    if preset != "city":
        assert second.objective == first.objective


def test_the_context_learns_ten_times_as_fast(second):
    keys = load_config(f"{CITY}:pitts30k").optimizer.to_dict()
    tuner = from_keys(keys, total=100)
    paths = weights.to_torch("jaxvpr", {"params": second[2]["params"]})
    factors = tuner.factors_of([name.replace(".", "/") for name in paths])
    rates = {path: float(tuner.rate(0)) * factor for path, factor in factors.items()}
    context = {path for path in rates if "/crn/" in path}
    assert len(context) == 8 and {round(rates[path], 9) for path in context} == {5e-3}
    assert {round(rates[path], 9) for path in set(rates) - context} == {5e-4}
    assert (keys["momentum"], keys["weight_decay"]) == (0.9, 1e-3)


def test_the_netvlad_arrives_and_the_context_is_drawn(first, second):
    theirs, (_, fresh, ours) = first[1], second
    for kind in ("params", "batch_stats"):
        jax.tree.map(np.testing.assert_array_equal, ours[kind]["backbone"], theirs[kind]["backbone"])
    head = {**ours["params"]["aggregator"]}
    jax.tree.map(np.testing.assert_array_equal, head.pop("crn"), fresh["params"]["aggregator"]["crn"])
    jax.tree.map(np.testing.assert_array_equal, head, theirs["params"]["aggregator"])


def test_what_no_file_gives_is_told(first, second, caplog):
    caplog.set_level(logging.INFO, "jaxvpr")
    builders.initial_variables(*second[:1], drawn=second[1])
    assert f"model.safetensors:{FROM} gives everything but aggregator/crn\n" in caplog.text
    caplog.clear()
    builders.initial_variables(first[0], str(first[2]))
    assert "gives everything but" not in caplog.text


def test_a_context_that_sees_the_same_everywhere_leaves_the_netvlad_as_it_was(first, second):
    """A mask of one value scales all residuals, which normalisation undoes; any other mask changes the descriptor."""
    images = np.random.default_rng(1).integers(0, 256, (4, 64, 64, 3), np.uint8)
    flat = second[2]
    crn = flat["params"]["aggregator"]["crn"]
    blind = {
        name: {"kernel": np.zeros_like(part["kernel"]), "bias": np.full_like(part["bias"], 0.3)}
        for name, part in crn.items()
    }
    params = {**flat["params"], "aggregator": {**flat["params"]["aggregator"], "crn": {**blind, "acc_w": crn["acc_w"]}}}
    describe = jit(builders.model(second[0]).apply)
    plain = jit(builders.model(first[0]).apply)(first[1], images)
    np.testing.assert_allclose(describe({**flat, "params": params}, images), plain, atol=1e-5)
    assert np.abs(describe(flat, images) - plain).max() > 1e-3


def test_without_a_netvlad_nothing_is_trained(refused, tmp_path, monkeypatch):
    said = refused(f"--config={CITY}", "--config.init=", f"--workdir={tmp_path}")
    assert re.search(r"'crn'.*NetVLAD.*config\.init\b.*configs/netvlad\.py", said)
    monkeypatch.chdir(tmp_path)
    said = refused(f"--config={CITY}", f"--workdir={tmp_path}")
    assert re.search("no such file.*'netvlad-city'", said)
