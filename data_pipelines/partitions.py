"""Partitions: from columns of positions and headings to groups of classes.

CosPlace (Berton et al., CVPR 2022, section 3.1) cuts the map into square cells and headings into sectors. A class is
one cell and sector; a group is a set of classes of which no two are neighbours. One classifier is trained per group,
in turns.

Everything here is a sort and a few passes over columns: for the 5.9 million rows of SF-XL a Python loop over images
takes thirty times as long and six times the memory (docs/benchmarks.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_pipelines.answers import taken
from data_pipelines.errors import DataError

Array = np.ndarray
Column = tuple[Array, float]  # numbers of rows, and the size of the pieces that a coordinate counts
LARGEST_KEY = 2**62  # of a combined key, which must not overflow int64
CHUNK = 1 << 15  # rows at a time: the working arrays stay in the processor's cache
NEED, ADVICE = "these cells need", "Leave those out, or take classes by place"


@dataclass(frozen=True)
class Cells:
    """Groups of classes of images, in compressed rows.

    Attributes:
      rows: int64 [images in kept classes], indices into the columns given, sorted by group, then class, then row.
      indptr: int64 [classes + 1]; the images of class c are `rows[indptr[c]:indptr[c + 1]]`.
      groups: int64 [groups + 1]; the classes of group g are `groups[g]` up to `groups[g + 1]`. The label of a class
        within its group is its number minus `groups[g]`.
      keys: int64 [classes, 3], the cell of a class: (⌊east / M⌋, ⌊north / M⌋, ⌊heading / alpha⌋), or (place, 0, 0).
      total: how many rows were given, those of dropped classes included.
    """

    rows: Array
    indptr: Array
    groups: Array
    keys: Array
    total: int

    def __len__(self) -> int:
        """How many groups there are."""
        return len(self.groups) - 1

    @property
    def counts(self) -> Array:
        """int64 [groups], classes in each group: the sizes of the classifiers."""
        return np.diff(self.groups)

    def group(self, group: int) -> tuple[Array, Array]:
        """The images of one group: rows int64 [images] sorted by class, and indptr int64 [classes + 1] into them.

        Both are views: a group costs no memory.

        Raises:
          DataError: for a group that does not exist.
        """
        if not 0 <= group < len(self):
            raise DataError(f"there is no group {group}: there are {len(self)} groups (0 to {len(self) - 1})")
        indptr = self.indptr[self.groups[group] : self.groups[group + 1] + 1]
        return self.rows[indptr[0] : indptr[-1]], indptr - indptr[0]

    def labels(self, group: int) -> tuple[Array, Array]:
        """The images of one group (int64 [images]) and the label of each within the group (int32 [images])."""
        rows, indptr = self.group(group)
        return rows, np.repeat(np.arange(len(indptr) - 1, dtype=np.int32), np.diff(indptr))


def cosplace_cells(
    east: Array,
    north: Array,
    heading: Array,
    *,
    M: float = 10,
    alpha: float = 30,
    N: int = 5,
    L: int = 2,
    min_images: int = 10,
    groups: int | None = None,
    names: Sequence[str] | None = None,
) -> Cells:
    """Cuts images into CosPlace's classes and groups.

    class = (⌊east / M⌋, ⌊north / M⌋, ⌊heading / alpha⌋), group = its three numbers modulo (N, N, L). Classes of fewer
    than `min_images` are dropped. Groups come in the order in which their first image of a kept class comes in the rows
    (so did the published code, whose runs use the first 8); classes within a group are sorted by cell, images by row.

    Args:
      east, north: metres, float [rows], all in one UTM zone.
      heading: degrees, float [rows]; 360 is taken as 0.
      M: side of a cell in metres. alpha: width of a sector in degrees. N, L: how many cells and sectors lie between two
        classes of one group. min_images: fewest images of a class.
      groups: how many groups to keep; None keeps all.
      names: what an error calls the rows, beside their numbers.

    Raises:
      DataError: rows without position or heading; no class with enough images; fewer groups than `groups`.
    """
    if M <= 0 or alpha <= 0 or N < 1 or L < 1 or min_images < 1:
        raise DataError(
            f"M and alpha must be positive, N, L and min_images at least 1, but {M=} {alpha=} {N=} {L=} {min_images=}"
        )
    all_known(NEED, ADVICE, names, east=east, north=north, heading=heading)
    columns = [(np.asarray(east), M), (np.asarray(north), M), (_turned(np.asarray(heading)), alpha)]
    cells = _classes(columns, min_images, (N, N, L))
    return cells if groups is None else _first_groups(cells, groups)


def square_cells(
    east: Array,
    north: Array,
    *,
    M: float,
    N: int,
    min_images: int = 1,
    groups: int | None = None,
    names: Sequence[str] | None = None,
) -> Cells:
    """As `cosplace_cells`, with classes of cells alone, whatever the images' headings.

    Raises:
      DataError: rows without a position; no class with enough images; fewer groups than `groups`.
    """
    if M <= 0 or N < 1 or min_images < 1:
        raise DataError(f"M must be positive, N and min_images at least 1, but {M=} {N=} {min_images=}")
    all_known(NEED, ADVICE, names, east=east, north=north)
    cells = _classes([(np.asarray(east), M), (np.asarray(north), M)], min_images, (N, N))
    return cells if groups is None else _first_groups(cells, groups)


def _turned(heading: Array) -> Array:
    """Headings in [0, 360), those given where they are."""
    if not len(heading) or (heading.min() >= 0 and heading.max() < 360):
        return heading
    turned = np.mod(heading.astype(np.float64), 360.0)
    turned[turned == 360.0] = 0.0  # what rounding makes of a heading just below 0
    return turned


def label_cells(place: Array, *, min_images: int = 1) -> Cells:
    """One group whose classes are the rows of equal `place` (int [rows]); rows with place -1 are left out.

    Raises:
      DataError: where no place has `min_images` images.
    """
    place = np.asarray(place, np.int64)
    known = np.flatnonzero(place >= 0)
    # A place is a cell of one coordinate, and modulo 1 all are in one group.
    cells = _classes([(place[known], 1)], min_images, (1,))
    return Cells(known[cells.rows], cells.indptr, cells.groups, cells.keys, len(place))


def all_known(need: str, advice: str, names: Sequence[str] | None = None, **columns: Array) -> None:
    """Raises DataError for a value that is not finite, with its row, its name of `names`, the columns and `advice`."""
    for column, values in columns.items():
        bad = np.flatnonzero(~np.isfinite(np.asarray(values)))
        if len(bad):
            first = f"row {bad[0]}" + (f", {names[int(bad[0])]}" if names is not None else "")
            raise DataError(
                f"{len(bad)} of {len(values)} images have no {column} (first: {first}), but {need} "
                f"{' and '.join(columns)}. {advice}."
            )


def _classes(columns: Sequence[Column], min_images: int, moduli: tuple[int, ...]) -> Cells:
    """Sorts rows by class, drops small classes and arranges the others by group; see `cosplace_cells`."""
    total = len(columns[0][0])
    # One integer per row instead of three columns: one sort, where a lexical one would be three.
    keys = _keys(columns)
    order = np.argsort(keys, kind="stable")  # int64 [rows]; stable, so that images of a class stay in order of rows
    keys = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if total else np.zeros(0, np.int64)
    sizes = np.diff(np.append(starts, total))
    large = sizes >= min_images
    if not large.any():
        raise DataError(
            f"no class has {min_images} images: the largest of {len(sizes)} classes ({total} images) has "
            f"{sizes.max(initial=0)}. Lower min_images, make the cells larger, or give more images."
        )
    # From here on arrays are [classes], not [rows].
    starts, sizes = starts[large], sizes[large]
    first = order[starts]  # the sort is stable: the first image of a class is its lowest row
    cells = np.zeros((len(first), 3), np.int64)
    for number, (values, size) in enumerate(columns):
        cells[:, number] = _floor(values[first], size)
    _, group = np.unique(_keys([(cells[:, i] % N, 1) for i, N in enumerate(moduli)]), return_inverse=True)
    # Groups are numbered by their earliest image, as in the published code: a run that trains the first 8 of 50 groups
    # trains the same ones.
    earliest = np.full(group.max() + 1, total)
    np.minimum.at(earliest, group, first)
    rank = np.argsort(np.argsort(earliest))[group]  # argsort twice: the position of each group in that order
    by_group = np.argsort(rank, kind="stable")  # classes of one group stay sorted by cell
    rows, indptr = taken(order, starts[by_group], sizes[by_group])
    groups = np.concatenate([[0], np.cumsum(np.bincount(rank))])
    return Cells(rows, indptr, groups, cells[by_group], total)


def _keys(columns: Sequence[Column]) -> Array:
    """One int64 key per row that sorts as the tuple of its coordinates does."""
    total = len(columns[0][0])
    if not total:
        return np.zeros(0, np.int64)
    ends = [_floor(np.array([values.min(), values.max()]), size).tolist() for values, size in columns]
    spans = [last - first + 1 for first, last in ends]
    if math.prod(spans) > LARGEST_KEY:
        # Rows that are far apart, such as invented coordinates. Ranks of the values that occur need fewer bits than the
        # values, but cost a sort of each column, so they are not the rule.
        return _keys([(np.unique(_floor(*column), return_inverse=True)[1], 1) for column in columns])
    keys = np.zeros(total, np.int64)
    # A few rows at a time: at millions of them the temporaries would cost more than the arithmetic.
    for start in range(0, total, CHUNK):
        part = keys[start : start + CHUNK]  # a view
        for (values, size), (first, _), span in zip(columns, ends, spans, strict=True):
            part *= span
            part += _floor(values[start : start + CHUNK], size) - first
    return keys


def _floor(values: Array, size: float) -> Array:
    """⌊value / size⌋, int64; rounded down, not truncated: cells west of 0 have the size of all others.

    As `values // size`, which is exact and takes six times as long. A division that is rounded can only miss it where
    it was rounded up to a whole number, so only whole numbers are looked at again.
    """
    if size == 1 and values.dtype.kind == "i":  # a float would lose digits of large numbers
        return values.astype(np.int64, copy=False)
    values = values.astype(np.float64, copy=False)
    quotient = values / size
    floor = np.floor(quotient)
    whole = np.flatnonzero(floor == quotient)
    floor[whole] = values[whole] // size
    return floor.astype(np.int64)


def _first_groups(cells: Cells, groups: int) -> Cells:
    if not 1 <= groups <= len(cells):
        raise DataError(
            f"groups={groups}, but this partition has {len(cells)} groups: set 1 to {len(cells)}, or raise N or L"
        )
    classes = cells.groups[groups]
    images = cells.indptr[classes]
    return Cells(
        cells.rows[:images], cells.indptr[: classes + 1], cells.groups[: groups + 1], cells.keys[:classes], cells.total
    )
