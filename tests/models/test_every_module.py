"""What holds for every backbone, aggregator and head for clips, at the smallest size at which it still does all of it.

A new entry of `BACKBONES`, `AGGREGATORS` or `SEQUENCES` needs a line in `BACKBONE_CASES`, `AGGREGATOR_CASES` or
`SEQUENCE_CASES`; one of `POSITIONS` has its own in tests/models/test_position_heads.py.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_variables import random_variables

from benchmarks.device.program import flops
from jaxvpr.models import AGGREGATORS, BACKBONES, POSITIONS, SEQUENCES, Features, join
from jaxvpr.models.non_local import KINDS

RESNET = {"widths": (4,), "cut": "layer1", "sizes": (1,)}
EFFICIENTNET = {"width": 0.1, "depth": 0.1, "cut": 2}
CCT = {"size": 32, "width": 8, "depth": 1, "heads": 2, "stem_width": 4}
VIT = {"width": 8, "depth": 1, "heads": 2, "side": 3}
# backbone -> options, or the name of another one that differs in sizes only
BACKBONE_CASES: dict[str, dict | str] = {
    "resnet18": RESNET,
    "resnet34": "resnet18",
    "resnet50": RESNET,
    "resnet101": "resnet50",
    "resnet152": "resnet50",
    "resnet_small": RESNET,
    "squeezenet": {"cut": 3},
    "vgg16": {"widths": (4, 4, 4, 4, 4), "cut": 7},
    "efficientnet_b0": EFFICIENTNET,
    "efficientnet_b1": "efficientnet_b0",
    "efficientnet_b2": "efficientnet_b0",
    "efficientnet_b3": "efficientnet_b0",
    "efficientnet_b4": "efficientnet_b0",
    "efficientnet_b5": "efficientnet_b0",
    "efficientnet_b6": "efficientnet_b0",
    "efficientnet_b7": "efficientnet_b0",
    "efficientnet_lite0": EFFICIENTNET,
    "efficientnet_lite1": "efficientnet_lite0",
    "efficientnet_lite2": "efficientnet_lite0",
    "cct14_224": CCT,
    "cct14_384": "cct14_224",
    "vit_s16": "vit_b16",
    "vit_b16": VIT,
    "timesformer_b16": {**VIT, "frames": 3},
    # The others have the plain perceptron of `vit_b16`.
    "dinov2_vitg14": {**VIT, "width": 32, "registers": 2, "adapters": True},
    "dinov2_vits14": "dinov2_vitg14",
    "dinov2_vitb14": "dinov2_vitg14",
    "dinov2_vitl14": "dinov2_vitg14",
    "clip_vitl14": {**VIT, "projection": 5},
}
CLUSTERS = {"clusters": 3}
SALAD = {**CLUSTERS, "cluster_dim": 4, "token_dim": 5, "hidden": 6}
ENCODER = {"layers": 1, "heads": 2, "hidden": 8}
AGGREGATOR_CASES: dict[str, dict] = {
    "gem": {},
    "seqpool": {},
    "cls": {},
    "cosplace": {"dim": 5},
    "flatten": {"dim": 5},
    "boq": {"dim": 8, "head_dim": 4, "queries": 3, "layers": 1, "rows": 2},
    "convap": {"dim": 5},
    "encoder": ENCODER,
    "cricavpr": {**ENCODER, "cuts": ((1,),), "cross_image": False},
    "megaloc": {**SALAD, "dim": 5},
    "mixvpr": {"dim": 5, "rows": 2, "depth": 1, "cells": (4, 5)},
    "salad": SALAD,
    "spoc": {},
    "mac": {},
    "rmac": {},
    "regeo": {**ENCODER, "dim": 5},
    "rrm": {},
    "netvlad": CLUSTERS,
    "crn": CLUSTERS,
    "vlad": CLUSTERS,
    "supervlad": {**CLUSTERS, **ENCODER, "cross_image": False},
    "fc": {"dim": 5},
    "whiten": {},
    "project": {"inner": {"aggregator": "netvlad", "aggregator_options": CLUSTERS}},
}
SEQUENCE_CASES: dict[str, dict] = {
    "joint": {},
    "cat": {"frames": 4},
    "fc": {"frames": 4, "dim": 5},
    "conv": {"width": 3, "dim": 5},
    "encoder": {**ENCODER, "frames": 4},
    "seqgem": {},
    "seqpool": {},
    "mean": {},
    "max": {},
    "delta": {},
    "projected": {"inner": {"sequence": "cat", "sequence_options": {"frames": 4}}, "dim": 5},
}
# These say of themselves that a descriptor depends on the other images, unless told otherwise as above.
ACROSS = ("cricavpr", "supervlad")
SIDES = {"dinov2": (28, 42), "clip": (28, 42), "vit": (32, 48), "timesformer": (2, 32, 48)}
# Made of the blocks of others here.
SIMILAR = ("clip_vitl14", "regeo", "timesformer_b16")
# Their positions, masks, principal components: small products that are at the highest precision whatever is asked for.
ALWAYS_PRECISE = ("cct14_224", "clip_vitl14", "crn", "dinov2_vitg14", "fc", "timesformer_b16", "vit_b16", "whiten")
PARTS = {"backbone": BACKBONES, "aggregator": AGGREGATORS, "sequence": SEQUENCES, "position": POSITIONS}
# Optimising these programs would take longer than running them.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


class Pixels(nn.Module):
    """Each pixel as a cell of the map, in 8 channels without a parameter: black gives a map of zeros."""

    dtype: Any

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> Features:
        weight = jnp.asarray(np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32))
        x = (images @ weight).astype(self.dtype)
        return Features(x[..., :8], x[..., 8:].mean((1, 2)))


def noise(*sides):
    return np.random.default_rng(0).uniform(0, 255, (3, *sides, 3)).astype(np.float32)


def backbone_model(name, dtype, **options):
    model = join(backbone=name, aggregator="spoc", backbone_options=BACKBONE_CASES[name], dtype=dtype, **options)
    return model, noise(*SIDES.get(name.split("_")[0], (40, 48)))


def aggregator_model(name, dtype, own=None, **options):
    chosen = {**AGGREGATOR_CASES[name], **(own or {})}
    return of_pixels(dtype, aggregator=name, aggregator_options=chosen, **options), noise(4, 5)


def sequence_model(name, dtype, **options):
    return of_pixels(dtype, sequence=name, sequence_options=SEQUENCE_CASES[name], **options), noise(4, 2, 3)


def non_local_model(kind, dtype, **options):
    block = {"kind": kind, "bottleneck": 4, "weight": 2.0}
    return of_pixels(dtype, sequence="joint", non_local=block, **options), noise(4, 2, 3)


def of_pixels(dtype, aggregator="spoc", **options):
    model = join(backbone="resnet18", aggregator=aggregator, dtype=dtype, **options)
    return model.clone(backbone=Pixels(jnp.dtype(dtype)), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


OWN = [name for name, case in BACKBONE_CASES.items() if isinstance(case, dict)]
MODELS = [
    *((backbone_model, name) for name in OWN),
    *((aggregator_model, name) for name in AGGREGATOR_CASES),
    *((sequence_model, name) for name in SEQUENCE_CASES),
    *((non_local_model, kind) for kind in KINDS),
]
# Aggregators turn a bfloat16 map into float32 first: the program for a float32 map is the same without that step.
TRAINED = [(backbone_model, name, "float32") for name in OWN] + [(*model, "bfloat16") for model in MODELS]


def named(models):
    """Cases with names; gradients of what clips have of their own, and of `SIMILAR`, are for the long tests."""

    def case(make, *names):
        long = len(names) > 1 and (make in (sequence_model, non_local_model) or names[0] in SIMILAR)
        kind = make.__name__.removesuffix("_model")
        return pytest.param(make, *names, id="-".join((kind, *names)), marks=[pytest.mark.long] * long)

    return [case(*model) for model in models]


def test_every_module_has_a_case():
    assert set(BACKBONE_CASES) == set(BACKBONES)
    assert set(AGGREGATOR_CASES) == set(AGGREGATORS) and set(SEQUENCE_CASES) == set(SEQUENCES)
    for name, case in BACKBONE_CASES.items():
        if isinstance(case, str):
            assert isinstance(BACKBONE_CASES[case], dict), f"{name}: {case} has no options of its own"
            assert class_of(BACKBONES[name]) is class_of(BACKBONES[case])


def class_of(builder):
    return builder.func if isinstance(builder, partial) else builder


@pytest.mark.parametrize(("make", "name"), named(MODELS))
def test_descriptors_have_unit_length_and_do_not_depend_on_the_batch(make, name):
    model, images = make(name, "float32")
    variables = random_variables(model, images)
    describe = jit(model.apply)
    assert set(flops(describe.trace(variables, images).jaxpr)) <= {"float32 HIGHEST"}
    found = np.asarray(describe(variables, images))
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-4
    np.testing.assert_allclose(describe(variables, images[[2, 0, 1]]), found[[2, 0, 1]], atol=1e-5)
    np.testing.assert_allclose(describe(variables, images[1:2]), found[1:2], atol=1e-5)


@pytest.mark.parametrize("name", ACROSS)
def test_an_encoder_across_images_makes_descriptors_depend_on_the_batch(name):
    model, images = aggregator_model(name, "float32", {"cross_image": True})
    variables = random_variables(model, images)
    describe = jit(model.apply)
    assert np.abs(describe(variables, images[1:2]) - describe(variables, images)[1:2]).max() > 1e-4


@pytest.mark.parametrize(("make", "name", "dtype"), named(TRAINED))
def test_gradients_are_finite_for_noise_and_for_constant_images(make, name, dtype):
    model, images = make(name, dtype, train_precision="high")
    variables = random_variables(model, images)
    rngs = {"dropout": jax.random.key(0)}

    def loss(params, images):
        found, _ = model.apply({**variables, "params": params}, images, train=True, mutable=["batch_stats"], rngs=rngs)
        return jnp.sum(found * jnp.arange(found.size, dtype=jnp.float32).reshape(found.shape))

    gradient = jit(jax.grad(loss, argnums=(0, 1)))
    always = ("projected",) if make is sequence_model else ALWAYS_PRECISE
    precise = {"float32 HIGHEST"} if name in always else set()
    found = set(flops(gradient.trace(variables.get("params", {}), images).jaxpr))
    kinds = set() if (make, dtype) == (backbone_model, "bfloat16") else {"float32 HIGH"}
    if make in (backbone_model, non_local_model) and dtype == "bfloat16":
        kinds |= {"bfloat16 HIGH", "bfloat16"}
    assert precise <= found <= kinds | precise, "forward and backward"
    for value in (None, 124, 0):
        batch = images if value is None else np.full_like(images, value)
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(gradient(variables.get("params", {}), batch))]
        assert all(np.isfinite(leaf).all() for leaf in leaves), f"images of {value}"
        assert value is not None or any(leaf.any() for leaf in leaves)


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind, names in PARTS.items() for name in names],
)
def test_an_option_that_does_not_exist_is_an_error_that_lists_those_that_do(kind, name):
    names = {"backbone": "resnet18", "aggregator": "gem", kind: name}
    with pytest.raises(ValueError, match=rf"{kind}.*'{name}'.*option.*\['sise'\].*\["):
        join(**names, **{f"{kind}_options": {"sise": 3}})
