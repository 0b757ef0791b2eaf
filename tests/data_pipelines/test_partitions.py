"""CosPlace's cells against a literal per-image loop, and the errors a user meets."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import answers, partitions
from data_pipelines.errors import DataError
from data_pipelines.partitions import cosplace_cells, label_cells, square_cells


def slow_cells(east, north, heading, M, alpha, N, L, min_images):
    """One image at a time, with tuples and dictionaries: a list of groups, each a dict class -> rows."""
    images = defaultdict(list)
    for row, (e, n, h) in enumerate(zip(east, north, heading, strict=True)):
        h = 0.0 if h == 360 else h
        images[(int(e // M), int(n // M), int(h // alpha))].append(row)
    kept = {c: rows for c, rows in images.items() if len(rows) >= min_images}
    groups = defaultdict(dict)
    for c, rows in sorted(kept.items(), key=lambda item: item[1][0]):
        groups[(c[0] % N, c[1] % N, c[2] % L)][c] = rows
    return list(groups.values())


def as_dicts(cells):
    """The same shape as `slow_cells` gives."""
    out = []
    for g in range(len(cells)):
        rows, indptr = cells.group(g)
        keys = cells.keys[cells.groups[g] : cells.groups[g + 1]]
        out.append({tuple(k): rows[a:b].tolist() for k, a, b in zip(keys.tolist(), indptr, indptr[1:], strict=False)})
    return out


@settings(deadline=None, max_examples=40)
@given(
    size=st.one_of(st.sampled_from([10, 15.0, 30, 0.1, 0.3, 2.5, 1 / 3]), st.floats(1e-3, 1e3)),
    steps=st.lists(st.integers(-(10**7), 10**7), min_size=1, max_size=20),
    off=st.sampled_from([-1, 0, 1]),
)
def test_cells_end_where_pythons_division_ends_them(size, steps, off):
    # Multiples of the size, and the floats beside them: there a rounded quotient may reach the next whole number.
    values = np.nextafter(np.array(steps) * size, off * np.inf) if off else np.array(steps) * size
    cells = square_cells(values, np.zeros(len(values)), M=size, N=1)
    expected = sorted({int(value // size) for value in values.tolist()})
    assert cells.keys[:, 0].tolist() == expected


def test_rows_in_several_chunks_and_in_any_order(monkeypatch):
    rng = np.random.default_rng(5)
    east, north, heading = rng.uniform(0, 60, 500), rng.uniform(0, 60, 500), rng.uniform(-400, 800, 500)
    whole = cosplace_cells(east, north, heading, min_images=2)
    monkeypatch.setattr(partitions, "CHUNK", 7)
    monkeypatch.setattr(answers, "AT_ONCE", 3)
    assert as_dicts(cosplace_cells(east, north, heading, min_images=2)) == as_dicts(whole)
    assert as_dicts(whole) == slow_cells(east, north, heading % 360, 10, 30, 5, 2, 2)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 400),
    width=st.floats(1, 120),
    M=st.sampled_from([1, 10, 2.5]),
    alpha=st.sampled_from([30, 45, 360]),
    N=st.integers(1, 5),
    L=st.integers(1, 3),
    min_images=st.integers(1, 4),
)
def test_equals_the_literal_loop(seed, rows, width, M, alpha, N, L, min_images):
    rng = np.random.default_rng(seed)
    east, north = rng.uniform(-width, width, (2, rows)).round(2)  # both sides of zero: floors, not truncation
    heading = rng.choice([0, 15, 30, 44.5, 180, 330, 359.9, 360], rows)
    options = {"M": M, "alpha": alpha, "N": N, "L": L, "min_images": min_images}
    expected = slow_cells(east, north, heading, **options)
    if not expected:
        with pytest.raises(DataError, match=rf"class.*\b{min_images} images"):
            cosplace_cells(east, north, heading, **options)
        return
    cells = cosplace_cells(east, north, heading, **options)
    assert as_dicts(cells) == expected  # groups in the same order, rows in the same order
    assert cells.total == rows
    assert (np.diff(cells.indptr) >= min_images).all()
    for g in range(len(cells)):
        keys = cells.keys[cells.groups[g] : cells.groups[g + 1]].tolist()
        assert keys == sorted(keys)


def test_by_hand():
    east = [5, 6, 15, 55, 57, 5.0]
    north = [0, 9.99, 0, 3, 3, -0.01]
    heading = [0, 29, 0, 360, 20, 0]
    cells = cosplace_cells(east, north, heading, min_images=2)
    assert cells.counts.tolist() == [2]  # (0,0,0) and (5,0,0): five cells apart, one group
    assert cells.keys.tolist() == [[0, 0, 0], [5, 0, 0]]
    assert cells.rows.tolist() == [0, 1, 3, 4]
    assert cells.indptr.tolist() == [0, 2, 4]
    rows, labels = cells.labels(0)
    assert rows.tolist() == [0, 1, 3, 4] and labels.tolist() == [0, 0, 1, 1] and labels.dtype == np.int32


def test_headings_360_and_just_below_zero_are_north():
    cells = cosplace_cells(np.zeros(4), np.zeros(4), np.array([0.0, 360.0, -1e-20, 720.0]), min_images=1)
    assert cells.keys.tolist() == [[0, 0, 0]]
    assert len(cells.rows) == 4


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_classes_of_one_group_are_never_neighbours(seed):
    rng = np.random.default_rng(seed)
    east, north, heading = rng.uniform(0, 100, 300), rng.uniform(0, 100, 300), rng.uniform(0, 360, 300)
    cells = cosplace_cells(east, north, heading, min_images=1, N=2, L=2)
    for g in range(len(cells)):
        keys = cells.keys[cells.groups[g] : cells.groups[g + 1]]
        apart = np.abs(keys[:, None] - keys[None])
        apart[..., 2] = np.minimum(apart[..., 2], 12 - apart[..., 2])
        near = (apart <= 1).all(axis=2)
        assert near.sum() == len(keys)  # only with itself


def test_far_apart_mock_coordinates_do_not_overflow():
    east, north = np.array([-9e12, 9e12, 9e12, 0.0]), np.array([9e12, -9e12, -9e12, 1.0])
    cells = cosplace_cells(east, north, np.full(4, 90.0), min_images=1, M=0.01)
    expected = slow_cells(east, north, np.full(4, 90.0), M=0.01, alpha=30, N=5, L=2, min_images=1)
    assert as_dicts(cells) == expected


def test_first_groups_only():
    rng = np.random.default_rng(1)
    columns = rng.uniform(0, 60, 500), rng.uniform(0, 60, 500), rng.uniform(0, 360, 500)
    whole, some = cosplace_cells(*columns, min_images=1), cosplace_cells(*columns, min_images=1, groups=3)
    assert len(some) == 3 and len(whole) > 3
    assert as_dicts(some) == as_dicts(whole)[:3]


def test_more_groups_than_exist():
    with pytest.raises(DataError, match=r"\bgroups=8\b.*\b4\b"):
        cosplace_cells([0, 10, 0, 10], [0, 0, 10, 10], np.zeros(4), N=2, L=1, min_images=1, groups=8)


def test_a_group_that_is_not_there():
    cells = label_cells(np.array([1, 1]))
    with pytest.raises(DataError, match=r"\bgroup 1\b.*\b1 groups"):
        cells.group(1)


def test_no_class_with_enough_images_names_the_largest():
    with pytest.raises(DataError, match=r"class.*\b10 images.*\b2 classes.*\b4 images.*\b3\b"):
        cosplace_cells([0, 1, 2, 50], np.zeros(4), np.zeros(4))
    with pytest.raises(DataError, match=r"\b0 classes.*\b0 images.*\b0\b"):
        cosplace_cells([], [], [])


def test_rows_without_heading_are_named():
    with pytest.raises(DataError, match=r"2 of 3.*heading.*row 1"):
        cosplace_cells(np.zeros(3), np.zeros(3), [0, np.nan, np.nan])


@pytest.mark.parametrize("wrong", [{"M": 0}, {"alpha": -1}, {"N": 0}, {"L": 0}, {"min_images": 0}])
def test_impossible_parameters(wrong):
    with pytest.raises(DataError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
        cosplace_cells([0], [0], [0], **wrong)


def test_label_cells():
    cells = label_cells(np.array([7, -1, 3, 7, 3, 3, 9]), min_images=2)
    assert cells.keys[:, 0].tolist() == [3, 7]
    assert cells.rows.tolist() == [2, 4, 5, 0, 3]
    assert cells.indptr.tolist() == [0, 3, 5] and cells.counts.tolist() == [2] and cells.total == 7


def test_an_image_without_a_position_is_named():
    east, names = np.array([0.0, np.nan, 1.0]), ["a.jpg", "b.jpg", "c.jpg"]
    with pytest.raises(DataError, match=r"1 of 3 images have no east \(first: row 1, b\.jpg\)"):
        cosplace_cells(east, east, east, names=names)
    with pytest.raises(DataError, match=r"1 of 3 images have no north \(first: row 1, b\.jpg\)"):
        square_cells(np.zeros(3), east, M=1, N=1, names=names)
