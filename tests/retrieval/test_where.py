"""Descriptors on the devices give what descriptors on the host give, and which of the two it is."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.places import ROLES, Paths, Places
from jaxvpr.builders import describing
from jaxvpr.errors import UserError
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.retrieval import where
from jaxvpr.retrieval.cache import Cache
from jaxvpr.retrieval.describer import Describer
from jaxvpr.retrieval.evaluator import benchmark, measure
from jaxvpr.retrieval.extract import Described
from jaxvpr.retrieval.where import Where, nearest

HOST, MESH = Where("host"), Where("mesh")


def mesh(devices, model=1):
    return make_mesh(model, jax.devices()[:devices])


def small(variables, images):
    """Descriptors of the mean colour, 3 integers, so that many distances are equal and all are exact."""
    return jnp.round(images.astype(jnp.float32).mean(axis=(1, 2)) / 64)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """43 database images and 9 queries of two sizes; database images 5 and 42, and query 2, cannot be read."""
    folder, rng = tmp_path_factory.mktemp("bench"), np.random.default_rng(0)
    for row in range(52):
        image = np.broadcast_to(rng.integers(0, 256, 3, np.uint8), (6 + 2 * (row % 2), 8, 3))
        cv2.imwrite(str(folder / f"{row:02d}.png"), image)
    for row in (5, 42, 45):
        (folder / f"{row:02d}.png").write_bytes(b"no image")
    roles = ["database"] * 43 + ["query"] * 9
    at = np.concatenate([np.arange(43) * 10.0, np.arange(9) * 50.0 + 5])
    files = Paths.of([f"{row:02d}.png" for row in range(52)], str(folder))
    places = Places.create("row", files, east=at, north=np.zeros(52), role=[ROLES.index(role) for role in roles])
    return benchmark("row", places, "test", ("25m",))


@pytest.mark.parametrize(("devices", "model"), [(1, 1), (8, 2)])
@pytest.mark.parametrize("image", [{"size": (6, 6), "resize": "area"}, {"size": ()}])
def test_an_evaluation_is_the_same_on_the_host_and_on_the_devices(bench, tiny_config, devices, model, image):
    """43 rows are split over 8 devices, 6 each at most, and 20 are asked for: more than any device has."""
    config = tiny_config.copy_and_resolve_references()
    config.image.update(image)
    config.eval.batch, config.loader.on_error = 4, "skip"
    describer = Describer(small, mesh(devices, model), **describing(config))
    host, there = (measure(describer, {}, bench, (1, 5, 20), where=way) for way in (HOST, MESH))
    np.testing.assert_array_equal(there.predictions, host.predictions)
    np.testing.assert_array_equal(there.distances, host.distances)
    assert not np.isin([5, 42], there.predictions).any() and (there.predictions[2] == -1).all()
    assert len(np.unique(host.distances[0])) < 20, "with ties"
    assert there.recalls["25m"].of_all == host.recalls["25m"].of_all
    assert (there.dimension, there.missing) == (host.dimension, host.missing) == (3, 3)


@pytest.mark.parametrize(("devices", "model"), [(1, 1), (8, 2)])
@pytest.mark.parametrize("count", [3, 83])
def test_a_file_is_searched_the_same_on_the_host_and_on_the_devices(tmp_path, devices, model, count):
    rng = np.random.default_rng(count)
    values = rng.integers(0, 4, (count, 3)).astype(np.float32)
    values[[0, count - 1]] = 0  # not read
    np.save(tmp_path / "places.npy", values)
    file = np.load(tmp_path / "places.npy", mmap_mode="r")
    asked = rng.integers(0, 4, (7, 3)).astype(np.float32)
    host, there = (way.kept("places.npy", file, mesh(devices, model)) for way in (HOST, MESH))
    assert isinstance(host, Described) and isinstance(there, Cache)
    assert host.missing.tolist() == there.missing.tolist() == np.flatnonzero(~values.any(axis=1)).tolist()
    for found, expected in zip(nearest(there, asked, 15), nearest(host, asked, 15), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_how_large_a_database_goes_to_the_devices(monkeypatch, caplog):
    """SF-XL's: 2.8 million of 8,448 numbers are 94,617,600,000 bytes, 88.1 GiB. An eighth of them with a sixteenth more
    is 11.7 GiB, and the search takes one beside."""
    sf_xl = "sf_xl", 2_800_000, lambda: 8448, mesh(8)
    monkeypatch.setattr(where, "_host_bytes", lambda: 64 * 2**30)
    assert Where().on_mesh(*sf_xl) and MESH.on_mesh(*sf_xl), "what a device has is not known on a CPU"
    assert not HOST.on_mesh(*sf_xl)
    assert not Where().on_mesh("small", 2**20, lambda: 1024, mesh(8)), "4 GiB"
    assert Where().on_mesh("large", 2**20 + 1, lambda: 1024, mesh(8))
    assert Where(host_mib=1).on_mesh("large", 257, lambda: 1024, mesh(8))
    assert not Where().on_mesh("tiny", 8192, pytest.fail, mesh(8)), "of so few no descriptors are 4 GiB"
    monkeypatch.setattr(where, "_free_mib", lambda mesh: 13 * 1024)
    assert Where().on_mesh(*sf_xl)
    monkeypatch.setattr(where, "_free_mib", lambda mesh: 12 * 1024)
    said = r"sf_xl: 2,800,000 descriptors of 8,448 numbers are 88\.1 GiB.* 12\.7 GiB on each of 8 devices.* 12\.0 GiB"
    for way in (MESH, Where()):
        with pytest.raises(UserError, match=rf"{said}.*pca\.dim.*eval\.search=host"):
            way.on_mesh(*sf_xl)
    monkeypatch.setattr(where, "_host_bytes", lambda: 128 * 2**30)
    assert not Where().on_mesh(*sf_xl) and "searched on the host, which takes 88.1 GiB" in caplog.text


def test_what_a_device_has_left(monkeypatch):
    class Device:
        def __init__(self, limit, used):
            self.limit, self.used = limit, used

        def memory_stats(self):
            return {"bytes_limit": self.limit, "bytes_in_use": self.used}

    class Mesh:
        local_devices = (Device(16 * 2**30, 2**30), Device(16 * 2**30, 3 * 2**30))

    assert where._free_mib(Mesh) == 13 * 1024
    assert where._free_mib(mesh(8)) == 0, "a CPU does not say"


def test_what_has_no_room_is_refused_before_training(refused, door, tiny_recipe, trained_run, tmp_path, monkeypatch):
    monkeypatch.setattr(where, "_free_mib", lambda mesh: 1024)
    recipe = f"--config={tiny_recipe},eval.search=mesh"
    said = refused(recipe, f"--workdir={tmp_path / 'run'}")
    assert "val: 25 descriptors of 32 numbers are 0.0 GiB, with the search 1.0 GiB on each of 8 devices" in said
    assert not (tmp_path / "run" / "checkpoints").exists()
    shown = door("evaluate", recipe, f"--workdir={trained_run}", "--dry-run")
    assert shown.status == 2 and "eval.search=host" in shown.err
    monkeypatch.undo()
    shown = door("evaluate", recipe, f"--workdir={trained_run}", "--dry-run", f"--out={tmp_path / 'shown'}")
    assert shown.status == 0 and "searched on the devices" in " ".join(shown.out.split()), shown.out


def test_keys_that_make_no_sense(refused, tiny_recipe):
    said = refused("evaluate", f"--config={tiny_recipe},eval.search=gpu")
    assert "config.eval.search='gpu' does not exist; there are ['auto', 'host', 'mesh']" in said
    assert "eval.host_mib=0 must be at least 1" in refused("evaluate", f"--config={tiny_recipe},eval.host_mib=0")
