"""Descriptors that stay on the devices are those that `describe` brings to the host."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines import shapes
from data_pipelines.places import Paths
from jaxvpr.builders import describing
from jaxvpr.errors import UserError
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.retrieval import cache as caches
from jaxvpr.retrieval.describer import Describer

COUNT = 53
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (COUNT, 6, 8, 3), np.uint8)
KERNEL = {"kernel": RNG.normal(size=(3, 5)).astype(np.float32)}
BAD = (0, 17, 52)


def apply(variables, images):
    """Unit vectors; not a number for an image that is black."""
    x = images.astype(jnp.float32).mean(axis=(1, 2)) @ variables["kernel"]
    return x / jnp.linalg.norm(x, axis=1, keepdims=True)


EXPECTED = np.asarray(apply(KERNEL, IMAGES))


def mesh(devices, model=1):
    return make_mesh(model, jax.devices()[:devices])


def batches(size, bad=(), order=range(COUNT)):
    """Batches in order, the last one padded; what cannot be read is black."""
    for start in range(0, len(order), size):
        part = np.array(order[start : start + size])
        row = np.concatenate([part, np.full(size - len(part), -1)])
        mask = (row >= 0) & ~np.isin(row, bad)
        yield {"image": np.where(mask[:, None, None, None], IMAGES[row], 0).astype(np.uint8), "mask": mask, "row": row}


def rows_of(cache):
    """All places of a cache in the order of its rows."""
    return np.asarray(cache.descriptors).reshape(-1, cache.descriptors.shape[2]), np.asarray(cache.present).ravel()


@pytest.mark.parametrize(("devices", "model", "batch"), [(1, 1, 5), (8, 2, 16), (2, 1, 64)])
def test_every_image_has_its_row(devices, model, batch):
    cache = caches.fill(apply, KERNEL, batches(batch, BAD), COUNT, mesh(devices, model), batch)
    assert cache.descriptors.shape[1:] == (batch, 5) and cache.descriptors.dtype == np.float32
    assert cache.mesh == mesh(devices, model) and cache.count == COUNT
    for shard in cache.descriptors.addressable_shards:
        assert shard.data.shape[1] == batch // devices, "each device holds its part of every batch"
    descriptors, present = rows_of(cache)
    assert np.flatnonzero(~present[:COUNT]).tolist() == cache.missing.tolist() == list(BAD)
    assert not present[COUNT:].any() and not descriptors[~present].any()
    read = np.setdiff1d(np.arange(COUNT), BAD)
    np.testing.assert_allclose(descriptors[read], EXPECTED[read], atol=1e-6)


def test_sets_of_about_one_size_are_cached_in_one_shape():
    held = [caches._few_sizes(needed) for needed in range(1, 5000)]
    assert held[:31] == list(range(1, 32))
    assert all(needed <= size <= needed * 17 / 16 for needed, size in enumerate(held, start=1))
    assert len(set(held)) < 150


def test_what_is_wrong_is_told():
    with pytest.raises(UserError, match=r"image 0 and 7 more: .*not finite"):
        caches.fill(apply, {"kernel": KERNEL["kernel"] * np.nan}, batches(8), COUNT, mesh(8), 8)
    black = IMAGES.copy()
    black[[31, 20]] = 0
    parts = [{**part, "image": np.where(part["row"][:, None, None, None] < 0, 0, black[part["row"]])}
             for part in batches(8)]  # fmt: skip
    with pytest.raises(UserError, match=r"image 20: .*not finite"):
        caches.fill(apply, KERNEL, parts, COUNT, mesh(8), 8)
    with pytest.raises(UserError, match="no images"):
        caches.fill(apply, KERNEL, [], 0, mesh(8), 8)
    turned = [1, 0, *range(2, COUNT)]
    for order, misplaced in ((turned, 2), (range(COUNT - 1), 1), (range(8), 0)):
        with pytest.raises(RuntimeError, match=rf"\b53 images.*\b{misplaced}\b"):
            caches.fill(apply, KERNEL, batches(8, order=order), COUNT, mesh(8), 8)


@pytest.fixture
def folder(tmp_path):
    """Images of three shapes, one of them unreadable."""
    for row in range(21):
        size = (5 + 2 * (row % 3), 9, 3)
        cv2.imwrite(str(tmp_path / f"{row:02d}.png"), np.random.default_rng(row).integers(1, 256, size, np.uint8))
    (tmp_path / "07.png").write_bytes(b"no image")
    return Paths.of(sorted(str(file) for file in tmp_path.iterdir()))


@pytest.mark.parametrize(
    "image", [{"size": (6, 6), "resize": "area"}, {"size": (6, 6), "resize": "tensor_linear"}, {"size": ()}]
)
def test_the_describer_keeps_what_it_would_give(image, folder, tiny_config, caplog):
    config = tiny_config.copy_and_resolve_references()
    config.image.update(image)
    config.eval.batch, config.loader.on_error = 2, "skip"  # 8 images on 4 devices
    traced = []

    def counted(variables, images):
        traced.append(images.shape)
        return apply(variables, images)

    describer = Describer(counted, mesh(4, 2), **describing(config))
    given = describer(KERNEL, folder)
    compiled = len(traced)
    cache = describer.on_mesh(KERNEL, folder)
    few = describer.on_mesh(KERNEL, folder.take(np.arange(3)))
    assert len(traced) == compiled or not image["size"], "the model is compiled once for both"
    descriptors, present = rows_of(cache)
    assert cache.descriptors.shape[1] == 8 and cache.count == 21 and few.count == 3
    assert np.flatnonzero(~present[:21]).tolist() == given.missing.tolist() == [7]
    np.testing.assert_allclose(descriptors[:21], given.descriptors, atol=1e-6)
    np.testing.assert_allclose(rows_of(few)[0][:3], given.descriptors[:3], atol=1e-6)
    assert "1 of 21 images could not be read" in caplog.text


@pytest.mark.parametrize("image", [{"size": (6, 6), "resize": "area"}, {"size": ()}])
def test_a_photo_whose_descriptor_is_not_finite_is_named(image, folder, tiny_config):
    config = tiny_config.copy_and_resolve_references()
    config.image.update(image)
    config.eval.batch, config.loader.on_error = 1, "skip"

    def overflowing(variables, images):
        return jnp.full((len(images), 2), jnp.exp(variables["scale"] * images.astype(jnp.float32).max()))

    describer = Describer(overflowing, mesh(4), **describing(config))
    for describe in (describer, describer.on_mesh):
        with pytest.raises(UserError, match=rf"^{folder[0]}( and \d+ more)?: .*not finite"):
            describe({"scale": np.float32(10)}, folder)


def test_images_of_several_sizes_are_all_described_once(folder, tiny_config, monkeypatch):
    """A plan that reads row 3 twice and row 5 never, as a mistake in grouping would."""
    config = tiny_config.copy_and_resolve_references()
    config.image.update({"size": ()})
    config.eval.batch, config.loader.on_error = 2, "skip"
    describer = Describer(apply, mesh(4), **describing(config))
    plan = shapes.plan

    def wrong(*arguments, **options):
        found = plan(*arguments, **options)
        for mixed in found:
            for chunk in mixed.chunks:
                chunk.rows[chunk.rows == 5] = 3
        return found

    monkeypatch.setattr(shapes, "plan", wrong)
    with pytest.raises(RuntimeError, match="21 images were read for 19 of 21 rows"):
        describer.on_mesh(KERNEL, folder)
