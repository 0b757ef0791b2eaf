"""A user's own folder of photos, with positions from file names or EXIF, or without."""

from __future__ import annotations

import os
from pathlib import Path

from data_pipelines.places import ROLES, Paths, Places, index_of
from data_pipelines.readers import at_names, listing, photos


def paths(images: str | os.PathLike[str]) -> Paths:
    """The images of a folder (sub-folders included, in sorted order), or the one image of a file's path.

    Other files of a folder are counted and left out.
    """
    images = Path(images)
    return Paths.of([images.name], images.parent) if images.is_file() else listing.images(images, others="skip")


def read(images: str | os.PathLike[str], *, role: str = "database") -> Places:
    """Reads a folder: positions from '@' names where every name is one, else from EXIF GPS where a photo has it.

    Args:
      images: folder, or one image file.
      role: of all of them.

    Raises:
      DataError: no such folder, nothing in it, or a file that is not an image.
    """
    index_of("role", role, ROLES)
    listed = paths(images)
    name = Path(listed.root).resolve().name
    if all(listed.relative(row).rsplit("/", 1)[-1].startswith("@") for row in range(len(listed))):
        return at_names.table(name, listed, role)
    return photos.table(name, listed, role=role, without_position="keep")
