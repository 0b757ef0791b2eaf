"""Two processes on this machine that keep the descriptors of a database on their devices: they answer as one process
with FAISS does, and neither holds all descriptors."""

import csv
import json
import shutil

import numpy as np
import pytest
from host_processes import train

pytestmark = pytest.mark.long


def answers(folder):
    with (folder / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [(row["query"], row["rank"], row["path"], row["error"]) for row in rows], [
        float(row["distance"] or "nan") for row in rows
    ]


def test_the_commands_on_two_hosts_answer_as_on_one(door, environment, tiny_recipe, trained_run, photo_tree, tmp_path):
    """49 of 50 database photos can be read, over 2 x 2 devices, two of which share the class prototypes."""
    database = shutil.copytree(photo_tree / "images" / "test" / "database", tmp_path / "database")
    queries = shutil.copytree(photo_tree / "images" / "test" / "queries", tmp_path / "queries")
    for folder, row in ((database, 7), (queries, 3)):
        sorted(folder.iterdir())[row].write_bytes(b"no image")
    model = [f"--workdir={trained_run}", "--config.loader.on_error=skip"]
    host, mesh = (f"--config={tiny_recipe},eval.search={way},mesh.model=2" for way in ("host", "mesh"))

    extract = ["extract", *model, f"--images={database}"]
    assert door(*extract, host, f"--out={tmp_path / 'host' / 'db.npy'}").status == 0
    said = train(environment, 2, 2, [*extract, mesh, f"--out={tmp_path / 'mesh' / 'db.npy'}"])
    assert "wrote" in said[0] and "wrote" not in said[1] and "1 of 50 images could not be read" in said[0]
    ours, theirs = (np.load(tmp_path / way / "db.npy") for way in ("host", "mesh"))
    np.testing.assert_allclose(theirs, ours, atol=1e-5)
    assert np.flatnonzero(~theirs.any(axis=1)).tolist() == [7]
    assert (tmp_path / "host" / "db.csv").read_bytes() == (tmp_path / "mesh" / "db.csv").read_bytes()
    assert sorted(file.name for file in (tmp_path / "mesh").iterdir()) == ["db.csv", "db.json", "db.npy"]

    localize = ["localize", *model, f"--database={tmp_path / 'mesh' / 'db.npy'}", f"--images={queries}", "--top=20"]
    assert door(*localize, host, f"--out={tmp_path / 'host'}").status == 0
    train(environment, 2, 2, [*localize, mesh, f"--out={tmp_path / 'mesh'}"])
    (rows, distances), (rows_there, there) = (answers(tmp_path / way) for way in ("host", "mesh"))
    assert rows_there == rows and len(rows) == 24 * 20 + 1, "photo 3 has one row, which says why"
    np.testing.assert_allclose(there, distances, atol=1e-5)

    evaluate = ["evaluate", *model, f"--database={database}", f"--queries={queries}"]
    assert door(*evaluate, host, f"--out={tmp_path / 'host'}").status == 0
    train(environment, 2, 2, [*evaluate, mesh, f"--out={tmp_path / 'mesh'}"])
    results = [json.loads((tmp_path / way / "metrics.json").read_text())["results"] for way in ("host", "mesh")]
    assert results[0] == results[1] and results[0][0]["protocol"]["missing"] == 2

    file = tmp_path / "mesh" / "db.npy"
    np.save(file, theirs[::-1])
    for said in train(environment, 2, 2, [*localize, mesh, f"--out={tmp_path / 'again'}"], status=2):
        assert f"{file} is not the one that was written" in said, "the first read it, and told the other"


# 80,000 images of 2x2 pixels become descriptors of 2,048 numbers: 625 MiB. What counts is the peak of a process's
# resident memory, to which its device's belongs; and of a mapped file the pages that it read.
PROGRAM = """
import gc, json, re, sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

options = dict(flag[2:].split("=") for flag in sys.argv[3:])
from jaxvpr.parallel import joining
joining.start(options["coordinator"], int(options["processes"]), int(options["process"]))

from jaxvpr.models import Preprocess
from jaxvpr.parallel.mesh import devices, make_mesh
from jaxvpr.retrieval.describer import Describer
from jaxvpr.retrieval.evaluator import Benchmark, measure
from jaxvpr.retrieval.where import Where, nearest

COUNT, WIDTH = 80_000, 2048
rng = np.random.default_rng(0)
kernel = {"kernel": rng.normal(size=(12, WIDTH)).astype(np.float32)}


class Images(list):
    path = property(lambda self: self)


def apply(variables, images):
    x = jnp.cos(images.reshape(len(images), -1).astype(jnp.float32) / 256 @ variables["kernel"])
    return x / jnp.linalg.norm(x, axis=1, keepdims=True)


def resident(key):
    return int(re.search(rf"^{key}:\\s+(\\d+)", Path("/proc/self/status").read_text(), re.M)[1]) / 1024


def growth(work):
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    before = resident("VmRSS")
    found = work()
    return resident("VmHWM") - before, found


database = Images(rng.integers(0, 256, (COUNT, 2, 2, 3), np.uint8))
queries = Images(database[100::1000])
preprocess = Preprocess(size=(2, 2), resize="area")
loading = {"threads": 1, "workers": 0, "prefetch": 1}
describer = Describer(apply, make_mesh(), preprocess, batch=1024, loading=loading)


def evaluated(images, way):
    bench = Benchmark("large", "test", images, queries, {})
    return lambda: measure(describer, kernel, bench, (1, 5), where=Where(way))


evaluated(Images(database[:4096]), "mesh")()  # compiles
mesh, there = growth(evaluated(database, "mesh"))
host, here = growth(evaluated(database, "host"))
assert (there.predictions == here.predictions).all() and (here.predictions[:, 0] == np.arange(100, COUNT, 1000)).all()

file = Path(sys.argv[2])
stored = np.load(file, mmap_mode="r")
kept = Where("mesh").kept("places.npy", stored, make_mesh())
maps = Path("/proc/self/smaps").read_text()
read = int(re.search(rf"{file.name}\\n(?:.*\\n)*?Rss:\\s+(\\d+)", maps)[1]) / 1024
found = nearest(kept, np.array(stored[[3, COUNT - 1]]), 1)[1]
print(devices())
print(json.dumps({"mesh": mesh, "host": host, "read": read, "found": found.tolist()}))
"""
WHOLE = 80_000 * 2048 * 4 / 2**20


def test_no_process_holds_all_descriptors(environment, tmp_path):
    file = tmp_path / "places.npy"
    np.save(file, np.random.default_rng(0).normal(size=(80_000, 2048)).astype(np.float32))
    for said in train(environment, 2, 1, [str(file)], program=PROGRAM):
        grown = json.loads(said.splitlines()[-1])
        assert grown["mesh"] < 0.9 * WHOLE < 1.5 * WHOLE < grown["host"], grown
        assert grown["read"] < 0.7 * WHOLE, "its own half of the file, and what the kernel reads ahead"
        assert grown["found"] == [[3], [79_999]]
