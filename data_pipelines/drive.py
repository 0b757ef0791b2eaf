"""A drive to localize: frames in order, from a folder or from a video, as files that everything else reads."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from data_pipelines import video
from data_pipelines.errors import DataError
from data_pipelines.places import Paths, Places
from data_pipelines.video import Every

log = logging.getLogger(__name__)
Array = np.ndarray
DISK = 512 * 2**20  # bytes of frames of a video that lie on the disk at a time
MOST = 256  # of them


class Frames(NamedTuple):
    """Frames of a drive that follow each other.

    Attributes:
      paths: an image file each.
      number: int64 [N], of the frame in its drive, from 0.
      seconds: float64 [N], from the start of the drive; NaN where no frame says when it was taken.
    """

    paths: Paths
    number: Array
    seconds: Array


def of_video(file: str | os.PathLike[str], every: Every, overlap: int = 0) -> Iterator[Frames]:
    """The frames of a video, some at a time, as files without loss that are there until the next are asked for.

    Args:
      every: which of its frames.
      overlap: so many of the last frames come again before the next ones, for clips that reach over both. All but the
        frames of a video that has no more are more than these.

    Raises:
      DataError: as `video.frames`.
    """
    with tempfile.TemporaryDirectory(prefix="jaxvpr-video-") as folder:
        held: list[tuple[str, int, float]] = []
        new = 0
        for number, seconds, image in video.frames(file, every):
            name = f"{number:09d}.bmp"
            _write(Path(folder, name), image)
            held.append((name, number, seconds))
            new += 1
            if new >= _most(image.nbytes) and len(held) > overlap:
                yield _frames(held, folder)
                gone, held, new = held[: len(held) - overlap], held[len(held) - overlap :], 0
                for name, *_ in gone:
                    Path(folder, name).unlink()
        if new:
            yield _frames(held, folder)


def _most(size: int) -> int:
    """How many frames of so many bytes are on the disk at a time: a power of two, as batches have it."""
    return 1 << (min(MOST, max(1, DISK // size)).bit_length() - 1)


def _write(file: Path, image: Array) -> None:
    whole, data = cv2.imencode(".bmp", image)
    if not whole:
        raise DataError(f"{file.stem}: a frame of {image.shape} cannot be written as an image")
    file.write_bytes(data.tobytes())


def _frames(held: list[tuple[str, int, float]], folder: str) -> Frames:
    names, numbers, seconds = zip(*held, strict=True)
    return Frames(Paths.of(names, folder), np.array(numbers, np.int64), np.array(seconds))


def of_images(images: Places, every: Every) -> Frames:
    """The frames of one drive among images: by their frame number where all have one, else by name, naturally, so that
    frame2 comes before frame10.

    Raises:
      DataError: images of several sequences, two with one frame number, or frames that are to be taken by seconds and
        do not say when they were taken.
    """
    if len(drives := np.unique(images.sequence)) > 1:
        raise DataError(f"{images.name}: images of {len(drives)} sequences; a track is of one: give its folder alone")
    numbered = bool((images.frame >= 0).all())
    order = np.argsort(images.frame, kind="stable") if numbered else _naturally(images.path)
    log.info("%s: %d frames in the order of their %s", images.name, len(order), "numbers" if numbered else "names")
    number = images.frame[order] if numbered else np.arange(len(order))
    if len(same := np.flatnonzero(np.diff(number) == 0)):
        pair = images.path[order[same[0]]], images.path[order[same[0] + 1]]
        raise DataError(f"{pair[0]} and {pair[1]} have the same frame number, {number[same[0]]}: leave one out")
    seconds = _seconds(images.take(order))
    if every.seconds and np.isnan(seconds).any():
        raise DataError(
            f"{images.name}: frames are to be taken every {every.seconds:g} seconds, but not all say when they were "
            "taken. Give a number of frames, as 10"
        )
    taken, last = [], -np.inf
    for row, (place, when) in enumerate(zip(number - number[0], seconds, strict=True)):
        if every.taken(int(place), when, last):
            taken.append(row)
            last = when
    return Frames(images.path.take(order[taken]), number[taken], seconds[taken])


def _naturally(paths: Paths) -> Array:
    """The order of names in which numbers count as such."""

    def key(row: int) -> list[tuple[int, str]]:
        parts = re.split(r"(\d+)", paths.relative(row))
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]

    return np.array(sorted(range(len(paths)), key=key), np.int64)


def _seconds(images: Places) -> Array:
    """Seconds from the first frame on; NaN where a time is unknown, or they do not rise with the frames."""
    later = (images.time - images.time[0]) / np.timedelta64(1, "s")
    if np.isnan(later).any() or not later.any():
        return np.full(len(images), np.nan)
    if (falls := np.flatnonzero(np.diff(later) < 0)).size:
        pair = images.path[falls[0]], images.path[falls[0] + 1]
        log.warning("%s was taken later than %s, which follows it: no seconds are given", *pair)
        return np.full(len(images), np.nan)
    return later
