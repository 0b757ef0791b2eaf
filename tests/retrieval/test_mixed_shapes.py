"""Images of several shapes in one set: each is described as if it were alone, whatever the batches and devices."""

import logging
import re

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import DataError
from data_pipelines.images import ImageError, decode
from data_pipelines.places import Paths
from jaxvpr.builders import describing
from jaxvpr.errors import UserError
from jaxvpr.models import join, resizing
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.retrieval.baselines import thumbnail
from jaxvpr.retrieval.describer import Describer

# In this order: the 45 x 61 are fewer than a batch, the 60 x 40 more.
SIZES = [(60, 40)] * 5 + [(45, 61), (60, 40), (33, 33), (45, 61)] + [(60, 40)] * 6
TENSOR = {"size": (32, 48), "resize": "tensor_bicubic_antialias"}
CROPPED = {"size": (31, 47), "multiple": 14, "crop": True}
WAYS = {
    "on the device": TENSOR,
    "on the device, to a multiple": {"size": (30, 44), "resize": "tensor_linear", "multiple": 14},
    "own sizes": {"size": ()},
    "own sizes to multiples on the device": {"size": (), "multiple": 14, "resize": "tensor_linear_antialias"},
    "own sizes to multiples on the host": {"size": (), "multiple": 14, "resize": "pil_bicubic"},
    "cropped on the device": CROPPED | {"resize": "tensor_linear"},
    "cropped on the host": CROPPED | {"resize": "pil_bilinear"},
    "own sizes cropped": CROPPED | {"size": (), "resize": "tensor_linear"},
}
# Where torchvision's CenterCrop begins, int(round(half of what is left over)) with halves to the even side: in the
# images of `SIZES` at their own size.
CORNERS = {(60, 40): (2, 6), (45, 61): (2, 2), (33, 33): (2, 2)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """PNGs of `SIZES`."""
    root = tmp_path_factory.mktemp("mixed")
    for number, size in enumerate(SIZES):
        small = np.random.default_rng(number).integers(0, 256, (5, 6, 3), np.uint8)
        cv2.imwrite(str(root / f"{number:02d}.png"), cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC))
    return root


@pytest.fixture
def config(tiny_config):
    changed = tiny_config.copy_and_resolve_references()
    changed.eval.batch = 1  # of each device
    return changed


def paths_of(folder):
    return Paths.of(sorted(str(file) for file in folder.iterdir()))


VARIABLES = {"kernel": np.random.default_rng(0).normal(size=(3, 3, 3, 8)).astype(np.float32)}


