"""Views a second cut out of SF-XL's 512 x 3328 panoramas by heading, beside images of 512 x 512 that were cut before.

A JPEG is decoded as a whole, whatever part of it is looked at; at 224 pixels a half of its size suffices (`reduce`),
unless the augmentation's crop is small. Rounds are interleaved, and the first batch of each is not timed.

  python -m benchmarks.panoramas --out benchmarks/results/panoramas.json
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from benchmarks import side_by_side
from benchmarks.loader import one_round
from data_pipelines.augment import Augment
from data_pipelines.draws import Draw
from data_pipelines.image_source import ImageSource
from data_pipelines.images import decode
from data_pipelines.loaders import StepReader, batches
from data_pipelines.panorama import SF_XL, Panorama, cut
from data_pipelines.places import Paths

FILES, BATCH, VIEW = 8, 32, 512
AUGMENT = Augment(0.7, 0.7, 0.7, 0.5, scale=(0.5, 1.0))


def write_images(folder: Path) -> tuple[Paths, Paths]:
    """Street-like panoramas, and a view of each as a file of its own."""
    names = [f"{index}.jpg" for index in range(FILES)]
    for kind in ("panoramas", "views"):
        (folder / kind).mkdir()
    for index, name in enumerate(names):
        rng = np.random.default_rng(index)
        image = cv2.resize(rng.uniform(0, 255, (6, 40, 3)).astype(np.float32), SF_XL[::-1])
        for _ in range(400):
            top, left, height, width = (rng.uniform(0, 1, 4) * (*SF_XL, SF_XL[0] / 3, 90)).astype(int)
            image[top : top + height, left : left + width] = rng.uniform(0, 255, 3)
        image += rng.normal(0, 4, image.shape)
        whole = str(folder / "panoramas" / name)
        cv2.imwrite(whole, image.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])
        view = cut(decode(whole), 0, 0, VIEW)[..., ::-1]
        cv2.imwrite(str(folder / "views" / name), view, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return Paths.of(names, folder / "panoramas"), Paths.of(names, folder / "views")


def draw(headed: bool, step: int) -> dict[str, Draw]:
    """All files in turn, with headings all round where they are panoramas."""
    position = np.arange(step * BATCH, (step + 1) * BATCH)
    return {"source": Draw.of(position % FILES, view=position * 37.0 % 360 if headed else np.nan)}


def read(source: ImageSource, steps: int, threads: int) -> Iterator:
    """The batches of a round."""
    reader = StepReader({"source": source}, functools.partial(draw, source.panorama is not None))
    return batches(reader, 0, steps, threads=threads, prefetch=4)


def measure(size: int, rounds: int, steps: int, threads: int) -> dict:
    """Interleaved rounds of every way to read, at one size of the result."""
    with tempfile.TemporaryDirectory() as folder:
        panoramas, views = write_images(Path(folder))
        looked = Panorama(SF_XL, np.zeros(FILES, np.float32), VIEW)
        make = functools.partial(ImageSource, size=(size, size), augment=AUGMENT)
        sources = {
            "cut, reduced": make(panoramas, panorama=looked),
            "cut, every pixel": make(panoramas, panorama=looked, reduce=False),
            "512 x 512 files": make(views),
        }
        rates: dict[str, list[float]] = {name: [] for name in sources}
        costs: dict[str, list[float]] = {name: [] for name in sources}
        for name in side_by_side.turns(list(sources), rounds):
            rate, cost, _ = one_round(functools.partial(read, sources[name], steps, threads), BATCH, steps)
            rates[name].append(rate)
            costs[name].append(cost)
    return {
        "size": size,
        "views_per_round": steps * BATCH,
        "median_views_per_second": side_by_side.medians(rates, 0),
        "cpu_ms_per_view": side_by_side.medians(costs, 2),
    }


def main() -> None:
    """Measures every size."""
    parser = side_by_side.flags(__doc__, rounds=3)
    parser.add_argument("--sizes", nargs="+", type=int, default=[512, 224, 64])
    parser.add_argument("--steps", type=int, default=8, help="batches a round")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    results = [measure(size, given.rounds, given.steps, given.threads) for size in given.sizes]
    packages = ("pillow", "opencv-python-headless", "grain")
    side_by_side.finish(side_by_side.report(results, packages, threads=given.threads), given.out)


if __name__ == "__main__":
    main()
