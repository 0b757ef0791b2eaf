# ruff: noqa: PTH100, PTH118 (paths are plain strings here: millions of Path objects would be slow)
"""`Paths`, millions of file paths or other addresses of images in one blob of bytes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

import numpy as np

from data_pipelines import digests
from data_pipelines.answers import offsets, taken

Array = np.ndarray


def is_url(path: str) -> bool:
    """Whether a path is an address with a scheme, such as gs://bucket/a.jpg, which lies under no folder."""
    return "://" in path


class Paths(Sequence[str]):
    """An immutable sequence of file paths, held as a common root, a blob of UTF-8 bytes and int64 offsets.

    Args:
      root: folder that every path is relative to; may be empty, or a bucket's (`is_url`).
      blob: uint8 [bytes], the relative paths one after the other.
      offsets: int64 [N + 1]; path i is `blob[offsets[i]:offsets[i + 1]]`.
    """

    __slots__ = ("blob", "offsets", "root")

    def __init__(self, root: str, blob: Array, offsets: Array):
        self.root, self.blob, self.offsets = root, blob, offsets

    @classmethod
    def of(cls, relative: Iterable[str | bytes], root: str | os.PathLike[str] = "") -> Paths:
        """Packs `relative` paths that lie under `root`."""
        encoded = [os.fsencode(path) for path in relative]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        return cls(os.fspath(root), np.frombuffer(b"".join(encoded), np.uint8), offsets(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row):
        """The path of one row (an int), with the root. Use `take` for many."""
        relative = self.relative(int(row))
        return relative if is_url(relative) else os.path.join(self.root, relative)

    def relative(self, row: int) -> str:
        """The path of one row relative to `root`."""
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} paths")
        row %= len(self)
        return os.fsdecode(self.blob[self.offsets[row] : self.offsets[row + 1]].tobytes())

    def take(self, rows: Array) -> Paths:
        """The paths of `rows` (int [M]) as a new blob, without a Python loop over the rows."""
        rows = np.asarray(rows, np.int64)
        return Paths(self.root, *taken(self.blob, self.offsets[:-1][rows], np.diff(self.offsets)[rows]))

    def under(self, root: str) -> Paths:
        """The same files with paths relative to `root`, a folder above (or equal to) the root they have."""
        if is_url(self.root) or re.search(b"://", self.blob.data):
            return Paths.of((_under(self[i], root) for i in range(len(self))), root)
        relative = os.path.relpath(os.path.abspath(self.root), root)
        if relative == ".":
            return Paths(root, self.blob, self.offsets)
        if len(self) and (self.blob[np.minimum(self.offsets[:-1], len(self.blob) - 1)] == ord("/")).any():
            return Paths.of((_under(self[i], root) for i in range(len(self))), root)
        prefix = np.frombuffer(os.fsencode(relative) + b"/", np.uint8)
        offsets = self.offsets + np.arange(len(self) + 1) * len(prefix)
        blob = np.empty(offsets[-1], np.uint8)
        own = np.ones(len(blob), bool)
        for k, character in enumerate(prefix):
            blob[offsets[:-1] + k] = character
            own[offsets[:-1] + k] = False
        blob[own] = self.blob
        return Paths(root, blob, offsets)

    def digest(self) -> str:
        """A name of the paths, wherever their root lies."""
        return digests.of_arrays((self.blob, self.offsets))

    @staticmethod
    def concat(parts: Sequence[Paths]) -> Paths:
        """One sequence of several; parts with other roots are rewritten under a common one."""
        if len(parts) == 1:
            return parts[0]
        if len({part.root for part in parts}) > 1:
            folders = [os.path.abspath(part.root) for part in parts if not is_url(part.root)]
            root = os.path.commonpath(folders) if folders else ""
            parts = [part.under(root) for part in parts]
        sizes = np.cumsum([0] + [len(part.blob) for part in parts])
        offsets = [part.offsets[1:] + size for part, size in zip(parts, sizes, strict=False)]
        return Paths(parts[0].root, np.concatenate([p.blob for p in parts]), np.concatenate([[0], *offsets]))


def _under(path: str, root: str) -> str:
    return path if is_url(path) else os.path.relpath(os.path.abspath(path), root)
