"""The bytes of an image, wherever it lies. This is the one place that opens images.

An address, as `Places.path` holds it, is
  the path of a file;
  `SHARD#17/NAME.jpg`, a record of a shard of `records`: image_records-train.array_record-00003-of-00064#17/a.jpg;
  `SCHEME://...`, such as gs://bucket/a.jpg, which fsspec opens with the package of that scheme (gcsfs, s3fs).
"""

from __future__ import annotations

import errno
import io
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from data_pipelines.errors import DataError
from data_pipelines.paths import is_url
from data_pipelines.records import shards


def read(address: str | os.PathLike[str]) -> bytes:
    """All bytes of an image.

    Raises:
      OSError: there is no such image, or it cannot be read.
      DataError: its bucket or its shard is out of reach, so that other images cannot be read either.
    """
    name = os.fspath(address)
    if record := shards.of_address(name):
        return shards.image(*record)
    if is_url(name):
        return _bucket(name)
    with _on_disk(address) as file:
        return file.read()


def opened(address: str | os.PathLike[str]) -> BinaryIO:
    """An image opened to read some of its bytes, such as the header. Raises as `read`."""
    name = os.fspath(address)
    return io.BytesIO(read(name)) if is_url(name) or shards.of_address(name) else _on_disk(address)


def _on_disk(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a file; OSError where there is none, and for what may never end: a pipe, a device."""
    mode = Path(path).stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # of a folder the system itself says so
        raise OSError(errno.EINVAL, "a pipe, device or socket, not a file on disk", os.fspath(path))
    return Path(path).open("rb")


def _bucket(address: str) -> bytes:
    with _reaching(address) as (system, path):
        return system.cat_file(path)


@contextmanager
def _reaching(address: str) -> Iterator[tuple[Any, str]]:
    """The file system of an address, and the path in it; what goes wrong there is an OSError or a DataError."""
    import fsspec  # here, since only an image in a bucket needs it

    scheme = address.partition("://")[0]
    try:
        yield fsspec.core.url_to_fs(address)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise FileNotFoundError(errno.ENOENT, "the bucket has no such image", address) from error
    except (ImportError, ValueError) as error:
        raise DataError(f"{address}: nothing here reads {scheme}://. {error}") from error
    except Exception as error:  # each of fsspec's packages has exceptions of its own for the same thing
        raise DataError(
            f"{address}: the bucket is out of reach: {type(error).__name__}: {error}. Look at its name, the network "
            f"and the credentials for {scheme}:// (the documentation of fsspec says where they are looked for)"
        ) from error


def stamp(address: str) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds of the file that an image lies in, to see whether it is
    still the same; (-1, -1) where it is out of reach.

    Of a bucket that tells no time the second is a checksum of all it tells.
    """
    name = record[0] if (record := shards.of_address(address)) else address
    try:
        if is_url(name):
            return _stamp_in_bucket(name)
        found = Path(name).stat()
        return found.st_size, found.st_mtime_ns
    except (OSError, DataError):
        return -1, -1


def _stamp_in_bucket(address: str) -> tuple[int, int]:
    with _reaching(address) as (system, path):
        found = system.info(path)
        return int(found.get("size") or 0), zlib.crc32(repr(sorted(found.items(), key=str)).encode())
