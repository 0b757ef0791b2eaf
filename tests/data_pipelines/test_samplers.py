"""Batches of classes: passes, distinct classes, determinism, and the right images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.errors import DataError
from data_pipelines.partitions import label_cells, square_cells
from data_pipelines.samplers import Owners, class_batches, class_picks, shuffled_passes


@settings(deadline=None, max_examples=60)
@given(items=st.integers(1, 40), batch=st.integers(1, 12), steps=st.integers(0, 30), seed=st.integers(0, 999))
def test_passes_are_whole_and_batches_distinct(items, batch, steps, seed):
    drawn = shuffled_passes(items, batch=batch, steps=steps, rng=np.random.default_rng(seed))
    assert drawn.shape == (steps, batch)
    flat = drawn.reshape(-1)
    for start in range(0, len(flat) - items + 1, items):
        assert sorted(flat[start : start + items]) == list(range(items))
    rest = flat[len(flat) // items * items :]
    assert len(set(rest)) == len(rest)
    if items >= batch:
        assert all(len(set(row)) == batch for row in drawn.tolist())


def test_images_belong_to_their_class_and_all_are_drawn():
    place = np.repeat([4, 9, 2, 7], [3, 1, 5, 2])
    cells = label_cells(place)
    rows, labels = class_batches(cells, 0, batch=3, steps=400, rng=np.random.default_rng(0))
    assert rows.shape == labels.shape == (400, 3)
    assert rows.dtype == np.int64 and labels.dtype == np.int32
    assert (place[rows] == np.array([2, 4, 7, 9])[labels]).all()
    assert set(rows.reshape(-1)) == set(range(11))
    # classes weigh the same, whatever their number of images: 300 draws each
    assert np.bincount(labels.reshape(-1)).tolist() == [300] * 4
    # images of a class weigh the same: 60 expected for each of five; 6 standard deviations are 42
    assert (np.abs(np.bincount(rows.reshape(-1))[4:9] - 60) < 42).all()


def test_equal_seeds_give_equal_batches():
    cells = label_cells(np.arange(50) // 2)
    draws = [class_batches(cells, 0, batch=4, steps=20, rng=np.random.default_rng(seed)) for seed in (5, 5, 6)]
    assert (draws[0][0] == draws[1][0]).all() and (draws[0][1] == draws[1][1]).all()
    assert (draws[0][0] != draws[2][0]).any()


def test_passes_are_shuffled_anew():
    drawn = shuffled_passes(30, batch=7, steps=30, rng=np.random.default_rng(3)).reshape(7, 30)
    assert len({tuple(p) for p in drawn.tolist()}) == 7


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(ValueError, match="batch=0"):
        class_batches(label_cells(np.zeros(2, int)), 0, batch=0, steps=1, rng=np.random.default_rng(0))


def test_picks_say_where_in_the_partition_an_image_stands():
    east = np.repeat([5.0, 15.0, 25.0, 35.0], [3, 4, 2, 5])
    cells = square_cells(east, np.zeros(14), M=10, N=2)
    assert len(cells) == 2
    for group, classes in enumerate(([0, 2], [1, 3])):
        picked, labels = class_picks(cells, group, batch=2, steps=200, rng=np.random.default_rng(7))
        of_class = np.searchsorted(cells.indptr, picked, side="right") - 1
        assert (of_class == labels + cells.groups[group]).all()
        assert (east[cells.rows[picked]] // 10 == np.array(classes)[labels]).all()
        assert sorted(set(picked.ravel())) == list(range(*cells.indptr[cells.groups[group : group + 2]]))
        rows, again = class_batches(cells, group, batch=2, steps=200, rng=np.random.default_rng(7))
        assert (cells.rows[picked] == rows).all() and (labels == again).all()


def test_hosts_draw_the_same_classes_from_images_of_their_own():
    """Two hosts, rows dealt in turn: the first half of a batch has even rows, the second odd ones."""
    place = np.repeat(np.arange(6), 5)
    cells, owners = label_cells(place), Owners(np.arange(30) % 2, 2)
    draw = {"batch": 4, "steps": 500}
    rows, labels = class_batches(cells, 0, **draw, rng=np.random.default_rng(0), owners=owners)
    assert (rows[:, :2] % 2 == 0).all() and (rows[:, 2:] % 2 == 1).all()
    assert (place[rows] == labels).all() and set(rows.reshape(-1)) == set(range(30))
    shared, same = class_batches(cells, 0, **draw, rng=np.random.default_rng(0))
    assert (same == labels).all() and (shared[:, :2] % 2 == 1).any()
    with pytest.raises(
        DataError, match=r"host 1 has no image of class 2, whose 5 images lie in shards of others.*1 such"
    ):
        class_batches(
            cells, 0, **draw, rng=np.random.default_rng(0), owners=Owners(np.where(place == 2, 0, np.arange(30) % 2), 2)
        )
