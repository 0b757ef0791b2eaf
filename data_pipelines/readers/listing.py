# ruff: noqa: PTH118, PTH122 (names are bytes here, millions of them, which Path does not take)
"""Lists of image files: from a folder on disk, from a cached list beside it, or from any text file of names."""

from __future__ import annotations

import codecs
import gzip
import io
import itertools
import logging
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.image_files import FORMATS
from data_pipelines.paths import is_url
from data_pipelines.places import Paths
from data_pipelines.readers import text

log = logging.getLogger(__name__)
IMAGES = tuple(suffix.encode() for suffixes in FORMATS.values() for suffix in suffixes)
CLUTTER = (b".txt", b".csv", b".json", b".md", b".gz", b".npy", b".yaml", b".db", b".ini")
WITHOUT_POSITION = ("error", "drop", "keep")
LONGEST = 4096  # bytes of a path
MOST_PACKED = 100  # bytes of names in one of a packed list: SF-XL's have 5, a list made to fill the memory 1,000
CLUTTER_NAMES = (b"license", b"readme")


def folder(path: str | os.PathLike[str], kind: str = "data set") -> Path:
    """`path` as a Path if it is a folder.

    Raises:
      DataError: where there is none; lists the nearest folder that exists.
    """
    if is_url(os.fspath(path)):
        raise DataError(
            f"{path} lies in a bucket, which is not listed, since that takes hours for millions of images. Give the "
            "reader csv a table of addresses, or at_names a list of names (paths_file)"
        )
    path = Path(path)
    if path.is_dir():
        return path
    near = next((p for p in path.parents if p.is_dir()), Path())
    names = sorted(p.name for p in near.iterdir())[:8]
    raise DataError(f"{kind} not found: {path} is not a folder. {near} holds {names or 'nothing'}; check the path.")


def check_choice(option: str, value: str, choices: Sequence[str]) -> None:
    """Raises DataError unless an option is one of its choices."""
    if value not in choices:
        raise DataError(f"{option}={value!r} is one of {', '.join(choices)}")


def images(root: str | os.PathLike[str], *, others: str = "error") -> Paths:
    """Relative paths of all image files under `root`, sub-folders included, in sorted order.

    Hidden files and lists (.txt, .csv, .json, licences, ...) are skipped.

    Args:
      root: the folder.
      others: what a file does that is neither image nor list: "error" refuses it, as in a published data set; "skip"
        leaves it out, as a film or a HEIC beside somebody's own photos, and a warning names and counts such files.

    Raises:
      DataError: no such folder, one that cannot be read, no image in it, or (with "error") another file.
    """
    start = os.fsencode(folder(root, "folder of images"))
    names: list[bytes] = []
    foreign: list[bytes] = []
    open_folders: list[tuple[bytes, frozenset]] = [(b"", frozenset())]
    while open_folders:
        below, above = open_folders.pop()
        try:
            inside = above | {_identity(os.path.join(start, below))}
            with os.scandir(os.path.join(start, below) if below else start) as entries:
                for entry in entries:
                    name = below + entry.name
                    if entry.name.startswith(b"."):
                        continue
                    if _is_folder(entry):
                        if entry.is_symlink() and _identity(entry.path) in inside:
                            log.warning(
                                "%s leads back to a folder above it and is not followed", os.fsdecode(entry.path)
                            )
                        else:
                            open_folders.append((name + b"/", inside))
                    elif (kind := _kind(entry.name)) != "clutter":
                        (names if kind == "image" else foreign).append(name)
        except OSError as error:
            where = os.fsdecode(os.path.join(start, below).rstrip(b"/"))
            raise DataError(f"cannot read the folder {where}: {error.strerror}. Check its permissions.") from error
    found = f"{root} holds {_counted(sorted(foreign))}" if foreign else ""
    if foreign and others == "error":
        neither = f"which are neither images ({_text(IMAGES)}) nor lists ({_text(CLUTTER)})"
        raise DataError(f"{found}, {neither}. Move them out of the folder of images.")
    if not names:
        more = f" {found}: convert those that are photos" if foreign else ""
        raise DataError(f"no image in {root} or below it; expected files {_text(IMAGES)}. Check the path.{more}")
    if foreign:
        log.warning("%s: left out; convert those that are photos to %s", found, _text(IMAGES))
    return Paths.of(sorted(names), root)


