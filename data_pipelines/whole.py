"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields another name to write to; the file gets its own when the block ends, and vanishes where the block fails.

    The other name is this process's own, begins with a dot and ends with `.part`, so that nobody takes it for an image.
    A reader sees the old file or the new one, never half of one.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file whole or not at all."""
    with whole(path) as part:
        part.write_bytes(content)


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Writes JSON, indented, whole or not at all. ValueError for numbers that JSON lacks (NaN, infinity)."""
    text = json.dumps(content, indent=2, allow_nan=False)
    write_bytes(path, (text + "\n").encode())
