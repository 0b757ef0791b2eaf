"""Readers: one file a format, each turning files on disk into `Places`."""

from __future__ import annotations

import os

from data_pipelines.errors import DataError
from data_pipelines.places import Places
from data_pipelines.readers import at_names

READERS = {"at_names": at_names.read}


def read(reader: str, root: str | os.PathLike[str], **options) -> Places:
    """Reads the data set at `root` with the reader of that name; its own docstring says what `options` it knows.

    Raises:
      DataError: no such reader, an option that it does not know, or whatever it finds wrong with the files.
    """
    if reader not in READERS:
        raise DataError(f"no reader {reader!r}; there are {sorted(READERS)}")
    return READERS[reader](root, **options)