def apply(variables, images):
    """A network of one layer that takes images of any size."""
    x = images.astype(jnp.float32) / 255
    x = jax.lax.conv_general_dilated(x, variables["kernel"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    x = jax.nn.relu(x).mean(axis=(1, 2))
    return x / jnp.linalg.norm(x, axis=1, keepdims=True)


def described(config, images, devices=8, **kind):
    """Descriptors by that network with the preprocessing `kind`."""
    config.image.update(kind)
    return Describer(apply, make_mesh(devices=jax.devices()[:devices]), **describing(config))(VARIABLES, images)


@pytest.mark.parametrize("way", WAYS)
def test_a_folder_of_mixed_shapes_equals_its_images_one_by_one(way, config, folder):
    paths = paths_of(folder)
    together = described(config, paths, **WAYS[way])
    alone = [described(config, Paths.of([paths[row]]), **WAYS[way]).descriptors[0] for row in (0, 5, 7, 14)]
    assert not len(together.missing)
    np.testing.assert_allclose(np.linalg.norm(together.descriptors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(together.descriptors[[0, 5, 7, 14]], alone, atol=1e-5)
    in_memory = described(config, [decode(path) for path in paths], **WAYS[way])
    np.testing.assert_allclose(in_memory.descriptors, together.descriptors, atol=1e-6)


@pytest.mark.parametrize("way", ["on the device", "own sizes"])
def test_one_device_equals_eight(way, config, folder):
    one, eight = (described(config, paths_of(folder), devices, **WAYS[way]).descriptors for devices in (1, 8))
    np.testing.assert_allclose(one, eight, atol=1e-5)


@pytest.mark.torch
def test_the_model_sees_what_torch_makes_of_the_image(config, folder):
    import torch

    paths = paths_of(folder)
    found = described(config, paths, **TENSOR).descriptors
    for row in (0, 5, 7):
        image = torch.from_numpy(decode(paths[row])).permute(2, 0, 1)[None].float()
        seen = torch.nn.functional.interpolate(image, TENSOR["size"], mode="bicubic", antialias=True)
        wanted = apply(VARIABLES, seen.permute(0, 2, 3, 1).numpy())
        np.testing.assert_allclose(found[row], wanted[0], atol=1e-5)


def crop(image, top, left):
    """The largest multiples of 14 from there, of an array [H, W, 3]."""
    height, width = (side // 14 * 14 for side in image.shape[:2])
    return image[top : top + height, left : left + width]


@pytest.mark.torch
@pytest.mark.parametrize("rule", ["tensor_linear", "pil_bilinear"])
def test_the_model_sees_the_middle_of_the_resized_image(rule, config, folder):
    """31 x 47 has a border of 3 and 5 pixels around 28 x 42: two above and two to the left."""
    import torch

    paths = paths_of(folder)
    found = described(config, paths, **CROPPED, resize=rule).descriptors
    for row in (0, 5, 7):
        image = decode(paths[row])
        if rule == "pil_bilinear":
            resized = np.array(Image.fromarray(image).resize((47, 31), Image.Resampling.BILINEAR))
        else:
            stacked = torch.from_numpy(image).permute(2, 0, 1)[None].float()
            resized = torch.nn.functional.interpolate(stacked, (31, 47), mode="bilinear")[0].permute(1, 2, 0).numpy()
        seen = crop(resized, 2, 2)
        assert seen.shape == (28, 42, 3)
        np.testing.assert_allclose(found[row], apply(VARIABLES, seen[None])[0], atol=1e-5)


@pytest.mark.parametrize("rule", ["tensor_linear", "area"])
def test_the_model_sees_the_middle_of_each_image_as_it_is(rule, config, folder):
    paths = paths_of(folder)
    found = described(config, paths, **(CROPPED | {"size": (), "resize": rule})).descriptors
    for row, size in enumerate(SIZES):
        seen = crop(decode(paths[row]), *CORNERS[size])
        np.testing.assert_allclose(found[row], apply(VARIABLES, seen[None])[0], atol=1e-5)


def test_an_image_that_is_too_small_to_be_cropped_is_named(config, folder):
    kind = {"size": (), "multiple": 34, "crop": True}
    with pytest.raises(DataError, match=r"07\.png.*\b33x33\b.*\b34\b"):
        described(config, paths_of(folder), **kind)
    with pytest.raises(DataError, match=r"\bimage 1\b.*\b20x50\b"):
        described(config, [np.zeros((40, 50, 3), np.uint8), np.zeros((20, 50, 3), np.uint8)], **kind)


def test_an_image_that_is_too_small_for_the_model_is_named_before_anything_is_computed(config, folder):
    """SALAD needs one cell more than it has clusters. The variables are shapes alone: nothing could be computed."""
    network = join(
        backbone="dinov2_vits14",
        aggregator="salad",
        backbone_options={"depth": 1, "width": 12, "heads": 2},
        aggregator_options={"clusters": 4, "cluster_dim": 2, "token_dim": 2, "hidden": 2},
    )
    config.image.update(size=(), multiple=14, resize="pil_bilinear")
    variables = jax.eval_shape(network.init, jax.random.key(0), np.zeros((1, 42, 42, 3), np.uint8))
    describer = Describer(network.apply, make_mesh(), **describing(config))
    with pytest.raises(UserError, match=r"07\.png, .* at 28x28 pixels: a map of 2x2 cells for 4 clusters.*image\.size"):
        describer(variables, paths_of(folder))
    with pytest.raises(UserError, match="image 1, shown to the model at 14x28"):
        describer(variables, [np.zeros((42, 42, 3), np.uint8), np.zeros((20, 30, 3), np.uint8)])


@pytest.mark.parametrize(
    ("kind", "shapes"),
    [
        (TENSOR, [(8, 32, 48)]),
        ({"size": ()}, [(8, 33, 33), (8, 45, 61), (8, 60, 40)]),
        ({"size": (), "multiple": 20, "resize": "tensor_linear"}, [(8, 40, 40), (8, 40, 60), (8, 60, 40)]),
        (CROPPED | {"resize": "tensor_linear"}, [(8, 28, 42)]),
    ],
)
def test_the_model_is_compiled_once_for_each_size_it_is_shown(kind, shapes, config, folder, caplog):
    config.image.update(kind)
    traced = []

    def mean_colour(variables, images):
        traced.append(images.shape[:3])
        return images.astype(jnp.float32).mean(axis=(1, 2)) + variables["zero"]

    describer = Describer(mean_colour, make_mesh(), **describing(config))
    with caplog.at_level(logging.INFO, "jaxvpr"):
        for _ in range(2):
            found = describer({"zero": np.zeros((1, 3), np.float32)}, paths_of(folder))
    assert traced == shapes
    assert f"15 images, sizes: 3, sizes shown to the model: {len(shapes)}" in caplog.text
    own = [decode(path).mean(axis=(0, 1)) for path in paths_of(folder)]
    np.testing.assert_allclose(found.descriptors, own, atol=0.05 if not kind["size"] and "multiple" not in kind else 12)


def test_thumbnails_of_images_resized_on_the_device(config, folder):
    config.image.update(TENSOR)
    describer = Describer(apply, make_mesh(), **describing(config))
    images = np.stack([resizing.resize(decode(path)[None], TENSOR["size"], TENSOR["resize"])[0]
                       for path in paths_of(folder)])  # fmt: skip
    found = describer({}, paths_of(folder), thumbnail).descriptors
    np.testing.assert_allclose(found, thumbnail({}, images), atol=1e-5)


def damage(folder, where, how):
    """A copy of the folder with one bad file."""
    where.mkdir()
    for file in sorted(folder.iterdir()):
        (where / file.name).write_bytes(file.read_bytes())
    bad = where / "06.png"
    data = bytearray(bad.read_bytes())
    if how == "cut short":
        bad.write_bytes(data[: len(data) // 2])
    else:  # the header and the end are whole
        middle = len(data) // 2
        data[middle : middle + 8] = bytes(8 * [data[middle] ^ 0xFF])
        bad.write_bytes(data)
    return bad


@pytest.mark.parametrize("how", ["cut short", "damaged inside"])
@pytest.mark.parametrize("way", ["on the device", "own sizes"])
def test_a_bad_file_in_the_middle(way, how, config, folder, tmp_path, caplog):
    bad = damage(folder, tmp_path / "bad", how)
    with pytest.raises(ImageError, match=re.escape(str(bad))):
        described(config, paths_of(bad.parent), **WAYS[way])
    config.loader.on_error = "skip"
    found = described(config, paths_of(bad.parent), **WAYS[way])
    assert found.missing.tolist() == [6] and not found.descriptors[6].any()
    assert f"left out: {bad}" in caplog.text and "1 of 15 images could not be read" in caplog.text
    whole = described(config, paths_of(folder), **WAYS[way]).descriptors
    np.testing.assert_allclose(np.delete(found.descriptors, 6, 0), np.delete(whole, 6, 0), atol=1e-5)


def test_nothing_but_bad_files(config, folder, tmp_path):
    bad = damage(folder, tmp_path / "bad", "cut short")
    config.loader.on_error = "skip"
    found = described(config, Paths.of([str(bad)]), **TENSOR)
    assert found.missing.tolist() == [0] and not found.descriptors.any()
    with pytest.raises(UserError, match="no images"):
        described(config, Paths.of([]), **TENSOR)


def across(variables, images):
    """Each image's mean colour, and that of its batch."""
    own = images.astype(jnp.float32).mean((1, 2)) / 255
    return jnp.concatenate([own, jnp.broadcast_to(own.mean(0), own.shape)], 1)


@pytest.mark.parametrize("rule", ["area", "tensor_linear"])
def test_a_model_that_looks_across_the_batch_sees_no_blank_image(rule, tiny_config):
    rng = np.random.default_rng(5)
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in ((30, 40), (50, 20), (30, 40), (33, 44), (50, 20))]
    config = tiny_config.copy_and_resolve_references().unlock()
    config.image.update(size=(32, 32), resize=rule)
    config.eval.batch = 3
    one = make_mesh(devices=jax.devices()[:1])
    found = Describer(across, one, **describing(config), depends_on_batch=True)({}, images).descriptors
    alone = Describer(lambda v, x: x.astype(jnp.float32).mean((1, 2)) / 255, one, **describing(config))(
        {}, images
    ).descriptors
    expected = [*[alone[:3].mean(0)] * 3, *[alone[3:].mean(0)] * 2]
    np.testing.assert_allclose(found[:, :3], alone, atol=1e-5)
    np.testing.assert_allclose(found[:, 3:], expected, atol=1e-5)
