"""What the learned heads do, by hand: windows, transport, attention, the batch, dropout, and errors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxvpr.models.aggregators.boq import BoQ
from jaxvpr.models.aggregators.convap import ConvAP, adaptive_average
from jaxvpr.models.aggregators.cricavpr import CricaVPR
from jaxvpr.models.aggregators.encoder import EncoderLayer, MultiHeadAttention
from jaxvpr.models.aggregators.mixvpr import MixVPR
from jaxvpr.models.aggregators.salad import SALAD, MegaLoc, sinkhorn
from jaxvpr.models.features import Features

RNG = np.random.default_rng(0)
MAP = RNG.normal(size=(3, 4, 5, 8)).astype(np.float32)
FEATURES = Features(jnp.asarray(MAP), jnp.asarray(RNG.normal(size=(3, 8)).astype(np.float32)))
CRICAVPR = {"layers": 1, "heads": 2, "hidden": 6, "cuts": ((2,), (1, 3))}
# Optimising these programs would take longer than running them.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def drawn(module, *inputs):
    """Variables of normal numbers in the shapes that `module` wants, without compiling its initialisation."""
    shapes = flatten_dict(jax.eval_shape(module.init, jax.random.key(0), *inputs))
    rng = np.random.default_rng(1)
    return unflatten_dict({key: rng.normal(size=leaf.shape).astype(np.float32) for key, leaf in shapes.items()})


def test_windows_of_the_adaptive_average_by_hand():
    column = jnp.asarray([1.0, 2.0, 6.0]).reshape(1, 3, 1, 1)
    np.testing.assert_allclose(adaptive_average(column, 2, 1).ravel(), [1.5, 4])
    np.testing.assert_allclose(adaptive_average(column, 5, 1).ravel(), [1, 1.5, 2, 4, 6])
    np.testing.assert_allclose(adaptive_average(column, 1, 2).ravel(), [3, 3])


def test_convap_averages_what_it_projects():
    head = ConvAP(dim=3)
    variables = drawn(head, FEATURES)
    kernel, bias = (np.asarray(variables["params"]["channel_pool"][leaf]) for leaf in ("kernel", "bias"))
    cells = np.einsum("bhwc,cd->bdhw", MAP, kernel[0, 0]) + bias.reshape(1, -1, 1, 1)
    # 4x5 cells: rows 0-1 and 2-3; columns 0-2 and 2-4 share the middle one.
    parts = [
        cells[:, :, rows, columns].mean((2, 3))
        for rows in (slice(2), slice(2, 4))
        for columns in (slice(3), slice(2, 5))
    ]
    np.testing.assert_allclose(head.apply(variables, FEATURES), np.stack(parts, -1).reshape(3, -1), atol=1e-4)


def test_transport_gives_each_cluster_its_mass_and_the_dustbin_the_rest():
    scores = jnp.asarray(RNG.normal(size=(2, 3, 11)).astype(np.float32)) * 3
    few, many = (np.exp(sinkhorn(scores, jnp.float32(0.5), rounds)) for rounds in (1, 200))
    assert few.shape == (2, 3, 11)
    # Every round ends with the cells: their shares add up to one, the dustbin's among them.
    assert (few.sum(1) < 1).all() and (many.sum(1) < 1).all()
    np.testing.assert_allclose(many.sum(2), 1, atol=1e-3)
    assert np.abs(few.sum(2) - 1).max() > 0.05


def test_transport_prefers_the_cells_that_fit_and_fills_the_dustbin_with_those_that_do_not():
    scores = jnp.asarray(np.full((1, 2, 6), -4, np.float32)).at[0, 0, 1].set(9).at[0, 1, 4].set(9)
    shares = np.exp(sinkhorn(scores, jnp.float32(1), 20))[0]
    assert shares[0, 1] > 0.9 and shares[1, 4] > 0.9
    assert shares[:, [0, 2, 3, 5]].max() < 0.02


@pytest.mark.parametrize("offset", [-1e4, 1e4])
def test_transport_stays_finite_far_from_zero(offset):
    scores = jnp.asarray(RNG.normal(size=(1, 2, 5)).astype(np.float32))
    shifted = sinkhorn(scores + np.float32(offset), jnp.float32(1 + offset), 3)
    np.testing.assert_allclose(shifted, sinkhorn(scores, jnp.float32(1), 3), atol=0.02)


def test_attention_by_plain_loops():
    attention = MultiHeadAttention(dim=4, heads=2)
    queries, keys = jnp.asarray(MAP[0, :3, :, :4]), jnp.asarray(MAP[1, :3, :2, :4])
    variables = drawn(attention, queries, keys)
    params = variables["params"]
    (wq, wk, wv), (bq, bk, bv) = np.split(params["in_proj_weight"], 3), np.split(params["in_proj_bias"], 3)
    expected = np.zeros((3, 5, 4))
    for b in range(3):
        q, k, v = queries[b] @ wq.T + bq[None], keys[b] @ wk.T + bk[None], keys[b] @ wv.T + bv[None]
        for head in (slice(0, 2), slice(2, 4)):
            weights = np.exp(q[:, head] @ k[:, head].T / np.sqrt(2))
            expected[b, :, head] = weights / weights.sum(1, keepdims=True) @ v[:, head]
    out = params["out_proj"]
    expected = expected @ out["kernel"] + out["bias"].reshape(1, 1, -1)
    np.testing.assert_allclose(attention.apply(variables, queries, keys), expected, rtol=1e-4, atol=1e-4)


def test_cricavpr_without_the_batch_describes_each_image_as_if_it_were_alone():
    across, alone = (CricaVPR(cross_image=choice, **CRICAVPR) for choice in (True, False))
    variables = drawn(across, FEATURES)
    together, single = jit(across.apply), jit(alone.apply)
    by_themselves = np.concatenate(
        [together(variables, jax.tree.map(lambda x, i=i: x[i : i + 1], FEATURES)) for i in range(3)]
    )
    np.testing.assert_allclose(single(variables, FEATURES), by_themselves, atol=1e-4)
    got = together(variables, FEATURES)
    assert np.abs(got - by_themselves).max() > 0.1, "the images of a batch look at each other"
    turned = together(variables, jax.tree.map(lambda x: x[::-1], FEATURES))
    np.testing.assert_allclose(turned, got[::-1], atol=1e-4)


def test_regions_of_cricavpr_are_taken_level_by_level_and_row_by_row():
    # Without an encoder, what it would see: the token and the regions' pooled, normalised features.
    head = CricaVPR(**{**CRICAVPR, "layers": 0})
    marked = np.full((1, 4, 5, 8), 1e-9, np.float32)
    marked[0, 3, 4, 2] = 1
    token = np.full((1, 8), 5, np.float32)
    got = jit(head.apply)({"params": {"gem": {"p": jnp.ones(1)}}}, Features(jnp.asarray(marked), jnp.asarray(token)))
    parts = np.asarray(got).reshape(14, 8)
    np.testing.assert_array_equal(parts[0], 5)
    # The last cell lies in the last of the four and in the last of the nine: 2x3 and 1x2 cells of 4x5.
    seen = np.flatnonzero(parts[1:, 2] - parts[1:, 3] > 1e-3)
    np.testing.assert_array_equal(seen, [3, 12])
    np.testing.assert_allclose(parts[[4, 13], 2] - parts[[4, 13], 3], [1 / 6, 1 / 2], rtol=0.02)


@pytest.mark.parametrize(
    ("module", "inputs"), [(SALAD(3, 4, 5, 6), FEATURES), (EncoderLayer(8, 2, 6, dropout=0.3), FEATURES.map[:, 0])]
)
def test_dropout_is_drawn_in_training_only(module, inputs):
    variables = drawn(module, inputs)
    learn = jit(lambda key: module.apply(variables, inputs, train=True, rngs={"dropout": key}))
    first, again, other = (learn(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    without = module.clone(dropout=0.0)
    learnt, used = jit(lambda v: (without.apply(v, inputs, train=True), module.apply(v, inputs)))(variables)
    np.testing.assert_allclose(learnt, used, atol=1e-4)


def test_megaloc_is_a_linear_layer_behind_salad():
    head, salad = MegaLoc(7, 3, 4, 5, 6), SALAD(3, 4, 5, 6)
    variables = drawn(head, FEATURES)
    inner = {"params": variables["params"]["agg"]}
    got, inner = jit(lambda v, w: (head.apply(v, FEATURES), salad.apply(w, FEATURES)))(variables, inner)
    inner = inner / np.linalg.norm(inner, axis=1, keepdims=True)
    linear = variables["params"]["linear"]
    np.testing.assert_allclose(got, inner @ linear["kernel"] + linear["bias"][None], atol=1e-4)


ONLY_MAP = Features(FEATURES.map)


@pytest.mark.parametrize(
    ("head", "features", "message"),
    [
        (MixVPR(), FEATURES, r"\b4x5 cells.*MixVPR.*\b20x20\b.*height.*\b5\b.*width.*\b4\b"),
        (SALAD(), ONLY_MAP, "SALAD.*token.*dinov2_vitb14"),
        (MegaLoc(), ONLY_MAP, "token.*dinov2_vitb14"),
        (SALAD(), FEATURES, r"\b4x5 cells.*\b64 clusters.*\b65 cells"),
        (SALAD(20), FEATURES, r"\b20 clusters.*\b21 cells"),
        (CricaVPR(), ONLY_MAP, "CricaVPR.*token.*dinov2_vitb14"),
        (CricaVPR(), FEATURES, r"\b4x5 cells.*\b12x12\b"),
        (CricaVPR(**{**CRICAVPR, "heads": 3}), FEATURES, r"\b8 dimensions.*\b3 heads"),
        (BoQ(dim=100), FEATURES, r"dim=100\b.*head_dim=64\b.*\b128\b"),
    ],
)
def test_what_cannot_work_is_told(head, features, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(head.init, jax.random.key(0), features)


def test_an_unknown_activation_lists_those_that_exist():
    with pytest.raises(ValueError, match=r"activation='tanh'.*\['gelu', 'relu'\]"):
        jax.eval_shape(EncoderLayer(8, 2, 8, "tanh").init, jax.random.key(0), MAP[:, 0])
