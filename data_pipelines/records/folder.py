"""A folder of records: what belongs to it, as `records.json` says, and whether it is there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from data_pipelines.atomic import write_json
from data_pipelines.cores import cores
from data_pipelines.errors import DataError
from data_pipelines.own_files import digest, read_json
from data_pipelines.places import Places
from data_pipelines.records import shards, table
from data_pipelines.records.shards import Shard

FILE, UNFINISHED = "records.json", "records.unfinished.json"
WRITE = "Write the records with: jaxvpr records --config=RECIPE --images=FOLDER --out="


class Contents(NamedTuple):
    """What a folder of records holds, or will.

    Attributes:
      listing: `Places.digest` of the images.
      split: what TFDS calls the images.
      number: of shards.
      done: those that are written, by number.
      table: checksum of the table; empty while shards are missing.
    """

    listing: str
    split: str
    number: int
    done: dict[int, Shard]
    table: str = ""

    @property
    def files(self) -> list[str]:
        """The names of all shards."""
        return [shards.file_name(self.split, k, self.number) for k in range(self.number)]

    def save(self, root: Path) -> None:
        """Writes it, as finished once it has the table."""
        done = {str(k): shard._asdict() for k, shard in sorted(self.done.items())}
        write_json(root / (FILE if self.table else UNFINISHED), {**self._asdict(), "done": done})


def finish(root: Path, contents: Contents, places: Places) -> Contents:
    """Writes the table beside shards that are all there, and says that the folder is whole."""
    table.write(root / table.FILE, places)
    whole = contents._replace(table=digest(root / table.FILE))
    whole.save(root)
    (root / UNFINISHED).unlink(missing_ok=True)
    return whole


def load(file: Path) -> Contents:
    """What `Contents.save` wrote; DataError where it did not."""
    found = read_json(file, WRITE + str(file.parent))
    try:
        done = {int(k): Shard(**shard) for k, shard in found.pop("done").items()}
        contents = Contents(**found, done=done)
        numbers = [contents.number, *(n for shard in done.values() for n in shard[:2])]
        if {type(n) for n in numbers} != {int} or min(numbers) < 0 or not 0 < contents.number <= shards.MOST:
            raise ValueError("a number is wrong")
        if {type(text) for text in (*contents[:2], contents.table)} != {str}:
            raise ValueError("a name is wrong")
        return contents
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{file} does not say what records there are ({error}). {WRITE}{file.parent}") from error


def finished(root: Path) -> Contents:
    """The contents of a folder of records; DataError where there are none, or some were not written yet."""
    if not (root / FILE).is_file() and (root / UNFINISHED).is_file():
        left = load(root / UNFINISHED)
        raise DataError(
            f"{root}: {len(left.done)} of {left.number} files of records are written. Give the command that wrote them "
            "again: it goes on where it ended"
        )
    if not (root / FILE).is_file():
        raise DataError(f"{root} holds no records: it has no {FILE}. {WRITE}{root}")
    return load(root / FILE)


def check_sizes(root: Path, contents: Contents, host: int = 0, hosts: int = 1) -> None:
    """Looks whether all shards of a host are there, as long as they were written, and the table to the byte.

    Raises:
      DataError: names the first file that is not; for more hosts than shards.
    """
    if hosts > contents.number:
        raise DataError(
            f"loader.own_shards: {hosts} hosts, but {root} has {contents.number} shards; each host needs one. Write "
            f"them anew with --shards={hosts} or more, or set loader.own_shards=false"
        )
    for k, name in list(enumerate(contents.files))[host::hosts]:
        if k not in contents.done:
            raise DataError(f"{root / FILE} does not list {name}. {shards.AGAIN}")
        shards.check_size(root / name, contents.done[k])
    if not (root / table.FILE).is_file() or digest(root / table.FILE) != contents.table:
        raise DataError(f"{root / table.FILE} is not there or has changed since it was written. {shards.AGAIN}")


def verify(root: Path, threads: int = 0) -> dict[str, Any]:
    """Reads all bytes of a folder of records.

    Returns:
      images, shards and bytes, as JSON can hold them.

    Raises:
      DataError: names the first file that is not what was written.
    """
    contents = finished(root)
    check_sizes(root, contents)
    with ThreadPoolExecutor(threads or cores()) as pool:  # checksums let go of the interpreter
        for _ in pool.map(lambda k: shards.check(root / contents.files[k], contents.done[k]), range(contents.number)):
            pass
    done = contents.done.values()
    return {"images": sum(s.images for s in done), "shards": contents.number, "bytes": sum(s.bytes for s in done)}
