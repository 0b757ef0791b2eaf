"""Heads that answer positions: what they compute, within the whole model, in files of weights and in recipes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_variables import random_variables

from benchmarks.device.program import flops
from configs import common
from jaxvpr import builders, weights
from jaxvpr.cli.overrides import override_all
from jaxvpr.cli.ranges import mistakes
from jaxvpr.errors import UserError
from jaxvpr.families import names
from jaxvpr.models import POSITIONS, join
from jaxvpr.models.positions import OWN_HEADS, Cells, Direct, Mixture, area
from jaxvpr.models.positions.heads import FourierFeatures

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 40, 3), np.uint8)
TINY = {"sizes": [1], "widths": [6], "cut": "layer1", "stem": "small"}
BOX = (37.70, -122.50, 37.79, -122.387)
OPTIONS = {
    "direct": {"ending": "softmax"},
    "hypersphere": {"projection": "spread"},
    "cells": {"cells": 3, "soft": True},
    "mixture": {"components": 2},
    "geoclip": {"dim": 4, "features": 3, "width": 5, "sigmas": [1.0], "size": 7},
}


def make(position="direct", **options):
    given = {"area": BOX, **OPTIONS[position], **options}
    model = join(
        backbone="resnet18", aggregator="gem", backbone_options=TINY, position=position, position_options=given
    )
    variables = random_variables(model, IMAGES)
    return model, variables


@pytest.mark.parametrize(
    "position", [pytest.param(name, marks=[pytest.mark.long] * (name != "mixture")) for name in POSITIONS]
)
def test_a_model_describes_as_without_its_head_and_answers_with_it(position):
    model, variables = make(position)
    plain = join(backbone="resnet18", aggregator="gem", backbone_options=TINY)
    without = {kind: {k: v for k, v in each.items() if k != "position"} for kind, each in variables.items()}
    apply = jax.jit(model.apply, static_argnames="method")
    descriptors = apply(variables, IMAGES)
    np.testing.assert_array_equal(descriptors, jax.jit(plain.apply)(without, IMAGES))
    raw = apply(variables, IMAGES, method="located")
    assert raw.shape == (3, model.position.coding.numbers) and raw.dtype == jnp.float32
    alone = {kind: {"position": each["position"]} for kind, each in variables.items() if "position" in each}
    np.testing.assert_allclose(apply(alone, descriptors, method="of_descriptors"), raw, rtol=1e-5, atol=1e-6)
    assert set(
        flops(jax.make_jaxpr(lambda v, d: model.apply(v, d, method="of_descriptors"))(alone, descriptors).jaxpr)
    ) == {"float32 HIGHEST"}
    assert hash(model) == hash(make(position)[0]) and model == make(position)[0]


def test_a_perceptron_by_hand():
    for activation in ("silu", "relu"):
        model, variables = make(ending="none", activation=activation, hidden=3, width=5)
        layers = variables["params"]["position"]
        assert [layers[f"hidden_{i}"]["kernel"].shape for i in range(3)] == [(6, 5), (5, 5), (5, 5)]
        x = descriptors = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
        for name in ("hidden_0", "hidden_1", "hidden_2", "output"):
            x = x @ layers[name]["kernel"] + layers[name]["bias"]
            if name != "output":
                x = np.maximum(x, 0) if activation == "relu" else x / (1 + np.exp(-x))
        found = jax.jit(lambda v, d, model=model: model.apply(v, d, method="of_descriptors"))(variables, descriptors)
        np.testing.assert_allclose(found, x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "shapes"),
    [
        ({}, [(6, 6), (6, 6)]),
        ({"hidden": 0}, []),
        ({"widths": [7, 3]}, [(6, 7), (7, 3)]),
        ({"fourier": 4}, [(14, 6), (6, 6)]),
    ],
)
def test_widths_of_hidden_layers(options, shapes):
    layers = make(**options)[1]["params"]["position"]
    assert [layers[name]["kernel"].shape for name in sorted(layers) if name != "output"] == shapes


def test_fourier_features_by_hand_and_by_seed():
    model, variables = make(ending="none", hidden=0, fourier=4, fourier_scale=2.0)
    x = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    drawn = [
        FourierFeatures(4000, 2.0, seed).init(jax.random.key(key), x)["batch_stats"]["frequencies"]
        for seed, key in ((0, 0), (0, 1), (1, 0))
    ]
    assert np.std(drawn[0]) == pytest.approx(2, rel=0.02) and np.abs(drawn[0] - drawn[2]).max() > 1
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert "fourier" not in variables["params"]["position"], "no optimiser sees them"
    angles = 2 * np.pi * x @ variables["batch_stats"]["position"]["fourier"]["frequencies"]
    output = variables["params"]["position"]["output"]
    expected = np.concatenate([x, np.sin(angles), np.cos(angles)], 1) @ output["kernel"] + output["bias"]
    found, kept = model.apply(variables, x, train=True, method="of_descriptors", mutable=["batch_stats"])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, kept["batch_stats"]["position"], variables["batch_stats"]["position"])


def test_dropout_is_for_training():
    model, variables = make(dropout=0.5, width=64)
    x = np.ones((2, 6), np.float32)

    @partial(jax.jit, static_argnums=0)
    def answer(train):
        both = ({"dropout": jax.random.key(seed)} for seed in range(2))
        return [model.apply(variables, x, train, method="of_descriptors", rngs=rngs) for rngs in both]

    one, other = answer(False)
    np.testing.assert_array_equal(one, other)
    one, other = answer(True)
    assert np.abs(one - other).max() > 0


def test_a_mixture_begins_at_its_starts():
    params = POSITIONS["mixture"](components=2, hidden=0).init(jax.random.key(0), IMAGES[:, 0, 0])["params"]
    np.testing.assert_allclose(params["output"]["bias"], Mixture(components=2).start, rtol=1e-6)


@pytest.mark.parametrize("ending", [".safetensors", pytest.param(".pth", marks=pytest.mark.torch)])
@pytest.mark.parametrize("position", sorted(set(POSITIONS) - set(OWN_HEADS)))
def test_weights_keep_a_head_in_files(position, ending, tmp_path):
    variables = make(position, fourier=3)[1]
    tensors = weights.to_torch("jaxvpr", variables)
    own = {name for name in tensors if name.startswith("position.")}
    layers = {f"position.{layer}.{kind}" for layer in ("hidden_0", "hidden_1", "output") for kind in ("kernel", "bias")}
    assert own == {"position.fourier.frequencies", *layers}
    assert weights.family_for(variables) == "jaxvpr"
    weights.write(tmp_path / f"model{ending}", tensors)
    blank = jax.tree.map(np.zeros_like, variables)
    back = weights.init_from(blank, tmp_path / f"model{ending}")
    jax.tree.map(np.testing.assert_array_equal, back, variables)


@pytest.mark.parametrize(
    ("position", "options", "message"),
    [
        ("nowhere", {}, r"no position 'nowhere'; there are \['cells'"),
        ("direct", {"sise": 3}, r"position 'direct' has no option \['sise'\]; there are \['area', 'metres'.*'ending'"),
        ("cells", {"ending": "none"}, r"'cells' has no option \['ending'\]"),
        ("direct", {"area": (1, 2, 0, 4)}, "south < north"),
        ("hypersphere", {"area": (0, 0, 9, 9), "metres": True}, "spread"),
    ],
)
def test_options_that_make_no_sense(position, options, message):
    with pytest.raises(ValueError, match=message):
        join(backbone="resnet18", aggregator="gem", position=position, position_options=options)


def test_a_model_without_a_head_says_so():
    model = join(backbone="resnet18", aggregator="gem", backbone_options=TINY)
    with pytest.raises(ValueError, match="no position: give it a head"):
        model.apply({}, IMAGES[:, 0, 0].astype(np.float32), method="of_descriptors")
    with pytest.raises(ValueError, match="activation='gelu'"):
        make(activation="gelu")


def test_a_recipe_has_a_head_by_its_keys():
    config = common.base()
    changes = {
        "model.position": "cells",
        "model.position_options.cells": "7",
        "model.position_options.area": "(-20, 175, -15, 185)",
        "model.position_options.width": "0",
    }
    override_all(config, list(changes.items()))
    assert not list(mistakes(config))
    coding = builders.model(config).position.coding
    assert coding == Cells(area((-20, 175, -15, 185)), cells=7)
    shapes = builders.shapes(config)["params"]["position"]
    assert shapes["output"]["kernel"].shape == (512, 7 * 7 * 12)
    override_all(config, [("model.position", "direct")])
    assert builders.model(config).position.coding == Direct()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 1.0}, "dropout=1.0 must be from 0 to below 1"),
        ({"cells": 0}, "cells=0 must be at least 1"),
        ({"hidden": -1}, "hidden=-1 must be at least 0"),
        ({"area": (0.0, 0.0, float("nan"), 1.0)}, "finite"),
    ],
)
def test_numbers_of_a_recipe_have_ranges(options, message):
    config = common.base()
    with config.unlocked():
        config.model.position_options = options
    assert any(message in line for line in mistakes(config))


def test_names_of_heads_are_looked_at_with_those_of_the_model():
    config = common.base()
    config.model.position = "nowhere"
    with pytest.raises(UserError, match=r"config.model.position='nowhere' does not exist; there are \['', 'cells'"):
        names.check(config, training=False)
