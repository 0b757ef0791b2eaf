"""EigenPlaces' focal points: the point that the images of a cell of the map look at (Berton et al., ICCV 2023).

Cells are those of `partitions.square_cells`, of 15 m with N = 3 and 5 images at least in the paper. Positions along a
street spread along it, so that the second principal component of a cell's positions points at the buildings beside the
street and the first along it: one cell gives a lateral and a frontal class.
"""

from __future__ import annotations

import numpy as np

from data_pipelines.partitions import Array, Cells

# Below this share of the larger variance, rounding decides where an axis points.
ROUND = 1e-12


def focal_points(cells: Cells, east: Array, north: Array, *, distance: float = 10, angle: float = 0) -> Array:
    """The point that the images of each class look at: their mean, and `distance` from there along an axis.

    Args:
      cells: of `square_cells`. east, north: metres, float [rows], as given there.
      distance: metres; negative for the other side.
      angle: degrees anticlockwise from the second principal axis: 0 is lateral, 90 frontal.

    The sign of an axis, which is arbitrary, is fixed: the second points east, or north where it points neither east nor
    west. Where a class's positions spread alike in all directions, as a single one does, the second points north.

    Returns:
      float64 [classes, 2], metres east and north.
    """
    # From the cell's own corner: squares of metres in UTM would leave few digits for a spread of metres.
    corner = np.stack([np.asarray(v, np.float64)[cells.rows[cells.indptr[:-1]]] for v in (east, north)], 1)
    sizes = np.diff(cells.indptr)
    at = np.stack([np.asarray(v, np.float64)[cells.rows] for v in (east, north)], 1) - np.repeat(corner, sizes, 0)
    mean = np.add.reduceat(at, cells.indptr[:-1], axis=0) / sizes[:, None]
    off = at - np.repeat(mean, sizes, 0)
    products = np.stack([off[:, 0] ** 2, off[:, 1] ** 2, off[:, 0] * off[:, 1]], 1)
    ee, nn, en = (np.add.reduceat(products, cells.indptr[:-1], axis=0) / sizes[:, None]).T
    axis = _second_axis(ee, nn, en)
    turn = np.deg2rad(angle)
    turned = np.stack(
        [np.cos(turn) * axis[:, 0] - np.sin(turn) * axis[:, 1], np.sin(turn) * axis[:, 0] + np.cos(turn) * axis[:, 1]],
        1,
    )
    return corner + mean + distance * turned


def headings_towards(points: Array, east: Array, north: Array) -> Array:
    """Degrees in [0, 360) clockwise from north from each position to its point, float64 [rows].

    Args:
      points: metres east and north, float [rows, 2]. east, north: float [rows].
    """
    away = np.asarray(points, np.float64) - np.stack([east, north], 1)
    degrees = np.rad2deg(np.arctan2(away[:, 0], away[:, 1])) % 360
    return np.where(degrees == 360, 0.0, degrees)  # what rounding makes of a heading just below 0


def _second_axis(ee: Array, nn: Array, en: Array) -> Array:
    """Unit vectors [classes, 2] along the smaller variance of symmetric matrices [[ee, en], [en, nn]]."""
    spread = np.hypot(ee - nn, 2 * en)
    alike = spread <= ROUND * (ee + nn)
    first = 0.5 * np.arctan2(2 * en, ee - nn)
    axis = np.stack([-np.sin(first), np.cos(first)], 1)
    east = np.where(np.abs(axis[:, 0]) < 1e-9, 0.0, axis[:, 0])
    flip = np.where(east != 0, np.sign(east), np.sign(axis[:, 1]))
    return np.where(alike[:, None], np.array([[0.0, 1.0]]), axis * flip[:, None])
