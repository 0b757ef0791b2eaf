"""Files that are written completely or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOM = 200  # bytes of a name that leave room for more within the 255 that a system takes


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary name in the same folder; it becomes `path` when the block ends, and is deleted if it fails.

    A reader sees the old file or the new one, never half of one. The temporary name holds this process's number, so
    that two processes do not write to one file. It begins with a dot and ends with `.part`, so that no reader of
    images takes it for one. That of a name nearly as long as the system allows holds a digest of it.
    """
    path = Path(path)
    encoded = os.fsencode(path.name)
    name = path.name if len(encoded) <= ROOM else hashlib.sha256(encoded).hexdigest()[:16]
    part = path.with_name(f".{name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        # A write that fails does not say to which file, and NumPy's not even why: less was written than requested.
        if error.errno is None and "written" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path)) from error
        error.filename = error.filename or os.fspath(path)
        raise
    finally:
        part.unlink(missing_ok=True)


def shortened(name: str) -> str:
    """The beginning of a name, 200 bytes at most."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= ROOM else encoded[:ROOM].decode(errors="ignore")


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file completely or not at all."""
    with replacing(path) as part:
        part.write_bytes(content)


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Writes indented JSON, completely or not at all.

    Raises:
      ValueError: for numbers that JSON lacks (NaN, infinity).
    """
    text = json.dumps(content, indent=2, allow_nan=False)
    write_bytes(path, (text + "\n").encode())
