"""Images a second of the grain loader beside a PyTorch DataLoader that does the same work.

Both read JPEGs, take a random resized crop (scale 0.5..1), jitter the colours (.7, .7, .7, .5) and stack uint8
batches. The peer is torchvision's transforms on PIL images in a DataLoader with worker processes. Rounds are
interleaved, and the first batch of each is not timed, so that starting workers counts for neither. The processor time
per image, of all processes together, is reported too: it says the same on a machine that does other work besides
(for workers it includes starting them).
"linear" is the rule that recipes may choose for speed; the other rows resize with Pillow's filter, as the peer does.

  python -m benchmarks.loader --torchvision FOLDER --out benchmarks/results/loader.json

FOLDER holds torchvision where it is not installed: `pip install --no-deps --target FOLDER torchvision`. Its compiled
operators need not fit this torch; the transforms use none of them. Where there is no torchvision, our loaders are
measured alone.
"""

from __future__ import annotations

import functools
import gc
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from benchmarks import side_by_side
from data_pipelines.augment import Augment
from data_pipelines.draws import Draw
from data_pipelines.image_source import ImageSource
from data_pipelines.loaders import StepReader, batches
from data_pipelines.places import Paths

# name -> (pixels of the file, pixels of the result, images a round, batch)
CASES = {
    "1024 to 224": (1024, 224, 256, 32),
    "512 to 224": (512, 224, 512, 32),
    "128 to 128": (128, 128, 2048, 64),
    "64 to 64": (64, 64, 4096, 64),
    "400 to 320": (400, 320, 2880, 480),
    "tiny": (32, 16, 16, 4),
}
MEASURED = tuple(CASES)[:5]
PEER = "torch DataLoader"
FILES = 64
JITTER = (0.7, 0.7, 0.7, 0.5)
SCALE = (0.5, 1.0)


def write_images(folder: Path, size: int, width: int = 0) -> Paths:
    """Street-like pictures, square without a `width`: smooth at large scale, with edges of façades and windows and some
    noise."""
    width = width or size
    for index in range(FILES):
        rng = np.random.default_rng(index)
        image: np.ndarray = cv2.resize(
            rng.uniform(0, 255, (6, 6, 3)).astype(np.float32), (width, size), interpolation=cv2.INTER_CUBIC
        )
        for _ in range(60):
            top, left, high, wide = (rng.uniform(0, 1, 4) * (size, width, size / 3, width / 6)).astype(int)
            image[top : top + high, left : left + wide] = rng.uniform(0, 255, 3)
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


def one_round(start: Callable[[], Iterator], batch: int, steps: int) -> tuple[float, float, float]:
    """(images/s of all batches but the first, processor milliseconds per image of all batches, milliseconds to the
    first batch)."""
    used, opened, iterator = processor_seconds(), time.perf_counter(), start()
    next(iterator)
    began = time.perf_counter()
    count = sum(1 for _ in iterator)
    seconds = time.perf_counter() - began
    assert count == steps - 1
    del iterator
    gc.collect()
    cost = 1000 * (processor_seconds() - used) / (steps * batch)
    return count * batch / seconds, cost, 1000 * (began - opened)


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
        loaders = {PEER: functools.partial(peer, *shared, processes)} if find_spec("torchvision") else {}
        loaders |= {
            "threads": functools.partial(ours, *shared, "pil_bilinear", processes, 0),
            "workers": functools.partial(ours, *shared, "pil_bilinear", 1, processes),
            "threads, linear": functools.partial(ours, *shared, "linear", processes, 0),
        }
        rates: dict[str, list[float]] = {name: [] for name in loaders}
        costs: dict[str, list[float]] = {name: [] for name in loaders}
        firsts: dict[str, list[float]] = {name: [] for name in loaders}
        for name in side_by_side.turns(list(loaders), rounds):
            for found, number in zip((rates, costs, firsts), one_round(loaders[name], batch, steps), strict=True):
                found[name].append(number)
        kilobytes = statistics.mean(path.stat().st_size for path in Path(folder).iterdir()) / 1000
    return {
        "case": case,
        "file_kb": round(kilobytes, 1),
        "batch": batch,
        "images_per_round": images,
        "images_per_second": {name: [round(rate) for rate in rates[name]] for name in rates},
        "median_images_per_second": side_by_side.medians(rates, 0),
        "cpu_ms_per_image": side_by_side.medians(costs, 3),
        "ms_to_first_batch": side_by_side.medians(firsts, 0),
        "ratio_to_pytorch": side_by_side.ratios(rates, PEER) if PEER in rates else {},
    }


def main() -> None:
    """Measures every case."""
    parser = side_by_side.flags(__doc__, rounds=5)
    parser.add_argument("--torchvision", help="folder that holds torchvision, if it is not installed")
    parser.add_argument("--processes", type=int, default=2, help="threads or workers of each loader")
    parser.add_argument("--cases", nargs="+", default=list(MEASURED), choices=list(CASES))
    given = parser.parse_args()
    find_torchvision(given.torchvision)
    results = [measure(case, given.rounds, given.processes) for case in given.cases]
    facts = {"processes": given.processes, "torchvision": _torchvision()}
    packages = ("torch", "pillow", "opencv-python-headless", "grain")
    side_by_side.finish(side_by_side.report(results, packages, **facts), given.out)


def _torchvision() -> str | None:
    """Its version, which a folder that was not installed by pip has nowhere else."""
    if not find_spec("torchvision"):
        return None
    import torchvision

    return torchvision.__version__


if __name__ == "__main__":
    main()
