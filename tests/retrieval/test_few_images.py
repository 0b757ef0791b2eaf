"""Few images are described in a small batch: the same descriptors, in few sizes that the model is compiled for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.places import Paths, Places
from jaxvpr.builders import describing
from jaxvpr.errors import UserError
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.retrieval.describer import Describer
from jaxvpr.retrieval.evaluator import benchmark, measure

BATCH = 16
IMAGES = [np.random.default_rng(row).integers(0, 256, (20 + row % 2, 30, 3), np.uint8) for row in range(2 * BATCH + 3)]
VARIABLES = {"kernel": np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)}
WAYS = {
    "one size": {"size": (12, 18), "resize": "area"},
    "resized on the device": {"size": (12, 18), "resize": "tensor_linear"},
}


def apply(variables, images):
    descriptors = (images.astype(jnp.float32) / 255).mean(axis=(1, 2)) @ variables["kernel"]
    return descriptors / jnp.linalg.norm(descriptors, axis=1, keepdims=True)


@pytest.fixture
def watched(tiny_config):
    """A describer on so many devices, and the batches that its model was compiled for: watched(2, image) -> both."""

    def make(devices, image):
        config = tiny_config.copy_and_resolve_references()
        config.image.update(image)
        config.eval.batch = -(-BATCH // devices)  # of each device
        compiled = []

        def traced(variables, images):
            compiled.append(len(images))
            return apply(variables, images)

        return Describer(traced, make_mesh(devices=jax.devices()[:devices]), **describing(config)), compiled

    return make


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("devices", "sizes"), [(1, [1, 2, 4, 8, 16]), (2, [2, 4, 8, 16]), (6, [6, 12, 18])])
def test_every_number_of_images_in_few_sizes(devices, sizes, way, watched):
    describer, compiled = watched(devices, WAYS[way])
    alone = np.concatenate([describer(VARIABLES, [image]).descriptors for image in IMAGES])
    for count in range(1, len(IMAGES) + 1):
        found = describer(VARIABLES, IMAGES[:count])
        np.testing.assert_allclose(found.descriptors, alone[:count], atol=1e-6)
        enough = next((number for number, size in enumerate(sizes, 1) if size >= count), len(sizes))
        assert compiled == sizes[:enough], "each once, when it is first needed"


@pytest.mark.parametrize("way", WAYS)
def test_a_set_of_few_shares_the_size_of_the_one_beside_it(way, watched):
    describer, compiled = watched(1, WAYS[way])
    describer(VARIABLES, IMAGES[:3], sized_for=len(IMAGES))
    describer(VARIABLES, IMAGES[:3], sized_for=6)
    describer(VARIABLES, IMAGES[:3], sized_for=2)
    assert compiled == [16, 8, 4]


def test_a_benchmark_of_few_queries_compiles_the_model_once(photo_tree, watched):
    folder = photo_tree / "images" / "test" / "database"
    paths = Paths.of(sorted(str(file) for file in folder.iterdir())[:23])
    places = Places.create("few", paths, east=range(23), north=[0] * 23, role=[0] * 20 + [1] * 3)
    describer, compiled = watched(1, WAYS["one size"])
    measure(describer, VARIABLES, benchmark("few", places, "test", ("25m",)), (1,))
    assert compiled == [16]


@pytest.mark.parametrize("way", WAYS)
def test_a_batch_that_needs_too_much_memory_is_told_with_the_one_that_fits(way, watched):
    """As the compiler of a TPU says it."""

    def too_large(variables, images):
        if len(images) > 8:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 9.9G")
        return apply(variables, images)

    describer, _ = watched(2, WAYS[way])
    words = r"batch=8 needs more memory.*\(Ran out .*9\.9G\).*=8 takes too much, .*=4 takes .* --config\.eval\.batch=4$"
    with pytest.raises(UserError, match=words):
        describer(VARIABLES, IMAGES, too_large)
