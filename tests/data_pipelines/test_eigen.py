"""EigenPlaces' classes of panoramas and of headed images: hand-worked streets, and a slow literal implementation."""

from collections import defaultdict

import numpy as np
import pytest

from data_pipelines.eigen import eigen_classes
from data_pipelines.errors import DataError
from data_pipelines.partitions import square_cells
from data_pipelines.places import Paths

EAST, NORTH = 500_010.0, 5_000_010.0  # a corner of cells of 15 m, of the group (0, 0)
DAY = np.datetime64("2016-05-01T10:00:00", "s")
STREET = [(7, 1), (7, 4), (7, 7), (7, 10), (7, 13)]  # runs north: its points are (17, 7) and (7, 17)


def classes(places, headings, **options):
    """Classes of images at offsets (east, north) of the corner, all of one time."""
    offsets = np.asarray(places, float)
    times = options.pop("times", np.full(len(offsets), DAY))
    east, north = EAST + offsets[:, 0], NORTH + offsets[:, 1]
    return eigen_classes(east, north, np.asarray(headings, float), times, **options)


def headed(positions, headings):
    """Every heading at every position: (places, headings), as rows."""
    return np.repeat(positions, len(headings), axis=0), np.tile(headings, len(positions))


def test_panoramas_of_a_street_look_across_and_along():
    lateral, frontal = classes(STREET, np.zeros(5), panoramas=True)
    # From (7, 1) the point (17, 7) lies 10 m east and 6 m north; the frontal point (7, 17) due north of all.
    across = np.degrees(np.arctan2(10, [6, 3, 0, -3, -6]))
    np.testing.assert_allclose(lateral.view, across, rtol=1e-6)
    np.testing.assert_allclose(frontal.view % 360, 0, atol=1e-4)
    assert lateral.view.dtype == np.float32 and lateral.cells.rows.tolist() == [0, 1, 2, 3, 4]
    assert lateral.cells.groups.tolist() == [0, 1] and lateral.cells.total == 5


