"""Localisation by classification: where classes lie, whose prototypes answer, and LR@N, by hand and by slow loops."""

import jax
import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.partitions import cosplace_cells, label_cells, square_cells
from data_pipelines.places import Paths, Places
from jaxvpr.parallel.mesh import class_shardings, make_mesh
from jaxvpr.retrieval.classes import Classes, ClassPlaces, locate

RNG = np.random.default_rng(0)


def table(east, north, zone=33, **columns):
    names = Paths.of([f"{row:04d}.jpg" for row in range(len(east))], "photos")
    return Places.create("table", names, east=east, north=north, zone=zone, **columns)


def scattered(rows=400):
    east, north = RNG.uniform(-60, 90, (2, rows))
    return table(east, north, heading=RNG.uniform(0, 360, rows), place=RNG.integers(-1, 9, rows))


def vectors(*angles):
    radians = np.radians(angles)
    return np.stack([np.cos(radians), np.sin(radians)], 1).astype(np.float32)


def along(*metres, zone=33):
    return table(np.array(metres, float), np.zeros(len(metres)), zone)


@pytest.mark.parametrize("by", ["cell", "square", "place"])
def test_a_class_lies_where_a_slow_loop_finds_it(by):
    images = scattered()
    if by == "cell":
        cells = cosplace_cells(images.east, images.north, images.heading, M=20, alpha=90, N=2, L=2, min_images=2)
        found = ClassPlaces.of(cells, images, side=20, sector=90)
    elif by == "square":
        cells = square_cells(images.east, images.north, M=20, N=2, min_images=2)
        found = ClassPlaces.of(cells, images, side=20)
    else:
        cells = label_cells(images.place)
        found = ClassPlaces.of(cells, images)
    number = 0
    for group in range(len(cells)):
        rows, indptr = cells.group(group)
        for label in range(len(indptr) - 1):
            own = rows[indptr[label] : indptr[label + 1]]
            at = np.stack([images.east[own], images.north[own]], 1)
            middle = at.mean(0) if by == "place" else (np.floor(at[0] / 20) + 0.5) * 20
            nearest = own[np.linalg.norm(at - middle, axis=1).argmin()]
            assert (found.slot[number], found.label[number]) == (group, label)
            place = found.places
            np.testing.assert_allclose([place.east[number], place.north[number]], middle, atol=1e-9)
            assert place.path[number] == images.path[nearest] and place.zone[number] == 33
            if by == "cell":
                turn = abs(place.heading[number] - images.heading[own]) % 360
                assert (np.minimum(turn, 360 - turn) <= 45).all()
            else:
                assert np.isnan(place.heading[number])
            number += 1
    assert number == len(found.places) > 8


def test_of_images_as_near_the_first_stands_for_a_class():
    images = table(np.array([14.0, 6.0, 6.0, 35.0]), np.full(4, 10.0))
    found = ClassPlaces.of(square_cells(images.east, images.north, M=20, N=2), images, side=20)
    assert [found.places.path.relative(row) for row in range(2)] == ["0000.jpg", "0003.jpg"]
    assert found.places.east.tolist() == [10.0, 30.0] and found.slot.tolist() == [0, 1]


def test_classes_without_a_position_or_of_two_zones_are_refused():
    images = table(np.array([1.0, np.nan, 2.0, 3.0]), np.zeros(4), place=[0, 0, 1, -1])
    with pytest.raises(DataError, match=r"\b1 images.*position.*photos/0001\.jpg"):
        ClassPlaces.of(label_cells(images.place), images)
    images = table(np.arange(2.0), np.zeros(2), zone=[32, 33], place=[0, 1])
    with pytest.raises(DataError, match="2 UTM zones"):
        ClassPlaces.of(label_cells(images.place), images)


