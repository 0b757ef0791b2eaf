"""Records against the files they are of, by our reader and by TFDS's, and how they are written."""

import functools
import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strange_images import COUNT, SHARDS, shard

from data_pipelines import image_bytes, readers
from data_pipelines.augment import Augment
from data_pipelines.draws import Draw
from data_pipelines.errors import DataError
from data_pipelines.image_source import ImageSource, why_unreadable
from data_pipelines.images import ImageError, own_size
from data_pipelines.loaders import StepReader, batches
from data_pipelines.places import COLUMNS
from data_pipelines.readers import photos
from data_pipelines.records import folder, shards, writing

tfds = pytest.importorskip("tensorflow_datasets")


def test_the_reader_gives_the_table_that_was_written(places, written):
    found = readers.read("records", written)
    for column in COLUMNS:
        ours, theirs = getattr(found, column), getattr(places, column)
        assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs, equal_nan=theirs.dtype.kind in "fM"), column
    assert (found.name, found.conditions, found.place_names) == ("strange", places.conditions, places.place_names)
    assert all(np.array_equal(*both) for both in zip(found.answers, places.answers, strict=True))
    for row in range(COUNT):
        assert found.path[row].endswith("/" + places.path.relative(row).rpartition("/")[2])
        assert image_bytes.read(found.path[row]) == Path(places.path[row]).read_bytes()
    assert len(readers.read("records", written, split="test")) == COUNT
    assert not len(readers.read("records", written, split="train"))


def test_any_user_of_tfds_reads_them(places, written):
    source = tfds.builder_from_directory(written).as_data_source(
        split="test", decoders={"image": tfds.decode.SkipDecoding()}
    )
    assert len(source) == COUNT
    dealt = [row for k in range(SHARDS) for row in range(k, COUNT, SHARDS)]
    for row, record in zip(dealt, source, strict=True):
        assert record.pop("image") == Path(places.path[row]).read_bytes()
        assert os.fsdecode(record.pop("name")) == places.path.relative(row)
        assert os.fsdecode(record.pop("place_name")) == places.place_of(row)
        assert set(record) == set(COLUMNS)
        for column, value in record.items():
            expected = getattr(places, column)[row]
            expected = expected.astype(np.int64) if column == "time" else expected
            assert np.array_equal(value, expected, equal_nan=True), column
    pixels = tfds.builder_from_directory(written).as_data_source(split="test")[1]["image"]
    assert np.array_equal(pixels, cv2.imread(places.path[4])[..., ::-1])
    assert tfds.builder_from_directory(written).info.metadata["conditions"] == ["night", "rain"]
    assert "tensorflow" not in sys.modules


def test_the_builder_of_tfds_writes_the_same_records(places, written, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # TFDS leaves an empty folder there
    from data_pipelines.records.builder import ImageRecords

    builder = ImageRecords(places=places, shards=SHARDS, data_dir=tmp_path)
    builder.download_and_prepare()
    root = Path(builder.data_dir)
    theirs, ours = (readers.read("records", found) for found in (root, written))
    assert theirs.digest() == ours.digest() and folder.verify(root)["images"] == COUNT
    assert all(image_bytes.read(a) == image_bytes.read(b) for a, b in zip(theirs.path, ours.path, strict=True))
    assert {file.name for file in root.iterdir()} == {file.name for file in written.iterdir()}


FIELD = st.one_of(
    st.lists(st.binary(max_size=300), max_size=3),
    st.lists(st.integers(-(2**63), 2**63 - 1)),
    st.lists(st.floats(width=32)),
)


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(st.text(max_size=8), FIELD, max_size=5), st.binary(max_size=70_000))
def test_the_image_of_any_example(others, image):
    from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

    def feature(values):
        if values and isinstance(values[0], bytes):
            return tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=values))
        if values and isinstance(values[0], int):
            return tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=values))
        return tf_feature_pb2.Feature(float_list=tf_feature_pb2.FloatList(value=values))

    fields = {name: feature(values) for name, values in {**others, "image": [image]}.items()}
    example = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=fields))
    assert shards.image_of(example.SerializeToString()) == image
    del example.features.feature["image"]
    with pytest.raises(ValueError, match=r"no image|not enough values"):
        shards.image_of(example.SerializeToString())


def random_draw(step):
    rows = np.random.default_rng(step).permutation(COUNT)
    return {"source": Draw.of(rows[:12]), "target": Draw.of(rows[12:18])}


@pytest.mark.parametrize(
    "options", [{"threads": 4}, pytest.param({"threads": 2, "workers": 2}, marks=pytest.mark.long)], ids=str
)
def test_a_loader_over_records_gives_the_batches_of_one_over_files(places, written, options):
    augment = Augment(brightness=0.7, contrast=0.7, saturation=0.7, hue=0.5, scale=(0.5, 1.0), flip=0.5)

    def read(paths, **loading):
        source = ImageSource(paths, (24, 32), augment=augment, on_error="skip")
        return list(batches(StepReader({"source": source, "target": source}, random_draw, 3), 0, 6, **loading))

    files, records = read(places.path, threads=1), read(readers.read("records", written).path, **options)
    assert any(batch["source"]["bad"].any() for _, batch in files)
    for (step, ours), (other, theirs) in zip(files, records, strict=True):
        assert step == other
        for stream, batch in ours.items():
            assert all(np.array_equal(batch[key], theirs[stream][key]) for key in batch)


