"""Pooling, VLAD and whitening beside NumPy loops over cells, regions and clusters; sizes that originals refuse."""

from functools import partial
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvpr.models import AGGREGATORS, join
from jaxvpr.models.aggregators.crn import CRN, Context
from jaxvpr.models.aggregators.gem import GeM
from jaxvpr.models.aggregators.pooling import MAC, RMAC, SPoC, regions
from jaxvpr.models.aggregators.projections import FC, Whiten
from jaxvpr.models.aggregators.vlad import VLAD, NetVLAD
from jaxvpr.models.features import Features

RNG = np.random.default_rng(0)
MAP = RNG.normal(size=(2, 6, 9, 5)).astype(np.float32)


# Optimising these programs would take longer than running them.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def unit(x):
    return x / np.linalg.norm(x)


def random_params(module, x):
    """Parameters between 0.01 and 1, drawn without compiling an initialisation."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)["params"]
    return jax.tree.map(lambda leaf: RNG.uniform(0.01, 1, leaf.shape).astype(leaf.dtype), shapes)


def describe(module, params, x):
    return np.asarray(jit(module.apply)({"params": params}, x))


def test_mean_and_maximum_by_hand():
    x = np.array([[1, -8], [4, 2], [0, 0], [3, -6]], np.float32).reshape(1, 2, 2, 2)
    np.testing.assert_allclose(SPoC().apply({}, Features(x)), [[2, -3]])
    np.testing.assert_allclose(MAC().apply({}, Features(x)), [[4, 2]])
    cells = [unit(cell) for cell in ([1, -8], [4, 2], [3, -6])]
    np.testing.assert_allclose(SPoC(l2_before=True).apply({}, Features(x))[0], np.sum(cells, 0) / 4, rtol=1e-5)
    np.testing.assert_allclose(MAC(l2_before=True).apply({}, Features(x))[0], np.max([*cells, [0, 0]], 0), rtol=1e-5)


def test_the_regions_of_a_map_by_hand():
    # 30x40 cells: one more region along the width than along the height, 3 levels of sides 30, 20 and 15.
    level = {side: {(top, left) for top, left, s in regions(30, 40, 3) if s == side} for side in (30, 20, 15)}
    assert level[30] == {(0, 0), (0, 10)}
    assert level[20] == {(top, left) for top in (0, 10) for left in (0, 10, 20)}
    assert level[15] == {(top, left) for top in (0, 7, 15) for left in (0, 8, 16, 25)}
    turned = sorted((left, top, side) for top, left, side in regions(40, 30, 3))
    assert turned == sorted(regions(30, 40, 3))
    assert list(regions(4, 4, 1)) == [(0, 0, 4)]
    assert list(regions(1, 1, 3)) == [(0, 0, 1)], "a region of no cells is none"


@pytest.mark.parametrize("shape", [(30, 40), (7, 7), (5, 23), (1, 3)])
def test_regions_lie_in_the_map_and_reach_its_ends(shape):
    found = list(regions(*shape, 3))
    for size, axis in zip(shape, (0, 1), strict=True):
        assert min(region[axis] for region in found) == 0
        assert max(region[axis] + region[2] for region in found) == size


def test_rmac_is_the_sum_of_unit_maxima():
    for image, got in zip(MAP, describe(RMAC(), {}, Features(MAP)), strict=True):
        total = unit(image.reshape(-1, 5).max(0))
        for top, left, side in regions(6, 9, 3):
            best = np.full(5, -np.inf)
            for row in range(top, top + side):
                for column in range(left, left + side):
                    best = np.maximum(best, image[row, column])
            total = total + unit(best)
        np.testing.assert_allclose(got, total, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hard", [False, True])
def test_vlad_is_a_sum_of_residuals(hard):
    centroids = RNG.normal(size=(4, 5)).astype(np.float32)
    kernel, bias = RNG.normal(size=(1, 1, 5, 4)).astype(np.float32), RNG.normal(size=4).astype(np.float32)
    module = VLAD(4, assign="l2") if hard else NetVLAD(4, bias=True)
    params = {"centroids": centroids} | ({} if hard else {"conv": {"kernel": kernel, "bias": bias}})
    for image, got in zip(MAP, describe(module, params, Features(MAP)), strict=True):
        blocks = np.zeros((4, 5))
        for cell in image.reshape(-1, 5):
            x = unit(cell)
            scores = np.exp(x @ kernel[0, 0] + bias)
            nearest = np.argmin([np.linalg.norm(x - c) for c in centroids])
            for k in range(4):
                share = float(k == nearest) if hard else scores[k] / scores.sum()
                blocks[k] += share * (x - centroids[k])
        expected = np.concatenate([unit(block) if block.any() else block for block in blocks])
        np.testing.assert_allclose(got, unit(expected), atol=1e-5)


def test_a_cluster_of_almost_no_weight_counts_as_the_original_counts_it():
    """PyTorch divides by any length down to 1e-12: the block of a far cluster is as long as that of a near one."""
    x = np.array([[1, 0], [0.8, 0.6]], np.float32).reshape(1, 1, 2, 2)
    kernel = np.array([[0, -18], [0, 0]], np.float32).reshape(1, 1, 2, 2)
    params = {"conv": {"kernel": kernel}, "centroids": np.array([[0, 1], [1, 1]], np.float32)}
    got = describe(NetVLAD(2), params, Features(x))
    np.testing.assert_allclose(np.linalg.norm(got.reshape(2, 2), axis=1), np.sqrt(0.5), rtol=1e-3)


def test_vlad_never_holds_every_residual():
    x = jax.ShapeDtypeStruct((2, 30, 40, 32), jnp.float32)
    for name in ("netvlad", "crn", "vlad", "supervlad"):
        module = AGGREGATORS[name](clusters=64)
        variables = jax.eval_shape(module.init, jax.random.key(0), Features(x))
        program = jax.make_jaxpr(jax.grad(lambda v, x, m=module: jnp.sum(m.apply(v, Features(x)))))(variables, x)
        sizes = [prod(v.aval.shape) for equation in program.jaxpr.eqns for v in equation.outvars]
        assert max(sizes) <= 2 * 30 * 40 * 84, f"{name} holds an array of {max(sizes)} numbers"


def test_the_mask_of_a_crn_covers_maps_of_any_sides():
    for shape in ((6, 9), (1, 1)):
        x = np.abs(RNG.normal(size=(1, *shape, 4))).astype(np.float32)
        mask = describe(Context(), random_params(Context(), x), x)
        assert mask.shape == (1, *shape, 1) and mask.min() > 0


def test_a_crn_whose_mask_is_flat_is_a_netvlad():
    module, features = CRN(3), Features(MAP)
    params = random_params(module, features)
    blind = jax.tree.map(np.zeros_like, params["crn"])
    blind["acc_w"]["bias"] = np.ones(1, np.float32)
    own = {name: params[name] for name in ("conv", "centroids")}
    plain = describe(NetVLAD(3), own, features)
    np.testing.assert_allclose(describe(module, {**params, "crn": blind}, features), plain, atol=1e-5)
    assert np.abs(describe(module, params, features) - plain).max() > 1e-3


def test_whitening_evens_out_the_variances():
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(4000, 1, 1, 6)) * [3, 2, 1, 0.5, 0.3, 0.1] + [1, 0, 0, 2, 0, 0]
    x = np.array([unit(v) for v in vectors.reshape(-1, 6)], np.float32)
    variances, turn = np.linalg.eigh(np.cov(x.T))
    pca = {"mean_": x.mean(0), "components_": turn.T[::-1], "explained_variance_": variances[::-1]}
    pca = {name: np.ascontiguousarray(value, np.float32) for name, value in pca.items()}
    features = Features(vectors.astype(np.float32))
    full = Whiten(SPoC(), power=0.5).apply({"params": pca}, features)
    np.testing.assert_allclose(np.cov(full.T), np.eye(6), atol=0.01)
    short = {name: value[:2] if name != "mean_" else value for name, value in pca.items()}
    kept = Whiten(SPoC(), dim=2, power=0.0).apply({"params": short}, features)
    np.testing.assert_allclose(np.var(kept, 0, ddof=1), variances[::-1][:2], rtol=1e-3)
    np.testing.assert_allclose(Whiten(SPoC()).init_with_output(jax.random.key(0), features)[0], x, atol=1e-6)


def test_a_linear_layer_stands_behind_any_aggregator():
    for l2 in (False, True):
        module, features = FC(GeM(), 3, l2=l2), Features(MAP)
        params = random_params(module, features)
        pooled = describe(GeM(), params["inner"], features)
        pooled = np.stack([unit(v) for v in pooled]) if l2 else pooled
        expected = pooled @ params["fc"]["kernel"] + params["fc"]["bias"]
        np.testing.assert_allclose(describe(module, params, features), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("aggregator", "options", "message"),
    [
        ("vlad", {"assign": "dot"}, r"assign='dot'.*\['cosine', 'l2'\]"),
        ("whiten", {"dim": 9, "inner": {"aggregator": "spoc"}}, r"dim=9\b.*\b5 numbers.*\b5\b"),
        ("fc", {"inner": {"aggregator": "maximum"}}, r"aggregator.*'maximum'.*\['boq'"),
        (
            "fc",
            {"inner": {"aggregator": "gem", "aggregator_options": {"q": 1}}},
            r"aggregator.*'gem'.*option.*\['q'\]",
        ),
        ("fc", {"inner": {"name": "gem"}}, r"inner=\{'name': 'gem'\}.*'aggregator'.*'aggregator_options'"),
        ("netvlad", {"words": 3}, r"aggregator.*'netvlad'.*option.*\['words'\].*\['clusters'"),
    ],
)
def test_mistakes_are_told(aggregator, options, message):
    with pytest.raises(ValueError, match=message):
        module = join(backbone="squeezenet", aggregator=aggregator, aggregator_options=options).aggregator
        jax.eval_shape(module.init, jax.random.key(0), Features(MAP))
