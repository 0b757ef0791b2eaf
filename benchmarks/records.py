"""Images of records beside the same images as files: their bytes alone, decoded, and what a training waits for them.

Rows are drawn at random, as training does. The sides take turns. All files are in the page cache: what records save,
look-ups on network disks and inodes, does not show here. "groups of 32" are the same records with 32 compressed
together, of which one is wanted: the layout for reading in order.

  python -m jaxvpr.main records --config=configs/cosplace.py --images=CITY --reader=at_names --out=RECORDS
  python -m benchmarks.records --images CITY --records RECORDS --out benchmarks/results/records.json

With --recipe, that recipe is trained on the split train of both, and what it prints says how long its steps waited.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import side_by_side
from data_pipelines import image_bytes, readers
from data_pipelines.draws import Draw
from data_pipelines.image_source import ImageSource
from data_pipelines.paths import Paths
from data_pipelines.records import folder, shards

FILES, RECORDS, GROUPED = "files", "records", "records, groups of 32"
SIZE = (64, 64)  # the default recipe's


def grouped(records: Path, paths: Paths, into: Path) -> Paths:
    """The same records under the same names in groups of 32."""
    from array_record.python.array_record_module import ArrayRecordWriter

    for name in folder.finished(records).files:
        reader, writer = shards.opened(records / name), ArrayRecordWriter(str(into / name), "group_size:32")
        for number in range(reader.num_records()):
            writer.write(reader.read([number])[0])
        writer.close()
    return Paths(str(into), paths.blob, paths.offsets)


def take_bytes(paths: Paths, rows: np.ndarray) -> int:
    """Reads images one after the other and gives their bytes."""
    return sum(len(image_bytes.read(paths[row])) for row in rows.tolist())


def take_pixels(paths: Paths, rows: np.ndarray) -> int:
    """Reads, decodes and resizes images one after the other."""
    return int(ImageSource(paths, SIZE, rule="area").read(Draw.of(rows), 0, 0, "s")["image"].sum())


def measure(what: str, take: Callable[[Paths, np.ndarray], int], sides: dict[str, Paths], rounds: int, rows: int):
    """Interleaved rounds of all sides over the same random rows, each after one that is not timed."""
    microseconds: dict[str, list[float]] = {side: [] for side in sides}
    busy: dict[str, list[float]] = {side: [] for side in sides}
    for number, side in enumerate(side_by_side.turns(list(sides), rounds + 1)):
        of_round = number // len(sides)
        chosen = np.random.default_rng(of_round).integers(0, len(sides[side]), rows)
        began, used = time.perf_counter(), time.process_time()
        result = take(sides[side], chosen)
        if of_round:
            microseconds[side].append((time.perf_counter() - began) / rows * 1e6)
            busy[side].append((time.process_time() - used) / rows * 1e6)
        expected = result if number % len(sides) == 0 else expected  # noqa: F821 (the first side of a round sets it)
        assert result == expected, f"{side} has other images"
    rates = {side: [1e6 / one for one in values] for side, values in microseconds.items()}
    return {
        "what": what,
        "images_a_round": rows,
        "microseconds_per_image": side_by_side.medians(microseconds),
        "cpu_microseconds_per_image": side_by_side.medians(busy),
        "images_per_second": side_by_side.medians(rates, 0),
        "ratio_to_files": side_by_side.ratios(rates, FILES),
    }


def on_disk(files: Sequence[Path]) -> dict[str, int]:
    """How many files, their bytes, and those of the blocks that hold them."""
    found = [file.stat() for file in files]
    return {
        "files": len(found),
        "bytes": sum(one.st_size for one in found),
        "bytes_of_blocks": sum(512 * one.st_blocks for one in found),
    }


def waited(recipe: str, data: str) -> dict[str, float]:
    """Per cent of the time that the steps of a recipe waited for their batch: of all lines of its console, each of one
    second or a step, and how many those are."""
    with tempfile.TemporaryDirectory() as run:
        command = [sys.executable, "-m", "jaxvpr.main", f"--config={recipe},{data},log_seconds=1", f"--workdir={run}"]
        done = subprocess.run(command, check=True, cwd=side_by_side.ROOT, capture_output=True, text=True)
    shares = [int(share) for share in re.findall(r"data wait (\d+)%", done.stderr)]
    return {"mean": round(statistics.mean(shares), 2), "median": statistics.median(shares), "lines": len(shares)}


def main() -> None:
    """Measures all of it."""
    parser = side_by_side.flags(__doc__, rounds=5)
    parser.add_argument("--images", required=True, help="a folder of '@' images")
    parser.add_argument("--records", type=Path, required=True, help="what the verb records wrote of it")
    parser.add_argument("--rows", type=int, default=20_000, help="images a round")
    parser.add_argument("--recipe", help="also train it, FILE[:PRESET][,KEY=VALUE ...], on both")
    given = parser.parse_args()
    places, records = readers.read("at_names", given.images), readers.read("records", given.records)
    assert len(places) == len(records)
    with tempfile.TemporaryDirectory() as into:
        sides = {FILES: places.path, RECORDS: records.path, GROUPED: grouped(given.records, records.path, Path(into))}
        results = [
            measure(what, take, sides, given.rounds, given.rows // part)
            for what, take, part in (("bytes", take_bytes, 1), ("pixels", take_pixels, 4))
        ]
    written = [given.records / name for name in folder.finished(given.records).files]
    facts = {FILES: on_disk([Path(path) for path in places.path]), RECORDS: on_disk(written)}
    if given.recipe:
        data = {FILES: f"at_names,train_data.root={given.images}", RECORDS: f"records,train_data.root={given.records}"}
        wait = partial(waited, given.recipe)
        facts["data_wait_percent"] = {
            side: wait(f"train_data.split=train,train_data.reader={reader}") for side, reader in data.items()
        }
    side_by_side.finish(side_by_side.report(results, ("array-record", "grain", "simplejpeg"), **facts), given.out)


if __name__ == "__main__":
    main()