def cached(root: str | os.PathLike[str]) -> Paths | None:
    """The sorted relative paths that `<root>_images_paths.txt` beside the folder lists; None where there is no such
    list.

    Listing millions of files takes minutes, so data sets of this family ship with that cache.
    """
    path = Path(root)
    listed = path.with_name(path.name + "_images_paths.txt")
    if not listed.is_file():
        return None
    paths = lines(listed, root=root)
    for row in (0, len(paths) - 1):
        if not text.is_file(paths[row]):
            raise DataError(
                f"{listed} lists {paths.relative(row)}, which is not in {path}. The list is stale or its paths are not "
                "relative to that folder: delete it, and the folder itself is listed."
            )
    return sorted_paths(paths)


def lines(path: str | os.PathLike[str], root: str | os.PathLike[str] = "") -> Paths:
    """The lines of a text file (may be .gz) as paths under `root`, in the order of the file; empty lines are dropped.

    Raises:
      DataError: a file that is missing, cannot be read, holds no line or no text, or unpacks to far more than names do.
    """
    data = text.data_of(path, "a list of names")
    if data[:2] == b"\x1f\x8b":
        most = MOST_PACKED * len(data) + (1 << 16)
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
                data = stream.read(most + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"cannot read the list of names {path}: {error}. Check the path and whether the file is complete."
            ) from error
        if len(data) > most:
            raise DataError(f"{path} unpacks to more than {MOST_PACKED} times its size: that is no list of names")
    if b"\0" in data:
        raise DataError(f"cannot read the list of names {path}: line {text.line_of(data, data.index(0))} is no text")
    blob = np.frombuffer(data.removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n"), np.uint8)
    bounds = np.concatenate([[-1], np.flatnonzero(blob == ord("\n")), [len(blob)]])
    starts, ends = bounds[:-1] + 1, bounds[1:]
    some = ends > starts
    if not some.any():
        raise DataError(f"the list of names {path} is empty; expected one path per line")
    if (ends - starts).max() > LONGEST:
        line = int(np.argmax(ends - starts)) + 1
        raise DataError(f"the list of names {path}: line {line} has more than {LONGEST} bytes, which no path has")
    offsets = np.append(0, np.cumsum((ends - starts)[some]))
    return Paths(os.fspath(root), blob[blob != ord("\n")], offsets)


def sorted_paths(paths: Paths) -> Paths:
    """The same paths in sorted order, without a Python string each where they are sorted already."""
    blob, offsets = paths.blob.tobytes(), paths.offsets.tolist()
    previous = b""
    for start, stop in itertools.pairwise(offsets):
        name = blob[start:stop]
        if name < previous:
            names = sorted(blob[a:b] for a, b in itertools.pairwise(offsets))
            return Paths.of(names, paths.root)
        previous = name
    return paths


def _identity(folder: bytes) -> tuple[int, int]:
    found = os.stat(folder)  # noqa: PTH116
    return found.st_dev, found.st_ino


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: whoever reads it as an image names it
        return False


def _kind(name: bytes) -> str:
    """Whether a file is an "image", known "clutter" or "foreign", by its name."""
    stem, suffix = os.path.splitext(name.lower())
    if suffix in IMAGES:
        return "image"
    return "clutter" if suffix in CLUTTER or (not suffix and stem in CLUTTER_NAMES) else "foreign"


def _counted(names: list[bytes]) -> str:
    """`4 .heic (first: a/1.HEIC), 1 .mov (first: 2.MOV)`."""
    kinds: dict[bytes, list[bytes]] = {}
    for name in names:
        kinds.setdefault(os.path.splitext(name.lower())[1] or b"without a suffix", []).append(name)
    return ", ".join(
        f"{len(files)} {os.fsdecode(kind)} (first: {os.fsdecode(files[0])})" for kind, files in kinds.items()
    )


def _text(suffixes: tuple[bytes, ...]) -> str:
    return " ".join(suffix.decode() for suffix in suffixes)
