"""Frames of a video file, one after the other, by OpenCV's FFmpeg."""

from __future__ import annotations

import logging
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.progress import Bar

log = logging.getLogger(__name__)
Array = np.ndarray
SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".3gp", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv",
    ".ogv",
)  # fmt: skip
# Playlists are left out: what they name, files and addresses, FFmpeg would open.
CONTAINERS = "mov,mp4,avi,matroska,webm,mpegts,mpeg,asf,flv,ogg"
FFMPEG = {
    "OPENCV_FFMPEG_CAPTURE_OPTIONS": f"protocol_whitelist;file|format_whitelist;{CONTAINERS}",
    "OPENCV_FFMPEG_LOGLEVEL": "-8",  # what is wrong is said by us, once
}
FEWER = 0.02  # share of its frames that a whole video may have fewer than it says, since some only say an estimate


class Every(NamedTuple):
    """Which frames of a drive are taken: one in so many `seconds`, or one in so many `frames`; 0 where it is not so."""

    seconds: float = 0.0
    frames: int = 0

    @classmethod
    def parse(cls, text: str) -> Every:
        """`0.5s` or `10`. Raises DataError for anything else."""
        found = re.fullmatch(r"(\d+)|(\d*\.?\d+) ?s", text.strip())
        every = cls(float(found[2] or 0), int(found[1] or 0)) if found else cls()
        if not any(every):
            raise DataError(f"{text!r} is neither seconds between frames, such as 0.5s, nor a number of frames, as 10")
        return every

    def taken(self, number: int, seconds: float, last: float) -> bool:
        """Whether a frame is taken.

        Args:
          number: of the frame, from 0.
          seconds: when it was seen. last: when the one was seen that was taken before it; -inf for none.
        """
        # A clock of whole frames is half a millisecond off a clock of seconds.
        due = np.floor(last / self.seconds + 1e-3) + 1 if self.seconds and np.isfinite(last) else -np.inf
        return seconds / self.seconds + 1e-3 >= due if self.seconds else number % self.frames == 0


class Frame(NamedTuple):
    """A frame: its number in the video, from 0; seconds from the start; uint8 [H, W, 3], upright, BGR as OpenCV's."""

    number: int
    seconds: float
    image: Array


def is_video(path: str | os.PathLike[str]) -> bool:
    """Whether a path is called as videos are."""
    return os.fspath(path).lower().endswith(SUFFIXES)


def frames(file: str | os.PathLike[str], every: Every) -> Iterator[Frame]:
    """Some frames of a video, in order; one is in memory at a time.

    A rotation that the file states is applied. A video that ends before all of its frames came gives those that there
    are, and a warning says so.

    Raises:
      DataError: no such file, one that FFmpeg does not read as a video, or one without a frame.
    """
    name = os.fspath(file)
    if not Path(name).is_file():
        raise DataError(f"{name}: there is no such video, or it is a folder or a pipe. Expected a file")
    with _opened(name) as capture:
        rate, stated = (float(capture.get(key)) for key in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        number, seconds, last, lost = 0, 0.0, -np.inf, 0
        with Bar("reading the video", max(int(stated), 1), "frames") as bar:
            while capture.grab():
                seconds = _seconds(capture, number, rate, seconds)
                if every.taken(number, seconds, last):
                    last = seconds
                    whole, image = capture.retrieve()
                    lost += not whole
                    if whole:
                        yield Frame(number, seconds, image)
                number += 1
                bar.advance(1)
    if not number:
        raise DataError(f"{name}: the video holds no frame that can be decoded. {_convert(name)}")
    if number < stated * (1 - FEWER) - 1:
        log.warning(
            "%s breaks off: frame %d, %.1f seconds after its start, is the last that can be decoded of %d. The frames "
            "before are used. Copy the video again, or record it anew", name, number - 1, seconds, stated
        )  # fmt: skip
    if lost:
        log.warning("%s: %d frames could not be decoded and are left out", name, lost)


def _convert(name: str) -> str:
    return (
        f"If a player shows it, convert it: ffmpeg -i {shlex.quote(name)} -c:v libx264 -pix_fmt yuv420p converted.mp4"
    )


@contextmanager
def _opened(name: str) -> Iterator[Any]:
    for key, value in FFMPEG.items():
        os.environ.setdefault(key, value)
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(0)
    capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            size = Path(name).stat().st_size
            cut = "It may have been cut off while it was recorded or copied" if size else "The file is empty"
            raise DataError(f"{name}: cannot be read as a video. {cut}. {_convert(name)}")
        yield capture
    finally:
        capture.release()
        cv2.utils.logging.setLogLevel(level)


def _seconds(capture: Any, number: int, rate: float, before: float) -> float:
    """When a frame is shown; by number and rate where the file has no times, or none that rise."""
    seconds = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
    if number and not seconds > before:
        return number / rate if rate > 0 else before
    return max(seconds, 0.0)
