"""Images that the verb `records` wrote: the same table as of the data set they were written from."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from data_pipelines.errors import DataError
from data_pipelines.paths import is_url
from data_pipelines.places import Places
from data_pipelines.records import folder, table


def read(root: str | os.PathLike[str], *, name: str | None = None, host: int = 0, hosts: int = 1) -> Places:
    """Reads a folder of records: all columns, names and published answers as they were written.

    Nothing but the table is read. That all files of records are there, as long as they were written, is looked at.

    Args:
      root: the folder, as `jaxvpr records --out` or a builder of TFDS left it.
      name: of the data set, for reports; that of the one it was written from by default.
      host, hosts: look only for the shards of one of so many hosts that share them (`loader.own_shards`).

    Raises:
      DataError: no records, or not all of them; names the file.
    """
    if is_url(os.fspath(root)):
        raise DataError(
            f"{root}: files of records are opened on disk. Mount the bucket (gcsfuse, mountpoint-s3), or copy the "
            "folder to a disk of each host"
        )
    root = Path(root)
    contents = folder.finished(root)
    folder.check_sizes(root, contents, host, hosts)
    places = table.read(root / table.FILE, contents.files)
    images = sum(shard.images for shard in contents.done.values())
    if images != len(places):
        raise DataError(f"{root}: {images} records, but {len(places)} rows of {table.FILE}. Copy the folder again")
    return places if name is None else replace(places, name=name)