def test_sizes_errors_and_exif_are_those_of_the_files(places, written):
    records = readers.read("records", written)
    for ours, theirs in zip(records.path, places.path, strict=True):
        assert why_unreadable(ours).replace(ours, theirs) == why_unreadable(theirs)
        if not why_unreadable(theirs):
            assert own_size(ours) == own_size(theirs)
    assert "truncated JPEG" in why_unreadable(records.path[11])
    whole = np.delete(np.arange(COUNT), 11)
    ours, theirs = (photos.table("x", table.path.take(whole), without_position="keep") for table in (records, places))
    assert np.array_equal(ours.time, theirs.time, equal_nan=True)


def test_threads_and_copies_read_one_shard(places, written):
    paths = readers.read("records", written).path
    expected = [Path(path).read_bytes() for path in places.path]
    rows = np.random.default_rng(0).integers(0, COUNT, 2000)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda row: image_bytes.read(paths[row]) == expected[row], rows))
    read = pickle.loads(pickle.dumps(functools.partial(image_bytes.read, paths[2])))
    assert read() == expected[2]


FORKED = """
import os, sys
from data_pipelines import errors, image_bytes
if sys.argv[2] == "before":
    image_bytes.read(sys.argv[1])
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
try:
    print(len(image_bytes.read(sys.argv[1])))
except errors.DataError as error:
    print(error)
"""


def test_a_forked_child_reads_or_is_told_why_not(places, written):
    """The library's locks do not survive a fork: a child that read anyway might wait for ever."""
    path = readers.read("records", written).path[8]
    for when, said in (("after", f"{Path(places.path[8]).stat().st_size}"), ("before", "start processes by spawn")):
        command = [sys.executable, "-c", FORKED, path, when]
        environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and said in done.stdout, done


def test_processes_write_side_by_side_and_what_is_there_is_kept(places, tmp_path):
    """An image that cannot be read stops the writing; when it is there the same call goes on with the other shards."""
    root, hidden = tmp_path / "out", Path(places.path[19])
    away = hidden.rename(tmp_path / "away")
    try:
        with pytest.raises(ImageError, match=rf"{hidden.name}: cannot read this image: No such file"):
            writing.write(places, root, count=SHARDS, processes=1)
    finally:
        away.rename(hidden)
    assert not list(root.glob(".*")) and not (root / folder.FILE).exists()
    with pytest.raises(DataError, match=r"3 of 4 files of records are written.*goes on"):
        readers.read("records", root)
    before = [shard(root, k).stat().st_mtime_ns for k in range(3)]
    (root / f".{shard(root, 3).name}.123.part").write_bytes(b"half")
    shard(root, 2).write_bytes(b"cut short")
    contents = writing.write(places, root, count=SHARDS, processes=2)
    assert [shard(root, k).stat().st_mtime_ns for k in range(2)] == before[:2]
    assert not list(root.glob(".*")) and not (root / folder.UNFINISHED).exists()
    assert folder.verify(root) == {
        "images": COUNT, "shards": SHARDS, "bytes": sum(shard(root, k).stat().st_size for k in range(SHARDS)),
    }  # fmt: skip
    assert [contents.done[k].images for k in range(SHARDS)] == [6, 6, 6, 5]


SLOW = """
import pickle, sys, time
from pathlib import Path
from data_pipelines import image_bytes
from data_pipelines.records import writing
read = image_bytes.read
image_bytes.read = lambda address: time.sleep(0.05) or read(address)
writing.write(pickle.loads(sys.stdin.buffer.read()), Path(sys.argv[1]), count=8, processes=1)
"""


@pytest.mark.long
def test_a_writer_that_is_killed_goes_on(places, tmp_path):
    """Three times in the middle, at random: no shard that was whole is written again, and the end is the same."""
    root, seen, rng = tmp_path / "out", {}, np.random.default_rng()
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    for done in (1, 2, 4):
        process = subprocess.Popen([sys.executable, "-c", SLOW, root], env=environment, stdin=subprocess.PIPE)
        process.stdin.write(pickle.dumps(places))
        process.stdin.close()
        while not (root / folder.UNFINISHED).exists() or len(folder.load(root / folder.UNFINISHED).done) < done:
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        process.wait()
        with pytest.raises(DataError, match="of 8 files of records are written"):
            readers.read("records", root)
        kept = [root / name for k, name in enumerate(folder.load(root / folder.UNFINISHED).files) if k < done]
        seen |= {file: file.stat().st_mtime_ns for file in kept if file not in seen}
    writing.write(places, root, count=8, processes=1)
    assert {file: file.stat().st_mtime_ns for file in seen} == seen and len(seen) == 4
    assert not list(root.glob(".*")) and folder.verify(root)["images"] == COUNT
    records = readers.read("records", root)
    assert all(image_bytes.read(a) == image_bytes.read(b) for a, b in zip(records.path, places.path, strict=True))
