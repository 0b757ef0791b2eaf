"""Numbers of rows that lie on the devices: what a step gets of them, and that a run learns what it would by reading."""

import threading
from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from epoch_runs import Run, assert_same

from data_pipelines.draws import Draw
from data_pipelines.paths import Paths
from data_pipelines.sources import RowSource
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.training import step
from jaxvpr.training.feed import Feed


def source(rows, absent=()):
    return RowSource(Paths.of(f"{row}.jpg" for row in range(rows)), np.isin(np.arange(rows), absent))


def feed_of(rows, tables, mesh=None, **options):
    loader = {"threads": 2, "workers": 0, "prefetch": 2}
    return Feed({"source": rows}, mesh or make_mesh(), seed=0, loader=loader, tables={"source": tables}, **options)


PARTS = [
    {},
    pytest.param({"accumulate": 2}, marks=pytest.mark.long),
    pytest.param({"grad_cache": 2}, marks=pytest.mark.long),
]


@pytest.mark.parametrize("keys", PARTS, ids=lambda keys: "".join(keys) or "whole")
def test_a_run_on_a_table_is_the_run_that_reads_the_rows(keys, tmp_path, monkeypatch):
    """All of them on two devices."""
    read = Run(tmp_path / "read", monkeypatch, **keys)
    there = Run(tmp_path / "there", monkeypatch, table="float32", **keys)
    ours, theirs = there.train(), read.train()
    assert_same(ours.best, theirs.best)
    assert there.log() == read.log()


@pytest.mark.long
def test_a_table_of_half_the_digits_is_that_of_its_rounded_rows(tmp_path, monkeypatch):
    halves, whole = Run(tmp_path / "16", monkeypatch, table="float16"), Run(tmp_path / "32", monkeypatch)
    rounded = np.load(whole.folder / "rows.npy").astype(np.float16).astype(np.float32)
    np.save(whole.folder / "rows.npy", rounded)
    np.save(halves.folder / "rows.npy", rounded)  # plans mine in the file
    assert_same(halves.train().best, whole.train().best)
    assert halves.log() == whole.log()


def test_rows_are_looked_up_where_they_lie():
    """-1 pads; it counts for nothing, whatever it reads."""
    rows, tables = np.array([[3, 0], [1, 1], [2, -1], [-1, -1]]), {"value": np.float16([1, 10, 100, 1000])}
    feed = feed_of(source(4), tables, make_mesh(devices=jax.devices()[:2]))
    with closing(feed.read({"source": Draw.of_steps(rows[None])}, 0, 0, 1)) as stream:
        ((_, local),) = stream
    batch = feed.on_mesh(local)["source"]
    assert batch["row"].dtype == np.int32 and batch["row"].tolist() == [[3, 0], [1, 1], [2, 0], [0, 0]]
    assert batch["mask"].tolist() == [True, True, True, False]
    seen = jax.jit(step.with_rows)(batch, feed.tables["source"])
    assert sorted(seen) == ["label", "mask", "value"] and seen["value"].dtype == jnp.float16
    assert seen["value"].tolist() == [[1000, 1], [10, 10], [100, 1], [1, 1]]


def test_images_that_devices_share_have_their_rows():
    """Four elements of two rows on eight devices, which have an image each."""
    rows = np.array([[3, 0], [1, 1], [2, 0], [0, 3]])
    feed = feed_of(source(4), {"value": np.float32([1, 10, 100, 1000])}, by_image={"source": 2})
    with closing(feed.read({"source": Draw.of_steps(rows[None])}, 0, 0, 1)) as stream:
        ((_, local),) = stream
    batch = feed.on_mesh(local)["source"]
    assert len(batch["row"].sharding.device_set) == 8 and batch["row"].shape == (8,)
    assert step.with_rows(batch, feed.tables["source"])["value"].tolist() == [1000, 1, 10, 10, 100, 1, 1, 1000]


def test_rows_that_are_not_read_need_no_thread():
    feed = feed_of(source(5, absent=[2]), {"value": np.zeros(5, np.float32)})
    rows, before = np.array([[0, 1, 3, 4] * 2, [2, -1, 4, 4] * 2]), threading.active_count()
    with closing(feed.read({"source": Draw.of_steps(rows)}, 7, 7, 9)) as stream:
        (first, one), (second, other) = stream
        assert threading.active_count() == before
    assert (first, second) == (7, 8) and one["source"]["mask"].all() and not one["source"]["bad"].any()
    assert other["source"]["bad"].tolist() == [True, False, False, False] * 2
    assert other["source"]["mask"].tolist() == [False, False, True, True] * 2


def test_a_table_of_other_rows_is_refused():
    with pytest.raises(ValueError, match=r"^the table 'value' has 4 rows, and the stream 'source' 5$"):
        feed_of(source(5), {"value": np.zeros(4, np.float32)})
