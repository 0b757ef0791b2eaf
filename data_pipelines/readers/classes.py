"""A folder per class: every sub-folder is a place, and all images below it show that place."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.places import ROLES, SPLITS, Paths, Places, index_of
from data_pipelines.readers import listing


def read(
    root: str | os.PathLike[str], *, split: str | None = None, role: str | None = None, name: str | None = None
) -> Places:
    """Reads `<root>/<class>/...`; `place` numbers the classes in sorted order of their folders' names.

    Args:
      root: the data set; its own files are not read.
      split, role: of all images (see `Places`); None leaves it unknown.
      name: of the data set, for reports; the folder's name by default.

    Raises:
      DataError: no folder in `root`, one without images, or a file that is not an image.
    """
    root = listing.folder(root)
    split_code, role_code = index_of("split", split, SPLITS), index_of("role", role, ROLES)
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise DataError(f"no folder in {root}; expected one for each class, with its images in it")
    parts = [listing.images(folder) for folder in folders]
    return Places.create(
        name or Path(root).absolute().name,
        Paths.concat([part.under(str(Path(root).absolute())) for part in parts]),
        place_names=[folder.name for folder in folders],
        place=np.repeat(np.arange(len(parts)), [len(part) for part in parts]),
        split=split_code,
        role=role_code,
    )
