"""Folders of records that are missing something, cut short or another's, and what cannot be written."""

import json
import resource
import shutil
from pathlib import Path

import filelock
import numpy as np
import pytest
from strange_images import COUNT, SHARDS, shard

from data_pipelines import image_bytes, readers
from data_pipelines.draws import Draw
from data_pipelines.errors import DataError
from data_pipelines.image_source import ImageSource, why_unreadable
from data_pipelines.images import ImageError
from data_pipelines.records import folder, shards, writing

tfds = pytest.importorskip("tensorflow_datasets")


@pytest.fixture
def copy(written, tmp_path) -> Path:
    """A copy of it, to damage. No reader has opened it yet."""
    return shutil.copytree(written, tmp_path / "copy")


def test_what_is_there_already_is_not_replaced_and_what_is_missing_is_written_again(places, copy):
    with pytest.raises(DataError, match=r"these records already.*--overwrite"):
        writing.write(places, copy, count=SHARDS)
    for other in ({"count": 3}, {"count": SHARDS, "places": places.take(np.arange(COUNT)[::-1])}):
        with pytest.raises(DataError, match=r"records of other images.*or in 4 shards.*--overwrite"):
            writing.write(**{"places": places, "root": copy, **other})
    shard(copy).unlink()
    writing.write(places, copy, count=SHARDS, processes=1)
    assert folder.verify(copy)["images"] == COUNT
    writing.write(places, copy, count=3, processes=1, overwrite=True)
    assert len(list(copy.glob("*array_record*"))) == 3 and folder.verify(copy)["shards"] == 3


def cut(root):
    shard(root).write_bytes(shard(root).read_bytes()[:-1000])


def flip(root):
    data = bytearray(shard(root).read_bytes())
    data[500] ^= 1  # in the first record
    shard(root).write_bytes(data)


def count(root):
    found = json.loads((root / folder.FILE).read_text())
    found["done"]["1"]["images"] += 1
    (root / folder.FILE).write_text(json.dumps(found))


# name -> (damage, whether the reader sees it at once, what is said)
DAMAGES = {
    "cut short": (cut, True, "{shard}: this file of records has [0-9,]+ of [0-9,]+ bytes.*Copy it again; or delete it"),
    "missing": (lambda root: shard(root).unlink(), True, "{shard}: this file of records is not there. Copy it again"),
    "wrong count": (count, True, "24 records, but 23 rows of places.npz"),
    "changed": (flip, False, "{shard}: this file of records has bytes that have changed"),
    "table": (lambda root: (root / "places.npz").write_bytes(b"PK"), True, "places.npz is not there or has changed"),
    "list": (lambda root: (root / folder.FILE).write_text("{}"), True, "does not say what records there are"),
    "nothing": (lambda root: (root / folder.FILE).unlink(), True, "holds no records.*jaxvpr records --config"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_folder_that_is_not_whole_is_told(copy, name):
    damage, at_once, said = DAMAGES[name]
    damage(copy)
    said = said.format(shard=shard(copy))
    with pytest.raises(DataError, match=said if name != "wrong count" else "24|6 records, not 7"):
        folder.verify(copy)
    if at_once:
        with pytest.raises(DataError, match=said):
            readers.read("records", copy)


def test_a_list_that_was_changed_by_chance_is_right_or_told(copy):
    rng, whole = np.random.default_rng(0), (copy / folder.FILE).read_bytes()
    for _ in range(150):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 2):
            data[at] = rng.choice(list(b'019-"{}[],:ax'))
        (copy / folder.FILE).write_bytes(data)
        try:
            assert len(readers.read("records", copy)) == COUNT
        except DataError as error:
            assert str(copy) in str(error)


def test_a_shard_that_is_cut_short_or_gone_stops_a_run_and_a_damaged_record_is_one_bad_image(copy):
    paths = readers.read("records", copy).path
    flip(copy)
    source, row = ImageSource(paths, (8, 8), on_error="skip"), np.arange(1, COUNT, SHARDS)
    bad = source.read(Draw.of(row), 0, 0, "s")["bad"]
    assert bad.tolist() == [True] + [False] * 5 and "is damaged" in why_unreadable(paths[1])
    number = shards.file_name("test", 2, SHARDS)
    (copy / number).write_bytes((copy / number).read_bytes()[:70_000])
    with pytest.raises(DataError, match=rf"{number}: this file of records is cut short or damaged") as caught:
        source.read(Draw.of([2]), 0, 0, "s")
    assert not isinstance(caught.value, ImageError)
    shard(copy, 3).unlink()
    with pytest.raises(DataError, match="this file of records is not there"):
        source.read(Draw.of([3]), 0, 0, "s")
    with pytest.raises(DataError, match="has 6 records, none with number 6"):
        image_bytes.read(f"{shard(copy, 0)}#6")


def test_a_full_disk_is_told_and_nothing_half_is_left(places, tmp_path):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limit[1]))
    try:
        with pytest.raises(DataError, match=r"00000-of-00001: .*File too large.*the same command goes on"):
            writing.write(places, tmp_path / "out", count=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not list((tmp_path / "out").glob("*array_record*")) and not list((tmp_path / "out").glob(".*"))


def test_what_cannot_be_written_is_told(places, tmp_path, monkeypatch):
    (tmp_path / "note.txt").touch()
    with pytest.raises(DataError, match="is not empty and holds no records"):
        writing.write(places, tmp_path)
    with pytest.raises(DataError, match="24 shards of 23 images: expected 1 to 23"):
        writing.write(places, tmp_path / "out", count=24)
    with (
        filelock.FileLock(tmp_path / ".taken.lock"),
        pytest.raises(DataError, match="taken is being written by another"),
    ):
        writing.write(places, tmp_path / "taken")
    with pytest.raises(DataError, match=r"gs://b/r: files of records are opened on disk.*gcsfuse"):
        readers.read("records", "gs://b/r")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install tensorflow-datasets importlib_resources"):
        writing.write(places, tmp_path / "out")


def test_a_host_needs_its_own_shards_alone(copy):
    paths = readers.read("records", copy, host=1, hosts=2).path
    assert shards.numbers(paths).tolist() == [row % SHARDS for row in range(COUNT)]
    assert shards.numbers(paths.take(np.array([6, 3]))).tolist() == [2, 3]
    shard(copy, 0).unlink()
    assert len(readers.read("records", copy, host=1, hosts=2)) == COUNT
    with pytest.raises(DataError, match="00000-of-00004: this file of records is not there"):
        readers.read("records", copy, host=0, hosts=2)
    with pytest.raises(DataError, match=rf"own_shards: 5 hosts, but {copy} has 4 shards.*--shards=5 or more"):
        readers.read("records", copy, host=1, hosts=5)