def test_of_views_the_one_nearest_to_the_point_is_taken():
    """Views every 30 degrees: at (7, 1) the point lies under 59 degrees, at (7, 4) under 73, then 90, 107, 121."""
    lateral, frontal = classes(*headed(STREET, np.arange(0, 360, 30)))
    assert (lateral.cells.rows % 12 * 30).tolist() == [60, 60, 90, 120, 120]
    assert (lateral.cells.rows // 12).tolist() == (frontal.cells.rows // 12).tolist() == [0, 1, 2, 3, 4]
    assert (frontal.cells.rows % 12 == 0).all()
    assert np.isnan(lateral.view).all() and lateral.view.dtype == np.float32 and len(lateral.view) == 5


def test_a_heading_just_below_360_is_near_north():
    # 20 degrees either way of north: the first row of the two as near.
    _, frontal = classes(*headed(STREET, [90, 340, 20, 270]), turn=45)
    assert (frontal.cells.rows % 4).tolist() == [1] * 5
    _, frontal = classes(*headed(STREET, [90, 341, 20, 270]), turn=45)
    assert (frontal.cells.rows % 4).tolist() == [1] * 5
    _, frontal = classes(*headed(STREET, [90, 339, 20, 270]), turn=45)
    assert (frontal.cells.rows % 4).tolist() == [2] * 5


def test_a_viewpoint_without_a_view_near_the_point_gives_none():
    """At the ends of the street the point lies 31 degrees from the only view to the east, beyond it 17 or 0."""
    rows = headed(STREET, [0, 90])
    lateral, frontal = classes(*rows, turn=20, min_images=3)
    assert lateral.cells.rows.tolist() == [3, 5, 7] and frontal.cells.rows.tolist() == [0, 2, 4, 6, 8]
    with pytest.raises(DataError, match=r"\b4 images.*\b1 cells.*\b5 viewpoints.*\b3\b.*\b20 degrees"):
        classes(*rows, turn=20, min_images=4)
    assert len(classes(*rows, turn=31, min_images=5)[0].cells.rows) == 5


def test_images_of_another_time_are_another_viewpoint():
    """A street of three positions, two surveys of which look east in turns; together five of six have such a view."""
    places, headings = [(7, 4), (7, 7), (7, 10)] * 2, [90, 90, 90, 90, 90, 300]
    times = np.repeat([DAY, DAY + 86_400], 3)
    # Lateral: of viewpoints, one image each, of both surveys. Nobody looks north but the one under 300 degrees.
    lateral, frontal = classes(places, headings, times=times, turn=60, min_images=1)
    assert lateral.cells.rows.tolist() == [0, 1, 2, 3, 4] and frontal.cells.rows.tolist() == [5]
    same = np.full(6, np.datetime64("NaT", "s"))
    lateral, _ = classes(places, headings, times=same, turn=60, min_images=1)
    assert lateral.cells.rows.tolist() == [0, 1, 2], "unknown times are one: three viewpoints of two images"


def test_cells_without_one_of_the_two_classes_are_dropped_and_with_them_their_group():
    beside = np.asarray(STREET) + (15, 0)
    with_both, with_one = headed(STREET, [0, 90]), headed(beside, [90])
    places, headings = (np.concatenate(pair) for pair in zip(with_one, with_both, strict=True))
    lateral, frontal = classes(places, headings, turn=31)
    for views in (lateral, frontal):
        assert views.cells.groups.tolist() == [0, 1] and views.cells.counts.tolist() == [1]
        assert views.cells.keys.tolist() == [[EAST // 15, NORTH // 15, 0]]
        assert views.cells.rows.min() >= 5 and views.cells.total == 15
    everything = headed(np.concatenate([beside, STREET]), [0, 90])
    lateral, frontal = classes(*everything, turn=31)
    # The group of the first image comes first: that of the cell beside.
    assert lateral.cells.keys[:, 0].tolist() == frontal.cells.keys[:, 0].tolist() == [EAST // 15 + 1, EAST // 15]
    assert len(classes(*everything, turn=31, groups=1)[0].cells) == 1
    with pytest.raises(DataError, match=r"\bgroups=3\b.*\b2\b"):
        classes(*everything, turn=31, groups=3)


def literal(east, north, heading, time, *, M, N, distance, min_images, turn, panoramas):
    """Row by row, cell by cell: {cell: (group, lateral images, frontal images)}, an image (row, degrees or None)."""
    viewpoints = defaultdict(list)
    for row in range(len(east)):
        viewpoints[row if panoramas else (east[row], north[row], time[row])].append(row)
    cells = defaultdict(list)
    for rows in viewpoints.values():
        cells[int(east[rows[0]] // M), int(north[rows[0]] // M)].append(rows)
    found = {}
    for cell, views in cells.items():
        positions = np.array([(east[rows[0]], north[rows[0]]) for rows in views])
        mean = positions.mean(0)
        vectors, _, _ = np.linalg.svd((positions - mean).T)
        second = vectors[:, 1]
        if second[0] < 0 or (second[0] == 0 and second[1] < 0):
            second = -second
        along = np.array([-second[1], second[0]])  # turned by 90 degrees, anticlockwise
        kinds = []
        for axis in (second, along):
            point, images = mean + distance * axis, []
            for rows in views:
                away = point - (east[rows[0]], north[rows[0]])
                bearing = float(np.degrees(np.arctan2(away[0], away[1])))
                if panoramas:
                    images.append((rows[0], bearing % 360))
                    continue
                off = [abs((heading[row] - bearing + 180) % 360 - 180) for row in rows]
                best = off.index(min(off))
                if off[best] <= turn:
                    images.append((rows[best], None))
            kinds.append(sorted(images))
        if min(map(len, kinds)) >= min_images:
            found[cell] = ((cell[0] % N, cell[1] % N), *kinds)
    return found


@pytest.mark.parametrize("panoramas", [True, False])
def test_classes_are_those_of_a_literal_implementation(panoramas):
    rng = np.random.default_rng(4)
    views = 1 if panoramas else 5
    # Two streets and a square, so that cells have directions, and spots of two times; 5,000 rows in no order.
    at = np.stack([rng.uniform(0, 120, 5000 // views), rng.uniform(0, 120, 5000 // views)], 1)
    at[::3, 0] = 60 + rng.normal(0, 2, len(at[::3]))
    at[1::3, 1] = 30 + rng.normal(0, 2, len(at[1::3]))
    at[-100:] = at[:100]
    at = np.round(at + (500_000, 4_000_000), 2)
    columns = np.repeat(at, views, axis=0)
    time = np.repeat(rng.choice([DAY, DAY + 60, np.datetime64("NaT")], len(at)), views)
    heading = rng.uniform(0, 360, 5000).round(1)
    mixed = rng.permutation(5000)
    east, north, heading, time = columns[mixed, 0], columns[mixed, 1], heading[mixed], time[mixed]
    options = {"M": 15, "N": 3, "distance": 10, "min_images": 3, "turn": 35, "panoramas": panoramas}
    # NaT is not equal to itself: the dictionary needs a name for it.
    slow = literal(east, north, heading, time.astype(np.int64), **options)
    kinds = eigen_classes(east, north, heading, time, **options)
    assert len(slow) > 40 and len({group for group, *_ in slow.values()}) == 9
    everything = sorted(row for _, *found in slow.values() for images in found for row, _ in images)
    groups = list(dict.fromkeys(slow[int(east[r] // 15), int(north[r] // 15)][0] for r in everything))
    for kind, found in enumerate(kinds, 1):
        cells, numbers = found.cells, {}
        assert len(cells) == 9 and cells.total == 5000
        for number in range(9):
            for label in range(cells.groups[number], cells.groups[number + 1]):
                part = slice(cells.indptr[label], cells.indptr[label + 1])
                group, *images = slow[tuple(cells.keys[label, :2])]
                assert group == groups[number]
                assert cells.rows[part].tolist() == [row for row, _ in images[kind - 1]]
                expected = [np.nan if view is None else view for _, view in images[kind - 1]]
                np.testing.assert_allclose(found.view[part], expected, atol=2e-3)
                numbers[tuple(cells.keys[label, :2])] = number
        assert set(numbers) == set(slow)


def test_panoramas_keep_the_cells_of_the_partition():
    rng = np.random.default_rng(1)
    east, north = rng.uniform(0, 200, 900), rng.uniform(0, 200, 900)
    nothing = np.zeros(900), np.full(900, DAY)
    lateral, frontal = eigen_classes(east, north, *nothing, M=15, N=3, min_images=4, groups=5, panoramas=True)
    cells = square_cells(east, north, M=15, N=3, min_images=4, groups=5)
    for views in (lateral, frontal):
        for column in ("rows", "indptr", "groups", "keys"):
            np.testing.assert_array_equal(getattr(views.cells, column), getattr(cells, column))
    assert (lateral.view != frontal.view).all()


@pytest.mark.parametrize("panoramas", [True, False])
def test_bad_input_is_named(panoramas):
    names = Paths.of([f"{i}.jpg" for i in range(5)], "/photos")
    missing = np.where(np.arange(5) == 3, np.nan, 0.0)
    with pytest.raises(DataError, match=r"1 of 5.*heading.*row 3.*/photos/3\.jpg.*configs/gsv_cities\.py"):
        classes(STREET, missing, panoramas=panoramas, names=names)
    nowhere = np.asarray(STREET, float) + [[0, np.nan if row == 2 else 0] for row in range(5)]
    with pytest.raises(DataError, match=r"1 of 5.*north.*row 2"):
        classes(nowhere, np.zeros(5), panoramas=panoramas)
    with pytest.raises(DataError, match=r"c(lass|ell).*\b6 images"):
        classes(STREET, np.zeros(5), panoramas=panoramas, min_images=6)
    for wrong in ({"distance": 0}, {"turn": 181}, {"M": 0}, {"N": 0}, {"min_images": 0}):
        with pytest.raises(DataError, match=f"{next(iter(wrong))}=.*{next(iter(wrong.values()))}"):
            classes(STREET, np.zeros(5), panoramas=panoramas, **wrong)
