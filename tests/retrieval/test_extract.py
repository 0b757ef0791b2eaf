"""Extraction does not depend on batch size, order, padding or devices, and accounts for every image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType

from jaxvpr.errors import UserError
from jaxvpr.retrieval.extract import describe

COUNT = 53
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (COUNT, 6, 8, 3), np.uint8)
VARIABLES = {"kernel": RNG.normal(size=(3, 3, 3, 8)).astype(np.float32)}


def mesh(data, model):
    devices = np.array(jax.devices()[: data * model]).reshape(data, model)
    return jax.sharding.Mesh(devices, ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def apply(variables, images):
    x = images.astype(jnp.float32) / 255
    x = jax.lax.conv_general_dilated(x, variables["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    x = jax.nn.relu(x).mean(axis=(1, 2))
    return x / jnp.linalg.norm(x, axis=1, keepdims=True)


def batches(rows, size, bad=()):
    """Batches of `rows`, the last one padded, as a loader makes them."""
    for start in range(0, len(rows), size):
        part = np.array(rows[start : start + size])
        row = np.concatenate([part, np.full(size - len(part), -1)])
        mask = (row >= 0) & ~np.isin(row, bad)
        yield {"image": np.where(mask[:, None, None, None], IMAGES[row], 0).astype(np.uint8), "mask": mask, "row": row}


EXPECTED = np.asarray(apply(VARIABLES, IMAGES))


@settings(deadline=None, max_examples=12)
@given(st.sampled_from([1, 5, 16, 64]), st.sampled_from([(1, 1), (8, 1), (2, 4), (2, 1)]), st.integers(0, 99))
def test_independent_of_batches_order_and_devices(size, shape, seed):
    order = np.random.default_rng(seed).permutation(COUNT)
    result = describe(apply, VARIABLES, batches(order, size), COUNT, mesh(*shape))
    assert result.descriptors.dtype == np.float32
    np.testing.assert_allclose(result.descriptors, EXPECTED, atol=1e-5)
    assert not len(result.missing)


def test_a_short_last_batch_needs_no_padding_by_the_caller():
    parts = [
        {key: value[:n] for key, value in batch.items()}
        for batch, n in zip(batches(range(COUNT), 20), (20, 20, 13), strict=True)
    ]
    np.testing.assert_allclose(describe(apply, VARIABLES, parts, COUNT, mesh(8, 1)).descriptors, EXPECTED, atol=1e-5)


def test_compiled_once():
    traced = []

    def counting(variables, images):
        traced.append(images.shape)
        return apply(variables, images)

    for _ in range(2):
        describe(counting, VARIABLES, batches(range(COUNT), 10), COUNT, mesh(8, 1))
    assert traced == [(16, 6, 8, 3)]


def test_unreadable_images_are_reported_and_stay_zero():
    def divides_by_zero(variables, images):
        total = images.astype(jnp.float32).sum(axis=(1, 2))
        return total / total.sum(axis=1, keepdims=True)

    result = describe(divides_by_zero, {}, batches(range(COUNT), 8, bad=[3, 52]), COUNT, mesh(2, 4))
    assert result.missing.tolist() == [3, 52]
    assert (result.descriptors[[3, 52]] == 0).all()
    assert np.isfinite(result.descriptors).all() and (np.delete(result.descriptors, [3, 52], 0).sum(1) > 0.99).all()


@pytest.mark.parametrize("rows", [list(range(COUNT - 1)), [*range(COUNT), 7], [*range(COUNT - 1), 0]])
def test_dropped_or_doubled_images_are_errors(rows):
    seen = len(set(rows))
    with pytest.raises(RuntimeError, match=rf"\b{COUNT - seen} of {COUNT}\b.*\b{len(rows) - seen}\b"):
        describe(apply, VARIABLES, batches(rows, 8), COUNT, mesh(8, 1))


def test_nan_weights_and_empty_sets_are_the_users():
    with pytest.raises(UserError, match=r"image 0: .*not finite"):
        describe(apply, {"kernel": VARIABLES["kernel"] * np.nan}, batches(range(COUNT), 8), COUNT, mesh(8, 1))
    with pytest.raises(UserError, match="no images"):
        describe(apply, VARIABLES, [], 0, mesh(8, 1))


def test_reads_one_batch_ahead():
    """The second batch is asked for before the first result is fetched, and no later one is."""
    events = []

    def watched():
        for number, batch in enumerate(batches(range(40), 8)):
            events.append(("read", number))
            yield batch

    class Watching(np.ndarray):
        pass

    from jaxvpr.retrieval import extract

    fetch = extract._fetch

    def watched_fetch(result):
        events.append(("fetch", sum(event[0] == "fetch" for event in events)))
        return fetch(result)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extract, "_fetch", watched_fetch)
        describe(apply, VARIABLES, watched(), 40, mesh(8, 1))
    assert events[:5] == [("read", 0), ("read", 1), ("fetch", 0), ("read", 2), ("fetch", 1)]
    assert events[-1] == ("fetch", 4)
