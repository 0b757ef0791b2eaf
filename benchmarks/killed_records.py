"""Writes images as records, kills the command several times at random moments, and compares every image with its file.

  python -m benchmarks.killed_records --images CITY --records NEW_FOLDER --shards 64 --kills 3 --seconds 60

SIGKILL reaches the command alone, as when a machine's memory runs out: its worker processes must end by themselves.
"""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import side_by_side
from data_pipelines import image_bytes, readers
from data_pipelines.records import folder


def killed(command: list[str], seconds: float, records: Path) -> dict:
    """Starts the command, kills it after so many seconds; what was written by then, and what was half written."""
    began, process = time.time(), subprocess.Popen(command, cwd=side_by_side.ROOT, stderr=subprocess.DEVNULL)
    try:
        process.wait(seconds)
        raise SystemExit(f"the command ended within {seconds:.1f} s; give fewer --seconds")
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    time.sleep(2)
    unfinished = records / folder.UNFINISHED
    done = len(folder.load(unfinished).done) if unfinished.exists() else 0
    return {
        "seconds": round(time.time() - began - 2, 1),
        "shards_done": done,
        "half_written": len(list(records.glob(".*.part"))) if records.exists() else 0,
        "still_writing": _grow(records),
    }


def _grow(records: Path) -> bool:
    """Whether any process of a killed command still writes."""
    sizes = [{file: file.stat().st_size for file in records.glob(".*.part")} for _ in range(2) if not time.sleep(1)]
    return sizes[0] != sizes[1]


def main() -> None:
    """Kills, finishes, compares."""
    parser = side_by_side.flags(__doc__, rounds=1)
    parser.add_argument("--images", required=True, help="a folder of '@' images")
    parser.add_argument("--records", type=Path, required=True, help="a new folder")
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60, help="the most until a kill")
    given = parser.parse_args()
    command = [sys.executable, "-m", "jaxvpr.main", "records", "--config=configs/cosplace.py", "--reader=at_names"]
    command += [f"--images={given.images}", f"--out={given.records}", f"--shards={given.shards}"]
    command += [f"--workers={given.workers}"]
    moments = random.Random(0)
    kills = [killed(command, given.seconds * moments.uniform(0.3, 1), given.records) for _ in range(given.kills)]
    began = time.time()
    subprocess.run(command, cwd=side_by_side.ROOT, check=True, stdout=subprocess.DEVNULL)
    finished = round(time.time() - began, 1)
    files, records = readers.read("at_names", given.images), readers.read("records", given.records)
    began = time.time()
    different = sum(
        hashlib.sha256(image_bytes.read(ours)).digest() != hashlib.sha256(image_bytes.read(theirs)).digest()
        for ours, theirs in zip(files.path, records.path, strict=True)
    )
    result = {
        "kills": kills,
        "last_seconds": finished,
        "verified": folder.verify(given.records),
        "images_compared": len(files),
        "images_that_differ": different,
        "seconds_to_compare": round(time.time() - began, 1),
        "left_over": sorted(file.name for file in given.records.glob(".*")),
    }
    side_by_side.finish(side_by_side.report(result, ("array-record", "tensorflow-datasets")), given.out)


if __name__ == "__main__":
    main()
