"""Processor time of reading a JPEG, from its file to RGB pixels: this project's reader, OpenCV and Pillow.

All three decode with libjpeg-turbo, and to the same pixels. Where 224 pixels suffice, a half or less of the image's
rows and columns is decoded. OpenCV is given what this project's reader has checked, as it was before simplejpeg took
its place. The readers take turns at each image, and what is timed is the one thread that reads, so that others who use
the machine matter little. The figures are the means over the images of the medians of their turns, and the ratio is the
median of the images' ratios.

  python -m benchmarks.decoding --out benchmarks/results/decoding.json
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from benchmarks import side_by_side
from benchmarks.loader import FILES, write_images
from data_pipelines import images

# name -> (pixels of the file, one of so many of its rows and columns is decoded)
CASES = {
    "64": (64, 1),
    "128": (128, 1),
    "512": (512, 1),
    "512 to 256": (512, 2),
    "1024 to 256": (1024, 4),
    "tiny": (16, 2),
}
MEASURED = tuple(CASES)[:5]
PEER = "OpenCV"
FLAGS = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}
Reader = Callable[[str, int, int], np.ndarray]


def ours(path: str, size: int, scale: int) -> np.ndarray:
    """This project's reader."""
    return images.decode(path, (size // scale, size // scale))


def opencv(path: str, size: int, scale: int) -> np.ndarray:
    """OpenCV, behind the same look at the file."""
    stored = cv2.imdecode(np.frombuffer(images.read(path).data, np.uint8), FLAGS[scale])
    return cv2.cvtColor(stored, cv2.COLOR_BGR2RGB)


def pillow(path: str, size: int, scale: int) -> np.ndarray:
    """Pillow, whose `draft` decodes a part."""
    with Image.open(path) as image:
        image.draft("RGB", (size // scale, size // scale))
        return np.asarray(image.convert("RGB"))


READERS: dict[str, Reader] = {"jaxvpr": ours, PEER: opencv, "Pillow": pillow}


def measure(case: str, rounds: int) -> dict:
    """Every reader on the files of one case."""
    size, scale = CASES[case]
    spent: dict[str, list[float]] = {name: [] for name in READERS}
    apart = dict.fromkeys(READERS, 0)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_images(Path(folder), size)
        for path in (paths[index] for index in range(FILES)):
            times: dict[str, list[int]] = {name: [] for name in READERS}
            for name in side_by_side.turns(list(READERS), rounds):
                began = time.thread_time_ns()
                READERS[name](path, size, scale)
                times[name].append(time.thread_time_ns() - began)
            wanted = READERS[PEER](path, size, scale).astype(int)
            for name, read in READERS.items():
                spent[name].append(statistics.median(times[name]) / 1e6)
                apart[name] = max(apart[name], int(np.abs(read(path, size, scale) - wanted).max()))
    return {
        "case": case,
        "images": FILES,
        "rounds": rounds,
        "cpu_ms_per_image": {name: round(statistics.mean(each), 3) for name, each in spent.items()},
        "ratio_to_opencv": side_by_side.ratios(spent, PEER),
        "largest_difference_of_a_pixel": apart,
    }


def main() -> None:
    """Measures every case."""
    parser = side_by_side.flags(__doc__, rounds=30)
    parser.add_argument("--cases", nargs="+", default=list(MEASURED), choices=list(CASES))
    given = parser.parse_args()
    results = [measure(case, given.rounds) for case in given.cases]
    packages = ("simplejpeg", "opencv-python-headless", "pillow")
    side_by_side.finish(side_by_side.report(results, packages), given.out)


if __name__ == "__main__":
    main()
