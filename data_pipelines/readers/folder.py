"""A user's own folder of photos, with positions from file names or EXIF, or without."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from data_pipelines.places import ROLES, Paths, Places, index_of
from data_pipelines.readers import at_names, listing, photos, text


def paths(images: str | os.PathLike[str]) -> Paths:
    """The images of a folder (sub-folders included, in sorted order), or the one image of a file's path.

    Other files of a folder are counted and left out.
    """
    images = Path(images)
    if text.is_file(images):
        return Paths.of([images.name], images.parent)
    return listing.images(images, others="skip")


def read(images: str | os.PathLike[str], *, role: str = "database", without_position: str = "keep") -> Places:
    """Reads a folder: the position of a photo with an '@' name is what the name says, that of another what EXIF says.

    Args:
      images: folder, or one image file.
      role: of all of them.
      without_position: "keep" leaves positions unknown that neither says, "drop" leaves such photos out, "error"
        refuses them.

    Raises:
      DataError: no such folder, nothing in it, a file that is not an image, or an '@' name that cannot be read.
    """
    index_of("role", role, ROLES)
    listing.check_choice("without_position", without_position, listing.WITHOUT_POSITION)
    listed = paths(images)
    name = Path(listed.root).resolve().name
    named = np.array([_is_named(listed.relative(row)) for row in range(len(listed))])
    by_name, others = np.flatnonzero(named), np.flatnonzero(~named)
    strict = "error" if without_position == "error" else "keep"
    parts = [photos.table(name, listed.take(others), role=role, without_position=strict)] if len(others) else []
    if len(by_name):
        parts.append(at_names.table(name, listed.take(by_name), role))
    places = Places.concat(parts).take(np.argsort(np.concatenate([others, by_name])))
    return places.take(places.located) if without_position == "drop" else places


def _is_named(path: str) -> bool:
    """Whether a file has an '@' name: one that begins with '@' and has fields of numbers."""
    name = path.rsplit("/", 1)[-1]
    return name.startswith("@") and name.count("@") >= 3
