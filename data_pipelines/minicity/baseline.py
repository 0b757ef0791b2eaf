"""Raw thumbnails as descriptors: what a network has to beat. 32 x 24 grey, mean removed, compared by cosine."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.minicity.randomness import Array

WIDTH, HEIGHT = 32, 24


def thumbnails(files: list[Path]) -> Array:
    """float32 [N, 768] of unit length, one row a file."""
    rows = np.empty((len(files), WIDTH * HEIGHT), np.float32)
    for row, file in zip(rows, files, strict=True):
        grey = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        if grey is None:
            raise DataError(f"{file}: not an image that OpenCV can read")
        row[:] = cv2.resize(grey, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA).ravel()
    rows -= rows.mean(1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def thumbnail_recall(root: Path, split: str = "test", radius: float = 25.0, ns: tuple[int, ...] = (1, 5, 10)) -> dict:
    """Recall@n in per cent of thumbnails on one split of a city, all queries and those of each condition.

    A query counts as found at n if one of its n nearest database images lies within `radius` metres.

    Returns:
      {"all": {n: per cent}, "day": {…}, …}.
    """
    folders = [Path(root) / "images" / split / part for part in ("database", "queries")]
    database, queries = (sorted(folder.glob("*.jpg")) for folder in folders)
    if not database or not queries:
        raise DataError(f"{folders[0].parent} holds no database and queries; write the city first")
    order = np.argsort(-thumbnails(queries) @ thumbnails(database).T, axis=1, kind="stable")[:, : max(ns)]
    metres = np.linalg.norm(_positions(queries)[:, None] - _positions(database)[order], axis=2)
    conditions = np.array([file.name.split("@")[14].split("_")[0] for file in queries])
    groups = {"all": np.ones(len(queries), bool)} | {c: conditions == c for c in dict.fromkeys(conditions)}
    found = {n: (metres[:, :n] <= radius).any(1) for n in ns}
    return {name: {n: 100 * float(found[n][rows].mean()) for n in ns} for name, rows in groups.items()}


def _positions(files: list[Path]) -> Array:
    """float64 [N, 2] metres east and north, from the names."""
    return np.array([file.name.split("@")[1:3] for file in files], float)
