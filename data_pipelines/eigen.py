"""EigenPlaces' classes: the images of a cell of the map that look at one point (Berton et al., ICCV 2023, section 3).

Every cell gives two classes. The lateral one looks at a point beside the street, the frontal one at a point along it
(`focal.focal_points`). Of a panorama the view towards that point is cut out; where a data set has views of known
headings instead, the nearest one is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from data_pipelines.answers import offsets
from data_pipelines.errors import DataError
from data_pipelines.focal import focal_points, headings_towards
from data_pipelines.partitions import Array, Cells, all_known, square_cells

NEED = "EigenPlaces' classes are images that look at a point: it needs"
ADVICE = "Leave those images out, add the column, or train another method (configs/gsv_cities.py takes places alone)"
ANGLES = (0, 90)  # degrees from the second principal axis: of the lateral classes, of the frontal ones


@dataclass(frozen=True)
class Views:
    """Groups of classes whose images all look at one point.

    Attributes:
      cells: the images of each class.
      view: float32 [len(cells.rows)], the heading of the view to cut out of each panorama, in degrees clockwise from
        north; NaN for images that are not panoramas.
    """

    cells: Cells
    view: Array


def eigen_classes(
    east: Array,
    north: Array,
    heading: Array,
    time: Array,
    *,
    M: float = 15,
    N: int = 3,
    distance: float = 10,
    min_images: int = 5,
    turn: float = 20,
    groups: int | None = None,
    panoramas: bool = False,
    names: Sequence[str] | None = None,
) -> tuple[Views, Views]:
    """Cuts images into EigenPlaces' classes, lateral and frontal, and their groups.

    Cells and groups are those of `square_cells`. With `panoramas` every row of a cell is an image of both its classes.
    Otherwise the rows at one position and time are one viewpoint, which is treated as a panorama: cells and focal
    points are computed from viewpoints, and each viewpoint gives the image whose heading is nearest to the bearing of
    the point. A cell is kept where both its classes have `min_images`. Groups are numbered by their first image.

    Args:
      east, north: metres, float [rows], all in one UTM zone.
      heading: degrees clockwise from north, float [rows]; of a panorama, of its middle column.
      time: datetime64 [rows]; unknown times are one time. Only read without `panoramas`.
      M: side of a cell in metres. N: how many cells lie between two classes of one group.
      distance: metres from the mean of a cell's positions to what its classes look at.
      min_images: fewest images of a class.
      turn: most degrees between the heading of an image and the point's bearing; only for headed images.
      groups: how many groups to keep; None keeps all.
      panoramas: whether rows are panoramas.
      names: the files of the rows, for errors.

    Returns:
      (lateral, frontal), with the same groups and keys, so that class c of both is one cell.

    Raises:
      DataError: rows without position or heading; no cell with enough images; fewer groups than `groups`.
    """
    if distance <= 0 or not 0 <= turn <= 180:
        raise DataError(f"distance must be positive and turn lie in 0..180 degrees, but {distance=} {turn=}")
    if M <= 0 or N < 1 or min_images < 1:
        raise DataError(f"M must be positive, N and min_images at least 1, but {M=} {N=} {min_images=}")
    east, north, heading = (np.asarray(column, np.float64) for column in (east, north, heading))
    all_known(NEED, ADVICE, names, east=east, north=north, heading=heading)
    if panoramas:
        cells = square_cells(east, north, M=M, N=N, min_images=min_images, groups=groups)
        views = _bearings(cells, east, north, distance)
        lateral, frontal = (Views(cells, view.astype(np.float32)) for view in views)
        return lateral, frontal
    taken = _nearest_views(east, north, heading, np.asarray(time), M, distance, turn, min_images)
    # Both kinds get their groups from one partition of the images of either: their heads train in the same step and
    # must have the same number of classes.
    either = np.union1d(*taken)
    cells = square_cells(east[either], north[either], M=M, N=N, groups=groups)
    cells = replace(cells, rows=either[cells.rows], total=len(east))  # rows of the columns given, not of `either`
    lateral, frontal = (_only_rows(cells, rows) for rows in taken)
    return lateral, frontal


def _bearings(cells: Cells, east: Array, north: Array, distance: float) -> tuple[Array, Array]:
    """Degrees from each of `cells.rows` to what its class looks at, for both angles: float64 [len(cells.rows)]."""
    at, sizes = (east[cells.rows], north[cells.rows]), np.diff(cells.indptr)
    points = (focal_points(cells, east, north, distance=distance, angle=angle) for angle in ANGLES)
    lateral, frontal = (headings_towards(np.repeat(point, sizes, axis=0), *at) for point in points)
    return lateral, frontal


def _nearest_views(
    east: Array, north: Array, heading: Array, time: Array, M: float, distance: float, turn: float, min_images: int
) -> tuple[Array, Array]:
    """The images of all lateral and of all frontal classes, of the cells that have enough for both: rows, sorted."""
    order, starts = _viewpoints(east, north, time)
    first = order[starts]
    # Of viewpoints, one row each: a cell's principal axes must not depend on how many views a viewpoint was cut into.
    cells = square_cells(east[first], north[first], M=M, N=1)
    taken, counts = [], []
    sizes = np.diff(np.append(starts, len(order)))
    label = np.empty(len(first), np.int64)  # of each viewpoint
    label[cells.rows] = np.repeat(np.arange(len(cells.keys)), np.diff(cells.indptr))
    for view in _bearings(cells, east[first], north[first], distance):
        bearing = np.empty(len(first))
        bearing[cells.rows] = view
        # Degrees from each view's heading to the bearing, in [0, 180]: float64 [rows], in `order`.
        off = np.abs((heading[order] - np.repeat(bearing, sizes) + 180) % 360 - 180)
        # The argmin of each viewpoint; NumPy has no `argmin.reduceat`. Of two headings that are as near, the first row:
        # the first position in `nearest` from the viewpoint's start on.
        least = np.minimum.reduceat(off, starts)
        nearest = np.flatnonzero(off == np.repeat(least, sizes))
        nearest = nearest[np.searchsorted(nearest, starts)]
        near = least <= turn
        taken.append((order[nearest[near]], label[near]))
        counts.append(np.bincount(label[near], minlength=len(cells.keys)))
    kept = np.minimum(*counts) >= min_images
    if not kept.any():
        raise DataError(
            f"no cell has {min_images} images of its lateral and of its frontal class: of {len(kept)} cells of "
            f"{len(first)} viewpoints the best has {np.minimum(*counts).max()} of each. Lower min_images, make the "
            f"cells larger, raise turn ({turn:g} degrees), or give more images."
        )
    lateral, frontal = (np.sort(rows[kept[label]]) for rows, label in taken)
    return lateral, frontal


def _viewpoints(east: Array, north: Array, time: Array) -> tuple[Array, Array]:
    """Rows ordered so that those of one position and time stand together, lowest first, and where each begins."""
    # As integers, since NaT does not equal itself: images of unknown time at one position are one viewpoint.
    columns = time.astype("datetime64[s]").view(np.int64), north, east
    order = np.lexsort(columns)
    new = np.zeros(len(order), bool)
    new[:1] = True
    for column in columns:
        ordered = column[order]
        new[1:] |= ordered[1:] != ordered[:-1]
    return order, np.flatnonzero(new)


def _only_rows(cells: Cells, rows: Array) -> Views:
    """The classes of `cells` with only those of their images that `rows` holds."""
    chosen = np.zeros(cells.total, bool)
    chosen[rows] = True
    kept = chosen[cells.rows]
    # How many of the first i images are kept: it turns old offsets of classes into new ones.
    fewer = replace(cells, rows=cells.rows[kept], indptr=offsets(kept)[cells.indptr])
    return Views(fewer, np.full(len(fewer.rows), np.nan, np.float32))
