"""Compact convolutional transformers: grids, positions, cuts, frozen parts and what only training does."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from random_variables import random_variables

from jaxvpr.models.aggregators.seqpool import SeqPool
from jaxvpr.models.backbones.cct import CCT, Block, positions
from jaxvpr.models.features import Features

IMAGES = np.random.default_rng(0).normal(size=(2, 48, 32, 3)).astype(np.float32)
# Optimising these programs would take longer than running them.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
TINY = {"size": 32, "width": 8, "depth": 2, "heads": 2, "stem_width": 4}


def gradients(model):
    """(parameters, key) to the gradients, by path, of a loss that every token takes part in."""

    def loss(params, key):
        return jnp.sum(jnp.sin(model.apply({"params": params}, IMAGES, train=True, rngs={"dropout": key}).map))

    gradient = jit(jax.grad(loss))

    def by_path(params, key=0):
        leaves = flatten_dict(gradient(params, jax.random.key(key)))
        return {"/".join(path): np.asarray(leaf) for path, leaf in leaves.items()}

    return by_path


@pytest.mark.parametrize(
    ("height", "width", "grid"), [(224, 224, (14, 14)), (384, 384, (24, 24)), (75, 130, (5, 9)), (1, 16, (1, 1))]
)
def test_a_cell_is_sixteen_pixels_and_a_rest_counts_as_one(height, width, grid):
    model = CCT(size=384)
    image = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    features, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
    assert features.map.shape == (1, *grid, 384) and features.token.shape == (1, 384)
    assert variables["params"]["positional_emb"].shape == (1, 576, 384)
    assert len([name for name in variables["params"] if name.startswith("blocks_")]) == 14


def test_published_number_of_parameters():
    # SHI-Labs give 22.36 million for CCT-14/7x2 at 224, 385,000 of them in the classifier and 385 in the pooling.
    shapes = jax.eval_shape(CCT(size=224).init, jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes)) + 385_000 + 385
    assert count // 10_000 == 2236


def test_positions_are_interpolated_between_the_centres_of_cells():
    grid = jnp.arange(4, dtype=jnp.float32).reshape(1, 2, 2, 1)
    # Two rows become four: a quarter of the way, three quarters, and the border repeated.
    np.testing.assert_allclose(positions(grid, 4, 2)[0, ..., 0], [[0, 1], [0.5, 1.5], [1.5, 2.5], [2, 3]], atol=1e-6)
    np.testing.assert_array_equal(positions(grid, 2, 2), grid)


def test_everything_learns_where_nothing_is_frozen_and_chance_depends_on_the_key():
    model = CCT(**{**TINY, "depth": 1})
    params, train = random_variables(model, IMAGES)["params"], gradients(model)
    plain, again, other = train(params), train(params), train(params, key=1)
    for path, gradient in plain.items():
        assert gradient.any(), path
        np.testing.assert_array_equal(again[path], gradient)
    assert np.abs(other["positional_emb"] - plain["positional_emb"]).max() > 1e-3


def test_recomputation_keeps_the_names_and_stores_less():
    shapes = [jax.eval_shape(CCT(**TINY, remat=remat).init, jax.random.key(0), IMAGES) for remat in (False, True)]
    assert shapes[0] == shapes[1]

    def loss(params, remat):
        return jnp.sum(CCT(**TINY, remat=remat).apply(params, IMAGES).map)

    programs = [str(jax.make_jaxpr(jax.grad(partial(loss, remat=remat)))(shapes[0])) for remat in (False, True)]
    assert [program.count("remat") for program in programs] == [0, TINY["depth"]]


def test_a_cut_leaves_out_the_last_blocks():
    whole, short = CCT(**TINY), CCT(**TINY, cut=1)
    variables = random_variables(whole, IMAGES)
    params = {name: leaf for name, leaf in variables["params"].items() if name != "blocks_1"}
    assert set(random_variables(short, IMAGES)["params"]) == set(params)
    same = {**TINY, "depth": 1}
    found, expected = (jit(model.apply)({"params": params}, IMAGES).map for model in (short, CCT(**same)))
    np.testing.assert_array_equal(found, expected)


def test_an_image_skips_a_branch_as_a_whole_and_the_others_make_up_for_it():
    x = np.random.default_rng(1).normal(size=(64, 3, 8)).astype(np.float32)
    block = Block(2, 16, 0.0, 0.0, 0.25, True, jnp.float32)
    variables = random_variables(block.clone(train=False), x)
    for kernel in ("qkv", "proj"):
        variables["params"]["self_attn"][kernel]["kernel"] *= 0
    still = jit(block.clone(train=False).apply)(variables, x)
    moved = np.asarray(jit(block.apply)(variables, x, rngs={"dropout": jax.random.key(0)}))
    normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    skipped = np.isclose(moved, normed, atol=1e-5).all((1, 2))
    assert 0.1 < skipped.mean() < 0.45
    np.testing.assert_allclose((moved - normed)[~skipped], ((still - normed) / 0.75)[~skipped], atol=1e-5)


def test_attention_pooling_is_a_weighted_mean_of_the_cells():
    x = np.random.default_rng(2).normal(size=(2, 3, 4, 5)).astype(np.float32)
    kernel, bias = np.random.default_rng(3).normal(size=(5, 1)).astype(np.float32), np.float32([0.7])
    params = {"attention_pool": {"kernel": kernel, "bias": bias}}
    cells = x.reshape(2, 12, 5).astype(np.float64)
    shares = np.exp(cells @ kernel[:, 0])
    expected = (shares[..., None] * cells).sum(1) / shares.sum(1, keepdims=True)

    def both(params):
        found = SeqPool().apply({"params": params}, Features(jnp.asarray(x)))
        return jnp.sum(jnp.sin(found)), found

    gradient, found = jit(jax.grad(both, has_aux=True))(params)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert gradient["attention_pool"]["kernel"].any()


def test_the_token_is_the_first_cell_and_every_cell_is_normalised_also_in_bfloat16():
    model = CCT(**TINY)
    variables = random_variables(model, IMAGES)
    full, half = (jit(CCT(**TINY, dtype=dtype).apply)(variables, IMAGES) for dtype in (jnp.float32, jnp.bfloat16))
    np.testing.assert_array_equal(full.token, full.map[:, 0, 0])
    np.testing.assert_allclose(full.map.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(full.map.std(-1), 1, atol=1e-3)
    assert half.map.dtype == half.token.dtype == jnp.bfloat16
    error = np.linalg.norm(half.map.astype(jnp.float32) - full.map) / np.linalg.norm(full.map)
    assert 0 < error < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cut": 15}, r"cut=15\b.*\b1 to 14\b"),
        ({"cut": 0}, r"cut=0\b.*\b1 to 14\b"),
        ({"cut": 8, "frozen_blocks": 9}, r"frozen_blocks=9\b.*\b0 to 8\b"),
        ({"frozen_blocks": -1}, r"frozen_blocks=-1\b.*\b0 to 14\b"),
        ({"width": 100}, r"width=100\b.*\b6 heads"),
    ],
)
def test_parts_that_do_not_exist_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(CCT(**options).init, jax.random.key(0), IMAGES)
