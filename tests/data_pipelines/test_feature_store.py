"""Arrays kept on disk: each row is that of its image as it is now, whatever was added, killed, damaged or changed."""

import json
import multiprocessing
import os
import pickle
import shutil

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.draws import Draw
from data_pipelines.errors import DataError
from data_pipelines.feature_store import FeatureSource, FeatureStore
from data_pipelines.paths import Paths

SHAPES = {"map": (4, 6, 2), "token": (3,)}
NAMES = [f"{letter}.png" for letter in "abcdefg"]


@pytest.fixture
def images(tmp_path):
    for number, name in enumerate(NAMES):
        (tmp_path / name).write_bytes(bytes(number + 1))
    return Paths.of(NAMES, tmp_path)


def opened(folder, **changes):
    return FeatureStore(folder / "features", {"weights": "abc"} | changes, SHAPES)


def rows_of(numbers):
    """The row of image n: n + (0, 1/64, 2/64, ...), which float16 holds."""
    return np.asarray(numbers)[:, None] + np.arange(51) / 64


def filled(folder, images, *parts):
    store = opened(folder)
    with store.held():
        for part in parts:
            store.add(images.take(np.array(part)), rows_of(part))
    return store


def read(source, rows, **draw):
    return source.read(Draw.of(np.array(rows), **draw), 0, 0, "source")


def test_rows_come_back_by_image_whatever_part_they_are_in(tmp_path, images):
    filled(tmp_path, images, [3, 1], [0, 6])
    kept = opened(tmp_path).kept(images)
    assert kept.has(images).tolist() == [True, True, False, True, False, False, True]
    batch = read(kept.source(images.take(np.array([6, 2, 1]))), [2, 0, -1, 1])
    assert batch["map"].shape == (4, 4, 6, 2) and batch["map"].dtype == np.float16
    np.testing.assert_array_equal(batch["map"][:2].reshape(2, -1), rows_of([1, 6])[:, :48])
    np.testing.assert_array_equal(batch["token"][:2], rows_of([1, 6])[:, 48:])
    assert not batch["map"][2:].any() and batch["bad"].tolist() == [False, False, False, True]
    assert batch["mask"].tolist() == [True, True, False, False], "image c has no row"


def test_another_key_shape_or_type_is_another_store(tmp_path):
    stores = [
        opened(tmp_path),
        opened(tmp_path, weights="abd"),
        FeatureStore(tmp_path / "features", {"weights": "abc"}, {**SHAPES, "token": (4,)}),
        FeatureStore(tmp_path / "features", {"weights": "abc"}, SHAPES, "float32"),
    ]
    assert len({store.folder for store in stores}) == 4
    assert opened(tmp_path).folder == stores[0].folder


def test_an_image_that_changed_in_size_or_time_is_computed_again_and_its_new_row_counts(tmp_path, images):
    store = filled(tmp_path, images, range(7))
    (tmp_path / "b.png").write_bytes(b"longer than before")
    os.utime(tmp_path / "c.png", ns=(1, 1))
    (tmp_path / "d.png").unlink()
    assert (~store.kept(images).has(images)).nonzero()[0].tolist() == [1, 2, 3]
    with store.held():
        store.add(images.take(np.array([1])), rows_of([20]))
    kept = store.kept(images)
    np.testing.assert_array_equal(read(kept.source(images), [1])["token"], rows_of([20])[:, 48:])


def test_a_damaged_row_is_computed_again_and_a_part_cut_short_is_passed_over(tmp_path, images, caplog):
    store = filled(tmp_path, images, [0, 1, 2], [3, 4])
    file = store.folder / "000000.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1  # the last row, image c
    shutil.copy(file, tmp_path / "whole.npy")
    replaced(file, data)
    assert store.kept(images).has(images).tolist() == [True, True, False, True, True, False, False]
    assert "1 rows are not what was written" in caplog.text
    replaced(store.folder / "000001.npy", (store.folder / "000001.npy").read_bytes()[:-40])
    (store.folder / "000001.csv").write_text("path,size\n")
    assert store.kept(images).has(images).nonzero()[0].tolist() == [0, 1] and "000001.npy is passed over" in caplog.text
    with store.held():
        store.add(images.take(np.array([3])), rows_of([3]))
    assert (store.folder / "000002.csv").is_file(), "a new part takes no old number"


def replaced(file, data):
    """Another file in its place: those that are open stay what they were."""
    file.with_suffix(".new").write_bytes(data)
    file.with_suffix(".new").replace(file)
    from data_pipelines import feature_store

    feature_store._opened.cache_clear()


def test_a_kill_between_the_two_files_of_a_part_leaves_it_out(tmp_path, images):
    store = filled(tmp_path, images, [0], [1])
    (store.folder / "000001.csv").unlink()
    assert store.kept(images).has(images).nonzero()[0].tolist() == [0]


def test_the_folder_of_something_else_is_refused_and_told_how_to_mend(tmp_path, images):
    store = filled(tmp_path, images, [0])
    about = json.loads((store.folder / "about.json").read_text())
    (store.folder / "about.json").write_text(json.dumps(about | {"dtype": "int8"}))
    with pytest.raises(DataError, match=r"about\.json is not what was written there\. Delete the folder"), store.held():
        pass


