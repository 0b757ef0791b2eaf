"""Two processes on this machine describe and search as one does."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.long
PROGRAM = """
import sys
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType

port, processes, me, out = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
if processes > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", processes, me, local_device_ids=[0, 1])
from data_pipelines.places import Paths
from ml_collections import ConfigDict
from jaxvpr.retrieval.cache import fill, from_host, vectors
from jaxvpr.fitting.clusters import cluster_start
from jaxvpr.builders import describing
from jaxvpr.retrieval.describer import Describer
from jaxvpr.retrieval.extract import describe
from jaxvpr.mining.hard_examples import hard_examples
from jaxvpr.retrieval.positives import Positives
from jaxvpr.retrieval.mesh_search import exact_on_mesh

images = np.random.default_rng(0).integers(0, 256, (21, 4, 4, 3), np.uint8)
kernel = np.random.default_rng(1).normal(size=(48, 5)).astype(np.float32)
mesh = jax.make_mesh((jax.device_count() // 2, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


def apply(variables, image):
    x = image.reshape(len(image), -1).astype(jnp.float32) / 255 @ variables["kernel"]
    return x / jnp.linalg.norm(x, axis=1, keepdims=True)


def batches():
    for start in range(0, 24, 8):
        row = np.arange(start, start + 8)
        row[row >= 21] = -1
        row = np.split(row, processes)[me]
        mask = (row >= 0) & (row != 4)
        yield {"image": images[row], "mask": mask, "row": row}


found = describe(apply, {"kernel": kernel}, batches(), 21, mesh)
distances, indices = exact_on_mesh(from_host(found, mesh), found.descriptors[:7], 3)

image = {"size": (4, 4), "resize": "tensor_linear_antialias", "multiple": 1, "crop": False}
loader = {"threads": 1, "workers": 0, "prefetch": 1, "on_error": "skip"}
config = ConfigDict({"image": image, "eval": {"batch": 8}, "loader": loader})
files = Paths.of([f"{row:02d}.png" for row in range(15)], out)
describer = Describer(apply, mesh, **describing(config))
mixed = describer({"kernel": kernel}, files)
mixed_cache = describer.on_mesh({"kernel": kernel}, files)
mixed = [*mixed, vectors(mixed_cache, np.arange(15)), mixed_cache.missing]

# Each process has clusters of its own in mind; what processors round differently, made large.
features = np.random.default_rng(2).normal(size=(60, 5)).astype(np.float32) + np.float32(me / 7)
begun = cluster_start({"params": {"aggregator": {"centroids": np.zeros((3, 5), np.float32)}}}, features)
agreed = begun["params"]["aggregator"]["centroids"]

# Rows 8 to 14 ask. Those five and four before each are listed, among them row 4, which could not be read.
cache = fill(apply, {"kernel": kernel}, batches(), 21, mesh, 8)
lists = Positives(np.arange(8) * 2, np.arange(3, 10).repeat(2) + np.tile([0, 1], 7))
mined = [hard_examples(cache, found.descriptors[8:15], lists, k=3, **{way: lists}) for way in ("excluded", "allowed")]
mined = [part for way in mined for part in way] + [cache.missing, vectors(cache, np.array([20, 1]))]
np.savez(f"{out}/{processes}_{me}.npz", *found, distances, indices, *mixed[:2], agreed, *mined, *mixed[2:])
"""


def launch(folder, processes):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "PYTHONPATH": str(ROOT)}
    commands = [
        [sys.executable, "-c", PROGRAM, str(port), str(processes), str(me), str(folder)] for me in range(processes)
    ]
    running = [
        subprocess.Popen(command, env=os.environ | flags, stderr=subprocess.PIPE, text=True) for command in commands
    ]
    for process in running:
        try:
            _, errors = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            for other in running:
                other.kill()
            raise
        assert process.returncode == 0, errors
    return [np.load(folder / f"{processes}_{me}.npz") for me in range(processes)]


@pytest.fixture
def folder(tmp_path):
    """Images of three shapes, one of them unreadable."""
    for row in range(15):
        size = (5 + 2 * (row % 3), 9, 3)
        cv2.imwrite(str(tmp_path / f"{row:02d}.png"), np.random.default_rng(row).integers(0, 256, size, np.uint8))
    (tmp_path / "07.png").write_bytes(b"no image")
    return tmp_path


def test_one_process_equals_two(folder):
    (alone,), together = launch(folder, 1), launch(folder, 2)
    descriptors, missing = alone["arr_0"], alone["arr_1"]
    assert missing.tolist() == [4] and not descriptors[4].any()
    np.testing.assert_allclose(np.linalg.norm(np.delete(descriptors, 4, 0), axis=1), 1, atol=1e-6)
    assert alone["arr_5"].tolist() == [7] and np.flatnonzero(~alone["arr_4"].any(axis=1)).tolist() == [7]
    for process in together:
        np.testing.assert_allclose(process["arr_4"], alone["arr_4"], atol=1e-5)
        np.testing.assert_array_equal(process["arr_5"], [7])
        np.testing.assert_allclose(process["arr_17"], alone["arr_4"], atol=1e-5, err_msg="left on the devices")
        np.testing.assert_array_equal(process["arr_18"], [7])
        np.testing.assert_array_equal(process["arr_6"], alone["arr_6"], err_msg="the first one's clusters")
        np.testing.assert_array_equal(process["arr_1"], missing)
        np.testing.assert_allclose(process["arr_0"], descriptors, atol=1e-5)
        np.testing.assert_allclose(process["arr_2"], alone["arr_2"], atol=1e-5)
        np.testing.assert_array_equal(process["arr_3"], alone["arr_3"])
        for number in (7, 9, 11, 13):
            np.testing.assert_array_equal(process[f"arr_{number}"], alone[f"arr_{number}"], err_msg="mined rows")
            np.testing.assert_allclose(process[f"arr_{number + 1}"], alone[f"arr_{number + 1}"], atol=1e-5)
        np.testing.assert_array_equal(process["arr_15"], missing)
        np.testing.assert_allclose(process["arr_16"], descriptors[[20, 1]], atol=1e-5)
    distance = ((descriptors[8:15, None] - descriptors[None]) ** 2).sum(2)
    distance[:, 4] = np.inf
    assert alone["arr_7"].tolist() == [row + 3 + distance[row, row + 3 : row + 5].argmin() for row in range(7)]
    for row in range(7):
        distance[row, row + 3 : row + 5] = np.inf
    assert alone["arr_9"].tolist() == distance.argsort(axis=1)[:, :3].tolist()
