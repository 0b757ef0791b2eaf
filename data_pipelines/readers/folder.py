"""A user's own folder of photos, whatever it tells about where they were taken."""

from __future__ import annotations

import os
from pathlib import Path

from data_pipelines.errors import DataError
from data_pipelines.places import ROLES, Paths, Places
from data_pipelines.readers import at_names, listing, photos


def paths(images: str | os.PathLike[str]) -> Paths:
    """The images of a folder (sub-folders included, in sorted order), or the one image of a file's path."""
    images = Path(images)
    return Paths.of([images.name], images.parent) if images.is_file() else listing.images(images)


def read(images: str | os.PathLike[str], *, role: str = "database") -> Places:
    """Reads a folder: positions from '@' names where every name is one, else from EXIF GPS where a photo has it.

    Args:
      images: folder, or one image file.
      role: what all of them are taken as.

    Raises:
      DataError: no such folder, nothing in it, or a file that is no image.
    """
    if role not in ROLES:
        raise DataError(f"no role {role!r}; there are {list(ROLES)}")
    found = paths(images)
    if all(found.relative(row).rsplit("/", 1)[-1].startswith("@") for row in range(len(found))):
        return at_names.table(Path(found.root).resolve().name, found, role)
    return photos.table(Path(found.root).resolve().name, found, role=role, without_position="keep")
