"""EigenPlaces' cells and focal points: hand-worked streets, and a slow literal implementation."""

from collections import defaultdict

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.focal import focal_points, headings_towards
from data_pipelines.partitions import square_cells

CORNER = np.array([500_010.0, 5_000_010.0])  # a corner of cells of 15 m, far from the origin


def points_of(offsets, **options):
    east, north = (CORNER + np.asarray(offsets, float)).T
    cells = square_cells(east, north, M=15, N=3)
    assert len(cells.keys) == 1
    return (focal_points(cells, east, north, **options) - CORNER)[0]


def test_a_street_that_runs_north_is_looked_at_from_its_side_and_along_it():
    street = [(7, 1), (7, 4), (7, 7), (7, 10), (7, 13)]
    np.testing.assert_allclose(points_of(street), (17, 7), atol=1e-6)
    np.testing.assert_allclose(points_of(street, distance=-10), (-3, 7), atol=1e-6)
    np.testing.assert_allclose(points_of(street, angle=90), (7, 17), atol=1e-6)


def test_a_street_that_runs_east_is_looked_at_from_the_north():
    street = [(1, 6), (5, 6), (9, 6)]
    np.testing.assert_allclose(points_of(street), (5, 16), atol=1e-6)
    np.testing.assert_allclose(points_of(street, angle=90), (-5, 6), atol=1e-6)


def test_a_slanted_street_has_its_second_axis_to_the_east():
    """Positions along north-east: the axis across points south-east, 10 / sqrt(2) each way."""
    half = 10 / np.sqrt(2)
    np.testing.assert_allclose(points_of([(1, 1), (5, 5), (9, 9)]), (5 + half, 5 - half), atol=1e-6)


def test_a_corner_of_two_streets_is_looked_at_across():
    """An L along north and east, as long each way: its longer axis runs from one end to the other, north-west."""
    corner = [(2, 2), (2, 6), (2, 10), (6, 2), (10, 2)]
    half = 10 / np.sqrt(2)
    np.testing.assert_allclose(points_of(corner), (4.4 + half, 4.4 + half), atol=1e-6)


@pytest.mark.parametrize("offsets", [[(3, 4)], [(3, 4)] * 4, [(2, 2), (4, 2), (2, 4), (4, 4)]])
def test_positions_without_a_direction_look_north(offsets):
    east, north = np.mean(offsets, 0)
    np.testing.assert_allclose(points_of(offsets), (east, north + 10), atol=1e-6)


def literal(east, north, M, N, min_images, distance, angle):
    """Image by image and cell by cell, with an eigenvalue solver: {cell: (group, rows, focal point)}."""
    members = defaultdict(list)
    for row, (e, n) in enumerate(zip(east, north, strict=True)):
        members[int(e // M), int(n // M)].append(row)
    found = {}
    for cell, rows in members.items():
        if len(rows) < min_images:
            continue
        at = np.stack([east[rows], north[rows]], 1)
        mean = at.mean(0)
        _, vectors = np.linalg.eigh((at - mean).T @ (at - mean))  # the smaller variance first
        axis = vectors[:, 0] * np.sign(vectors[0, 0])
        theta = np.deg2rad(angle)
        axis = np.array([[np.cos(theta), -np.sin(theta)], [np.sin(theta), np.cos(theta)]]) @ axis
        found[cell] = (cell[0] % N, cell[1] % N), rows, mean + distance * axis
    return found


@pytest.mark.parametrize("angle", [0, 90])
def test_cells_and_focal_points_are_those_of_a_literal_implementation(angle):
    rng = np.random.default_rng(0)
    east, north = 500_000 + rng.uniform(0, 300, 5000), 4_000_000 + rng.uniform(0, 300, 5000)
    cells = square_cells(east, north, M=15, N=3, min_images=8)
    focal = focal_points(cells, east, north, angle=angle)
    slow = literal(east, north, 15, 3, 8, 10, angle)
    assert {tuple(key[:2]) for key in cells.keys} == set(slow) and 300 < len(slow) <= 441
    groups = {}
    for number in range(len(cells)):
        for label in range(cells.groups[number], cells.groups[number + 1]):
            group, rows, point = slow[tuple(cells.keys[label, :2])]
            assert groups.setdefault(number, group) == group
            assert cells.rows[cells.indptr[label] : cells.indptr[label + 1]].tolist() == rows
            np.testing.assert_allclose(focal[label], point, atol=1e-5)
    assert len(set(groups.values())) == len(groups) == 9


def test_headings_are_clockwise_from_north():
    points = np.array([[0, 10], [10, 0], [0, -10], [-10, 0], [10, 10], [-1e-18, 10]])
    np.testing.assert_allclose(headings_towards(points, np.zeros(6), np.zeros(6)), [0, 90, 180, 270, 45, 0])


def test_bad_input_is_named():
    with pytest.raises(DataError, match=r"1 of 2.*north.*row 1.*\beast\b.*\bnorth\b"):
        square_cells(np.array([0.0, 1.0]), np.array([0.0, np.nan]), M=15, N=3)
    with pytest.raises(DataError, match=r"\bM=0"):
        square_cells(np.zeros(2), np.zeros(2), M=0, N=3)
    with pytest.raises(DataError, match=r"class.*\b5 images"):
        square_cells(np.zeros(2), np.zeros(2), M=15, N=3, min_images=5)
