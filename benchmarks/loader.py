"""Images a second of the grain loader beside a PyTorch DataLoader that does the same work.

Both read JPEGs, take a random resized crop (scale 0.5..1), jitter the colours (.7, .7, .7, .5) and stack uint8
batches. The peer is torchvision's transforms on PIL images in a DataLoader with worker processes. Rounds are
interleaved, and the first batch of each is not timed, so that starting workers counts for neither. The processor time
per image, of all processes together, is reported too: it says the same on a machine that does other work besides
(for workers it includes starting them).
"linear" is the rule that recipes may choose for speed; the other rows resize with Pillow's filter, as the peer does.

  python -m benchmarks.loader --torchvision FOLDER --out benchmarks/results/loader.json

FOLDER holds torchvision where it is not installed: `pip install --no-deps --target FOLDER torchvision`. Its compiled
operators need not fit this torch; the transforms use none of them.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from data_pipelines.augment import Augment
from data_pipelines.loaders import Draw, ImageSource, StepReader, batches
from data_pipelines.places import Paths

# name -> (pixels of the file, pixels of the result, images a round, batch)
CASES = {
    "1024 to 224": (1024, 224, 256, 32),
    "512 to 224": (512, 224, 512, 32),
    "128 to 128": (128, 128, 2048, 64),
    "64 to 64": (64, 64, 4096, 64),
}
FILES = 64
JITTER = (0.7, 0.7, 0.7, 0.5)
SCALE = (0.5, 1.0)


def write_images(folder: Path, size: int) -> Paths:
    """Street-like pictures: smooth at large scale, with edges of façades and windows and some noise."""
    for index in range(FILES):
        rng = np.random.default_rng(index)
        image: np.ndarray = cv2.resize(
            rng.uniform(0, 255, (6, 6, 3)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC
        )
        for _ in range(60):
            top, left, height, width = (rng.uniform(0, 1, 4) * (size, size, size / 3, size / 6)).astype(int)
            image[top : top + height, left : left + width] = rng.uniform(0, 255, 3)
        image += rng.normal(0, 4, image.shape)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{index}.jpg", quality=90)
    return Paths.of([f"{index}.jpg" for index in range(FILES)], folder)


def draw(batch: int, step: int) -> dict[str, Draw]:
    """The same rows as the peer's: all files in turn."""
    return {"source": Draw.of(np.arange(step * batch, (step + 1) * batch) % FILES)}


def ours(paths: Paths, size: int, batch: int, steps: int, rule: str, threads: int, workers: int) -> Iterator:
    """This project's loader."""
    augment = Augment(*JITTER, scale=SCALE)
    source = ImageSource(paths, (size, size), rule=rule, augment=augment)
    reader = StepReader({"source": source}, functools.partial(draw, batch))
    return batches(reader, 0, steps, threads=threads, workers=workers, prefetch=4)


class Pictures:
    """PyTorch's map-style data set of the same files."""

    def __init__(self, paths: Paths, size: int, length: int):
        from torchvision import transforms

        self.paths, self.length = paths, length
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(size, scale=SCALE, antialias=True),
                transforms.ColorJitter(*JITTER),
                transforms.PILToTensor(),
            ]
        )

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int):
        with Image.open(self.paths[index % FILES]) as image:
            return self.transform(image.convert("RGB"))


def peer(paths: Paths, size: int, batch: int, steps: int, workers: int) -> Iterator:
    """PyTorch's loader."""
    from torch.utils.data import DataLoader

    pictures: Any = Pictures(paths, size, batch * steps)
    return iter(DataLoader(pictures, batch, num_workers=workers, prefetch_factor=4))


def processor_seconds() -> float:
    """Of this process and of those it has waited for."""
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


def one_round(start: Callable[[], Iterator], batch: int, steps: int) -> tuple[float, float]:
    """(images/s of all batches but the first, processor milliseconds per image of all batches)."""
    used, iterator = processor_seconds(), start()
    next(iterator)
    began = time.perf_counter()
    count = sum(1 for _ in iterator)
    seconds = time.perf_counter() - began
    assert count == steps - 1
    del iterator
    gc.collect()
    return count * batch / seconds, 1000 * (processor_seconds() - used) / (steps * batch)


def find_torchvision(folder: str | None) -> None:
    """Makes torchvision importable from `folder`: the operators it expects are declared, as its own may not load."""
    if folder:
        import torch

        sys.path.insert(0, folder)
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor boxes, Tensor scores, float threshold) -> Tensor")


def measure(case: str, rounds: int, processes: int) -> dict:
    """Interleaved rounds of every loader on one case."""
    pixels, size, images, batch = CASES[case]
    steps = images // batch
    with tempfile.TemporaryDirectory() as folder:
        paths = write_images(Path(folder), pixels)
        shared = paths, size, batch, steps
        loaders = {
            "torch DataLoader": functools.partial(peer, *shared, processes),
            "threads": functools.partial(ours, *shared, "pil_bilinear", processes, 0),
            "workers": functools.partial(ours, *shared, "pil_bilinear", 1, processes),
            "threads, linear": functools.partial(ours, *shared, "linear", processes, 0),
        }
        rates: dict[str, list[float]] = {name: [] for name in loaders}
        costs: dict[str, list[float]] = {name: [] for name in loaders}
        for index in range(rounds):
            for name in list(loaders)[index % len(loaders) :] + list(loaders)[: index % len(loaders)]:
                rate, cost = one_round(loaders[name], batch, steps)
                rates[name].append(rate)
                costs[name].append(cost)
        kilobytes = statistics.mean(path.stat().st_size for path in Path(folder).iterdir()) / 1000
    ratios = {
        name: statistics.median(a / b for a, b in zip(rates[name], rates["torch DataLoader"], strict=True))
        for name in rates
    }
    return {
        "case": case,
        "file kB": round(kilobytes, 1),
        "batch": batch,
        "images per round": images,
        "images/s": {name: [round(rate) for rate in rates[name]] for name in rates},
        "median images/s": {name: round(statistics.median(rates[name])) for name in rates},
        "median CPU ms/image": {name: round(statistics.median(costs[name]), 3) for name in costs},
        "median ratio to torch": {name: round(ratio, 2) for name, ratio in ratios.items()},
    }


def main() -> None:
    """Prints a table and writes the figures with their command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torchvision", help="folder that holds torchvision")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2, help="threads or workers of each loader")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    find_torchvision(arguments.torchvision)
    import torch
    import torchvision

    results = []
    for case in arguments.cases:
        results.append(measure(case, arguments.rounds, arguments.processes))
        for figure in ("median images/s", "median CPU ms/image", "median ratio to torch"):
            print(f"{case:12} {figure:22} {results[-1][figure]}", flush=True)
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__, "opencv": cv2.__version__}
    report = {
        "command": "python -m benchmarks.loader " + " ".join(sys.argv[1:]),
        "cores": os.cpu_count(),
        "load average": os.getloadavg(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "versions": versions,
        "results": results,
    }
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
