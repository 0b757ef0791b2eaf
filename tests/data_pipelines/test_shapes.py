"""Batches of images of several shapes: every row once, in chunks that fill their batch."""

import pickle

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.errors import DataError
from data_pipelines.image_source import ImageSource
from data_pipelines.images import decode, resize
from data_pipelines.places import Paths
from data_pipelines.shapes import (
    NOMINAL,
    MemorySource,
    MixedReader,
    common_size,
    own_sizes,
    plan,
    shown_sizes,
)

SIDES = st.sampled_from([20, 30, 40])


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(SIDES, SIDES), max_size=70), st.sampled_from([1, 2, 8]), st.integers(1, 5), st.booleans(),
       st.sampled_from([(), (16, 24)]))  # fmt: skip
def test_every_row_has_one_place(sizes, unit, times, fixed, size):
    own, batch = np.array(sizes, np.int32).reshape(-1, 2), unit * times
    show = shown_sizes(own, size, 16)
    batches = plan(own, show, batch, unit=unit, fixed=fixed)
    rows = []
    for mixed in batches:
        assert mixed.length % unit == 0 and mixed.length <= batch and (mixed.length == batch or not fixed)
        filled = 0
        for chunk in mixed.chunks:
            real = chunk.rows[chunk.rows >= 0]
            assert len(chunk.rows) % unit == 0 and len(chunk.rows) <= mixed.length and len(real)
            assert chunk.start == filled and (chunk.rows[: len(real)] == real).all()
            assert (own[real] == chunk.size).all() and (show[real] == mixed.size).all()
            filled += len(real)
            rows += real.tolist()
        assert filled <= mixed.length
    assert sorted(rows) == list(range(len(own)))
    groups = len(np.unique(show, axis=0))
    needed = sum(-(-(show == group).all(axis=1).sum() // batch) for group in np.unique(show, axis=0))
    assert len(batches) == needed and (not size or groups <= 1)


def test_few_images_of_a_size_do_not_fill_a_batch_with_nothing():
    sizes = np.array([(20, 20)] * 3 + [(30, 30)] * 70)
    lengths = [(mixed.size, mixed.length) for mixed in plan(sizes, sizes, 64, unit=2)]
    assert lengths == [((20, 20), 4), ((30, 30), 64), ((30, 30), 64)]
    (mixed,) = plan(sizes[:40], np.full((40, 2), 16), 64, unit=2, fixed=True)
    assert mixed.length == 64 and [len(chunk.rows) for chunk in mixed.chunks] == [4, 64]


@pytest.mark.parametrize(
    ("own", "size", "multiple", "wanted"),
    [
        ((480, 640), (), 14, (476, 644)),
        ((21, 35), (), 14, (28, 28)),
        ((3, 700), (), 14, (14, 700)),
        ((480, 640), (322, 322), 14, (322, 322)),
        ((480, 640), (320, 320), 14, (322, 322)),
        ((481, 641), (), 1, (481, 641)),
    ],
)
def test_sides_are_rounded_to_the_nearest_multiple(own, size, multiple, wanted):
    assert shown_sizes(np.array([own]), size, multiple).tolist() == [list(wanted)]
    if size:
        assert common_size(size, multiple) == wanted
    assert wanted == tuple(max(1, round(side / multiple)) * multiple for side in size or own)


@pytest.mark.parametrize(
    ("own", "size", "wanted"),
    [
        ((20, 30), (480, 640), (476, 630)),
        ((480, 640), (), (476, 630)),
        ((14, 27), (), (14, 14)),
        ((28, 42), (), (28, 42)),
    ],
)
def test_a_crop_has_the_largest_multiples_that_fit(own, size, wanted):
    assert shown_sizes(np.array([own]), size, 14, crop=True).tolist() == [list(wanted)]
    if size:
        assert common_size(size, 14, crop=True) == wanted


def test_an_image_smaller_than_a_multiple_cannot_be_cropped():
    with pytest.raises(DataError, match=r"image 1\b.*\b13x40\b.*\b14\b"):
        shown_sizes(np.array([(28, 30), (13, 40)]), (), 14, crop=True)


def test_own_size_has_a_size_that_stands_for_it():
    assert common_size((), 1) == NOMINAL == (480, 640) and common_size((), 14) == (476, 644)


def test_headers_tell_the_sizes_and_readers_give_the_images(tmp_path):
    sizes = [(20, 30), (31, 17), (20, 30)]
    for number, size in enumerate(sizes):
        image = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
    (tmp_path / "3.png").write_bytes(b"no image")
    paths = Paths.of([f"{number}.png" for number in range(4)], str(tmp_path))
    assert own_sizes(paths, threads=2).tolist() == [*map(list, sizes), [0, 0]]
    assert own_sizes(Paths.of([])).shape == (0, 2)

    own = own_sizes(paths.take([0, 1, 2]))
    batches = plan(own, shown_sizes(own, (16, 16)), 4, unit=2, fixed=True)
    images = [decode(paths[row]) for row in range(3)]
    for source in (ImageSource(paths, (16, 16)), MemorySource(images, (16, 16))):
        reader = pickle.loads(pickle.dumps(MixedReader(source, batches, {2: slice(0, 2), 4: slice(2, 4)})))
        chunks = reader(0)
        assert list(chunks) == ["0", "1"]
        assert chunks["0"]["row"].tolist() == [0, 2] and chunks["0"]["place"].tolist() == [0, 1]
        assert chunks["1"]["row"].tolist() == [1, -1] and chunks["1"]["place"].tolist() == [2, 4]
        assert chunks["1"]["mask"].tolist() == [True, False] and not chunks["1"]["image"][1].any()
        assert np.array_equal(chunks["0"]["image"][1], images[2]) and np.array_equal(chunks["1"]["image"][0], images[1])
        second_half = MixedReader(source, batches, {2: slice(1, 2)})(0)
        assert second_half["1"]["row"].tolist() == [-1] and second_half["0"]["place"].tolist() == [1]


def test_images_in_memory_are_squashed_by_the_rule():
    images = [np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)]
    read = MixedReader(
        MemorySource(images, (8, 9), "area"), plan(np.array([(8, 9)]), np.array([(8, 9)]), 1), {1: slice(1)}
    )
    assert np.array_equal(read(0)["0"]["image"][0], resize(images[0], (8, 9), "area"))
