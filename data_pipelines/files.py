"""Files that are read as data."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def opened(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a file to read its bytes; OSError where there is none, and for what may never end: a pipe, a device."""
    mode = Path(path).stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # of a folder the system itself says so
        raise OSError(errno.EINVAL, "a pipe, device or socket, not a file on disk", os.fspath(path))
    return Path(path).open("rb")


def contents(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file; OSError as `opened`."""
    with opened(path) as file:
        return file.read()