def test_numbers_that_float16_lacks_name_the_image(tmp_path, images):
    store = opened(tmp_path)
    values = rows_of([0, 1])
    values[1, 5] = 70_000
    with store.held(), pytest.raises(DataError, match=r"b\.png: the model gives 7e\+04, more than float16 holds"):
        store.add(images.take(np.array([0, 1])), values)
    assert not list(store.folder.glob("*.npy"))


def waits(folder, entered, left):
    with opened(folder).held():
        entered.set()
        left.wait(20)


def test_another_process_waits_its_turn(tmp_path, images):
    context = multiprocessing.get_context("spawn")
    entered, left = context.Event(), context.Event()
    with opened(tmp_path).held():
        other = context.Process(target=waits, args=(tmp_path, entered, left))
        other.start()
        assert not entered.wait(0.8)
    assert entered.wait(20), "and has it when it is free"
    left.set()
    other.join(20)
    assert other.exitcode == 0


def test_images_of_buckets_are_known_by_what_the_bucket_tells_of_them():
    system = fsspec.filesystem("memory")
    system.pipe("/features/a.jpg", b"1234")
    paths = Paths.of(["a.jpg"], "memory://features")
    store = FeatureStore("/nowhere", {}, SHAPES)
    from data_pipelines import image_bytes

    before = image_bytes.stamp(paths[0])
    assert before[0] == 4 and image_bytes.stamp(paths[0]) == before
    system.pipe("/features/a.jpg", b"12345")
    assert image_bytes.stamp(paths[0]) != before
    assert image_bytes.stamp("memory://features/none.jpg") == (-1, -1)
    assert not store.kept(paths).has(paths).any()
    system.rm("/features", recursive=True)


@settings(deadline=None, max_examples=20)
@given(crop=st.sampled_from([0.1, 0.5, 0.75, 0.99]), seed=st.integers(0, 5), cut=st.integers(0, 5))
def test_a_crop_follows_from_seed_step_and_position_alone(tmp_path_factory, crop, seed, cut):
    folder = tmp_path_factory.mktemp("crop")
    for number, name in enumerate(NAMES):
        (folder / name).write_bytes(bytes(number + 1))
    images = Paths.of(NAMES, folder)
    kept = filled(folder, images, range(7)).kept(images)
    source, draw = kept.source(images, crop), Draw.of(np.array([5, 0, -1, 5, 3]))
    whole = source.read(draw, seed, 3, "source")
    parts = [source.read(draw, seed, 3, "source", part) for part in (slice(0, cut), slice(cut, 5))]
    for name in ("map", "token", "row", "mask"):
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), whole[name])
    height, width = {0.1: (1, 1), 0.5: (2, 3), 0.75: (3, 4), 0.99: (4, 6)}[crop]
    assert whole["map"].shape == (5, height, width, 2) and whole["token"].shape == (5, 3)
    full = rows_of([5])[0, :48].reshape(4, 6, 2)
    starts = [(top, left) for top in range(5 - height) for left in range(7 - width)]
    windows = [full[top : top + height, left : left + width] for top, left in starts]
    assert any(np.array_equal(whole["map"][0], window) for window in windows)
    pairs = source.read_images(Draw.of(np.array([[5, 0], [-1, 5]])), seed, 3, "source", slice(1, 4))
    elements = source.read(Draw.of(np.array([[5, 0], [-1, 5]])), seed, 3, "source")
    np.testing.assert_array_equal(pairs["map"], elements["map"].reshape(4, height, width, 2)[1:4])


def test_crops_lie_anywhere(tmp_path, images):
    kept = filled(tmp_path, images, range(7)).kept(images)
    found = {read(kept.source(images, 0.75), [0] * 64)["map"][n].tobytes() for n in range(64)}
    assert len(found) == 2 * 3, "all windows of 3 x 4 in 4 x 6"
    with pytest.raises(DataError, match=r"a crop of 0 of a map is none: give a share above 0"):
        kept.source(images, 0.0)


def test_a_source_goes_to_another_process_and_takes_rows(tmp_path, images):
    source = filled(tmp_path, images, range(7)).kept(images).source(images)
    there = pickle.loads(pickle.dumps(source)).take(np.array([4, 2]))
    np.testing.assert_array_equal(read(there, [1])["token"], rows_of([2])[:, 48:])
    assert there.names(np.array([0])) == [str(tmp_path / "e.png")]


def test_before_anything_is_kept_there_are_zeros(images):
    source = FeatureSource(None, images, np.full(7, -1), 0.5, SHAPES)
    batch = read(source, [0, -1])
    assert batch["map"].shape == (2, 2, 3, 2) and not batch["map"].any() and batch["mask"].tolist() == [True, False]
    assert not batch["bad"].any()


def test_an_image_without_a_row_says_why(tmp_path, images):
    source = filled(tmp_path, images, [0]).kept(images).source(images)
    (error,) = source.read_errors(read(source, [0, 1]))
    assert error.startswith(str(tmp_path / "b.png"))