@pytest.mark.parametrize("shape", [None, (1, 1), (4, 1), (2, 4)])
def test_the_database_is_that_of_a_slow_loop_over_groups_on_any_mesh(shape):
    """Rows that pad a head are huge here: none may enter."""
    images = scattered()
    cells = square_cells(images.east, images.north, M=20, N=2, min_images=2)
    heads = np.full((len(cells), cells.counts.max() + 7, 6), 1e9, np.float32)[
        :, : -(-(cells.counts.max() + 1) // 8) * 8
    ]
    expected = []
    for group, count in enumerate(cells.counts):
        heads[group, :count] = RNG.normal(size=(count, 6))
        expected += [row / np.linalg.norm(row) for row in heads[group, :count].astype(np.float64)]
    devices = jax.devices()[: np.prod(shape or (1,))]
    mesh = make_mesh(shape[1] if shape else 1, devices)
    extra = {"prototypes": heads}
    if shape:
        extra = jax.device_put(extra, class_shardings(mesh, extra, ("prototypes",)))
    found = ClassPlaces.of(cells, images, side=20).database(extra, mesh)
    assert found.prototypes.dtype == np.float32 and found.prototypes.shape == (cells.counts.sum(), 6)
    np.testing.assert_allclose(found.prototypes, expected, atol=1e-6)


def test_lr_by_hand():
    """Classes at 0, 30, 60 and 90 m; photos at 10 m (its class second), 60 m (first), 118 m (too far from any) and
    65 m (its class at exactly 25 m third)."""
    classes = Classes(vectors(0, 90, 180, 270), along(0, 30, 60, 90))
    queries = along(10, 60, 118, 65)
    shown = vectors(170, 181, 271, 20)  # order of classes: 2 1 3 0; 2 3 1 0; 3 0 2 1; 0 1 3 2
    found = locate(classes, shown, queries, thresholds=("25m", "label", "1m_5deg"), ns=(1, 2, 3, 4))
    assert list(found) == ["25m"], "only metres alone"
    assert found["25m"].first_hit.tolist() == [1, 0, -1, 2]
    assert found["25m"].of_all == {1: 25.0, 2: 50.0, 3: 75.0, 4: 75.0}
    assert found["25m"].answerable.tolist() == [True, True, False, True] and found["25m"].upper_bound == 75.0


def test_more_answers_than_classes_are_all_classes():
    classes = Classes(vectors(0, 90), along(0, 100))
    found = locate(classes, vectors(80, 80), along(0, 50), thresholds=("25m",), ns=(1, 5, 100))["25m"]
    assert found.of_all == {1: 0.0, 5: 50.0, 100: 50.0}


def test_of_classes_as_near_the_first_answers():
    classes = Classes(vectors(90, 90, 0), along(0, 100, 200))
    found = locate(classes, vectors(90, 90), along(0, 100), thresholds=("25m",), ns=(1, 2))["25m"]
    assert found.of_all == {1: 50.0, 2: 100.0}


def test_photos_that_could_not_be_read_fail():
    classes = Classes(vectors(0, 90), along(0, 100))
    shown = np.concatenate([vectors(0), np.zeros((1, 2), np.float32)])
    found = locate(classes, shown, along(0, 0), thresholds=("25m",), ns=(1, 2), missing=[1])["25m"]
    assert found.first_hit.tolist() == [0, -1]


def test_photos_of_another_zone_or_without_position(caplog):
    classes = Classes(vectors(0, 90), along(0, 100))
    asked = {"thresholds": ("25m",), "ns": (1,)}
    assert locate(classes, vectors(0), along(0, zone=32), **asked) == {}
    assert "UTM zone 32 north and UTM zone 33 north" in caplog.text
    assert locate(classes, vectors(0), along(0), thresholds=("label",), ns=(1,)) == {}
    assert "no threshold in metres" in caplog.text
    with pytest.raises(DataError, match=r"coordinates.*metres"):
        locate(classes, vectors(0), along(np.nan), **asked)


def test_one_head_of_all_classes_answers_as_the_groups_do():
    """Dividing the classes over groups changes who trains them, and nothing about how they answer."""
    images, shown = scattered(), vectors(*RNG.uniform(0, 360, 50))
    queries = images.take(np.arange(50))
    found = []
    for n in (1, 3):
        cells = square_cells(images.east, images.north, M=20, N=n, min_images=2)
        heads = np.zeros((len(cells), cells.counts.max(), 2), np.float32)
        for group, label in ((g, c) for g, count in enumerate(cells.counts) for c in range(count)):
            key = cells.keys[cells.groups[group] + label]
            heads[group, label] = vectors(100 * key[0] + 37 * key[1])[0]
        classes = ClassPlaces.of(cells, images, side=20).database(
            {"prototypes": heads}, make_mesh(1, jax.devices()[:1])
        )
        found.append(locate(classes, shown, queries, thresholds=("25m",), ns=(1, 5, 10))["25m"].of_all)
    assert found[0] == found[1] and 0 < found[0][1] < found[0][10]
