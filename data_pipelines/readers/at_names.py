"""Data sets whose file names hold the metadata between '@' signs: SF-XL, SF-XS, GSV-XS, Tokyo-XS, the mini city, ..."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.conditions import condition_bits
from data_pipelines.errors import DataError
from data_pipelines.places import ROLES, SPLITS, Paths, Places, index_of
from data_pipelines.readers import frame_names, listing, names, notes

Array = np.ndarray


def read(
    root: str | os.PathLike[str],
    *,
    split: str | None = None,
    folders: Sequence[str] | None = None,
    paths_file: str | os.PathLike[str] | None = None,
    name: str | None = None,
) -> Places:
    """Reads a tree of '@' images; `readers.names.parse` lists the fields of a name.

    It reads `<root>[/images]/{train,val,test}/{database,queries,queries_v1,...}/...`, the same with a split that
    holds images without such folders (SF-XL train: all of them become database), and any other folder of '@' images
    (role database, no split). A list `<folder>_images_paths.txt` beside a folder spares listing it. Names come sorted.
    A folder `queries_<condition>` gives its condition to names that hold none. Frames of sequences, as in
    `<split>/{database,queries}/<sequence>/@east@north@sequence@frame@...jpg`, have `sequence` and `frame`.

    Args:
      root: the data set.
      split: read only this one of train, val, test; for a folder without splits, the split of its images.
      folders: read only these folders of a split, e.g. `("database", "queries_v1")`; None reads all.
      paths_file: a text file (may be .gz) with one path relative to `root` per line, to be read instead of the disk;
        its order is kept. The images need not exist.
      name: of the data set, for reports; the folder's name by default.

    Raises:
      DataError: a missing, empty or unreadable folder, a file that is not an image, a name without coordinates, or two
        images of one folder that are the same frame of a sequence.
    """
    code = index_of("split", split, SPLITS)
    name = name or Path(root).absolute().name
    if paths_file is not None:
        return _listed(Path(root), listing.lines(paths_file, root), split, folders, name)
    root = listing.folder(root)
    base = root / "images" if (root / "images").is_dir() else root
    splits = [s for s in SPLITS if (base / s).is_dir()]
    if not splits:
        return _places(name, _paths(base), code, ["database"])
    if split is not None and split not in splits:
        raise DataError(f"{base} has no split {split!r}; it has {splits}")
    parts = []
    for part in splits if split is None else [split]:
        for directory in _folders(base / part, folders):
            folder = "database" if directory == base / part else directory.name
            parts.append(_places(name, _paths(directory), SPLITS.index(part), [folder]))
    if not parts:
        raise DataError(f"no folder {list(folders or [])} in {base}/{{{','.join(splits)}}}")
    return Places.concat(parts, name)


def is_tree(root: Path) -> bool:
    """Whether `read` can read a folder: it has `images`, or a folder of a split."""
    return any((root / folder).is_dir() for folder in ("images", *SPLITS))


def table(name: str, paths: Paths, role: str) -> Places:
    """The table of any '@' images, all in one role and in no split."""
    return _places(name, paths, -1, ["queries" if role == "query" else "database"])


def _paths(directory: Path) -> Paths:
    return listing.cached(directory) or listing.images(directory)


def _folders(split: Path, wanted: Sequence[str] | None) -> list[Path]:
    """The database and query folders of a split, or the split itself where it has none."""
    parts = sorted(p for p in split.iterdir() if p.is_dir() and _is_role(p.name))
    if not parts:
        return [split] if wanted is None or "database" in wanted else []
    return [p for p in parts if wanted is None or p.name in wanted]


def _is_role(folder: str) -> bool:
    return folder == "database" or folder.split("_")[0] == "queries"


def _places(name: str, paths: Paths, split: int | Array, folders: Sequence[str], of: int | Array = 0) -> Places:
    """The table of `paths`; the folder `folders[of]` of each gives its role and perhaps its condition."""
    columns: dict[str, Any] = dict(names.parse(paths))
    frame_names.check_single(paths, columns["sequence"], columns["frame"], of)
    role = np.array([ROLES.index("query" if f.split("_")[0] == "queries" else "database") for f in folders])[of]
    beside = np.array([notes.condition_of_note(os.fsencode(f.partition("_")[2])) for f in folders])[of]
    codes = columns.pop("condition")
    # The -1 appended makes "unknown" the first of `present` even where every image has a condition.
    present, condition = np.unique(np.append(np.where(codes < 0, beside, codes), -1), return_inverse=True)
    return Places.create(
        name,
        paths,
        split=split,
        role=role,
        condition=condition_bits(condition.reshape(-1)[:-1] - 1),
        conditions=[notes.CONDITIONS[code] for code in present[1:]],
        **columns,
    )


def _listed(root: Path, paths: Paths, split: str | None, folders: Sequence[str] | None, name: str) -> Places:
    """The table of a list of names; split and role come from the first two folders of each path."""
    of, heads = _heads(paths)
    parts = [[part for part in head.split("/") if part != "images"] for head in heads]
    splits = [part[0] if part and part[0] in SPLITS else split for part in parts]
    of_head = [next((p for p in part[:2] if _is_role(p)), "database") for part in parts]
    wanted = [split in (None, s) and (folders is None or f in folders) for s, f in zip(splits, of_head, strict=True)]
    if not any(wanted):
        raise DataError(f"the list for {root} has no path in split {split!r} and folders {folders}; it has {heads[:8]}")
    if not all(wanted):
        rows = np.flatnonzero(np.array(wanted)[of])
        paths, of = paths.take(rows), of[rows]
    number = np.array([index_of("split", part, SPLITS) for part in splits])
    return _places(name, paths, number[of], of_head, of)


def _heads(paths: Paths) -> tuple[Array, list[str]]:
    """Which of the distinct leading folders (at most three deep) each path has: int64 [rows], and those folders."""
    slashes = np.flatnonzero(paths.blob == ord("/"))
    first = np.searchsorted(slashes, paths.offsets[:-1])
    count = np.minimum(np.searchsorted(slashes, paths.offsets[1:]) - first, 3)
    ends = np.append(slashes, 0)[first + np.maximum(count - 1, 0)]
    length = np.where(count > 0, ends - paths.offsets[:-1], 0)
    width = int(length.max()) + 1
    text = np.zeros((len(paths), width), np.uint8)
    for k in range(width - 1):
        text[:, k] = np.where(k < length, paths.blob[np.minimum(paths.offsets[:-1] + k, len(paths.blob) - 1)], 0)
    heads, group = np.unique(text.view(f"S{width}").reshape(-1), return_inverse=True)
    return group.reshape(-1), [os.fsdecode(head) for head in heads.tolist()]
