"""How many processor cores the images of a recipe need for each chip that trains on them.

Measured: the processor time of an image, from its JPEG to its place in a batch, as the recipe reads and augments it;
the same without changes of colour and RandAugment, which a device could take over; and decoded and resized alone.
Counted: FLOPs of the gradient of the recipe's model, of what trains in it. Assumed: the published peak of a chip in
bfloat16 and the share of it that training reaches, `--share`. Rounds of the three ways are interleaved, in one thread.

  python -m benchmarks.cores --out benchmarks/results/cores.json

The files are made up (see `benchmarks.loader.write_images`), in the size of the recipe's data set.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import loader, panoramas, side_by_side
from benchmarks.device import program
from data_pipelines.draws import Draw
from data_pipelines.image_source import ImageSource
from data_pipelines.panorama import SF_XL
from jaxvpr import builders
from jaxvpr.builders.training_images import augmentation, image_source
from jaxvpr.cli.recipes import load_config
from jaxvpr.objectives.objective import embed_images
from jaxvpr.training.optimisers import join_frozen, split_frozen

TFLOPS = {"H100": 989.0, "TPU v5e": 197.0}  # published peaks of a chip in bfloat16, dense
IMAGES = 48  # a round and way


class Case(NamedTuple):
    """A recipe, the (height, width) of its files, and images of an element of which only the first is augmented."""

    recipe: str
    file: tuple[int, int]
    element: int = 1


CASES = {
    "cosplace": Case("configs/cosplace.py:sf_xl", (512, 512)),
    "eigenplaces": Case("configs/eigenplaces.py:sf_xl", SF_XL),
    "mixvpr": Case("configs/mixvpr.py:mixvpr", (300, 400)),
    "salad": Case("configs/salad.py:salad", (300, 400)),
    "cliquemining, MSLS": Case("configs/salad.py:cliquemining", (480, 640)),
    "netvlad": Case("configs/netvlad.py:msls", (480, 640), 12),
    "tiny": Case("configs/cosplace.py:tiny", (64, 64)),
}
MEASURED = tuple(CASES)[:6]


def sources(case: Case, config: Any, folder: Path) -> dict[str, ImageSource]:
    """The recipe's source of training images, and two that do less."""
    if case.file == SF_XL:
        paths, _ = panoramas.write_images(folder)
    else:
        paths = loader.write_images(folder, *case.file)
    yaw = np.zeros(len(paths), np.float32) if case.file == SF_XL else None
    recipe = image_source(config, paths, yaw=yaw, queries_only=case.element > 1)
    augment = augmentation(config)
    crops = dataclasses.replace(augment, brightness=0, contrast=0, saturation=0, hue=0, randaugment=0)
    plain = dataclasses.replace(recipe, augment=None, queries_only=False, reduce=not recipe.queries_only)
    return {
        "recipe": recipe,
        "without colours": dataclasses.replace(recipe, augment=crops),
        "decoded and resized": plain,
    }


def processor_ms(source: ImageSource, case: Case, step: int) -> float:
    """Milliseconds of processor time an image."""
    rows = np.arange(IMAGES).reshape(-1, case.element) % len(source)
    rows, view = rows[:, 0] if case.element == 1 else rows, np.nan
    if source.panorama is not None:
        view = np.arange(len(rows)) * 37.0 % 360
    began = time.process_time()
    source.read(Draw.of(rows, view=view), 0, step, "source")
    return 1000 * (time.process_time() - began) / IMAGES


def gflop(config: Any, images: int = 4) -> float:
    """GFLOP of a training step for each image: forward, and backward through what trains."""
    model, variables = builders.model(config), builders.shapes(config)
    trained, fixed = split_frozen(variables["params"], config.frozen)
    batch = {"image": jax.ShapeDtypeStruct((images, *config.image.size, 3), np.uint8)}

    def value(trained: Any, fixed: Any, stats: Any, batch: Any) -> jax.Array:
        embed = embed_images(model)
        return embed(join_frozen(trained, fixed), stats, {}, batch, jax.random.key(0))[0].astype(jnp.float32).sum()

    with jax.numpy_dtype_promotion("standard"):
        traced = jax.make_jaxpr(jax.grad(value))(trained, fixed, variables.get("batch_stats", {}), batch)
    return sum(program.flops(traced).values()) / images / 1e9


def measure(name: str, rounds: int, share: float) -> dict[str, Any]:
    """One case."""
    case = CASES[name]
    config, costs = load_config(case.recipe), dict[str, list[float]]()
    with tempfile.TemporaryDirectory() as folder:
        ways = sources(case, config, Path(folder))
        for number, way in enumerate(side_by_side.turns(list(ways), rounds + 1)):
            cost = processor_ms(ways[way], case, number)
            if number >= len(ways):  # the first round warms up
                costs.setdefault(way, []).append(cost)
    found, work = side_by_side.medians(costs, 3), gflop(config)
    rates = {chip: 1000 * share * peak / work for chip, peak in TFLOPS.items()}
    return {
        "case": name,
        "recipe": case.recipe,
        "file": case.file,
        "size": tuple(config.image.size),
        "cpu_ms_per_image": found,
        "colours_share": round(1 - found["without colours"] / found["recipe"], 3),
        "gflop_per_image": round(work, 4),
        "images_per_second_a_chip": {chip: round(rate) for chip, rate in rates.items()},
        "cores_a_chip": {chip: round(rate * found["recipe"] / 1000, 1) for chip, rate in rates.items()},
        "cores_a_chip_without_colours": {
            chip: round(rate * found["without colours"] / 1000, 1) for chip, rate in rates.items()
        },
    }


def main() -> None:
    """Measures every case."""
    parser = side_by_side.flags(__doc__, rounds=7)
    parser.add_argument("--share", type=float, default=0.45, help="of a chip's peak that training is assumed to reach")
    parser.add_argument("--cases", nargs="+", default=list(MEASURED), choices=list(CASES))
    given = parser.parse_args()
    results = [measure(name, given.rounds, given.share) for name in given.cases]
    facts = {"share": given.share, "tflops": TFLOPS}
    side_by_side.finish(
        side_by_side.report(results, ("opencv-python-headless", "simplejpeg", "jax"), **facts), given.out
    )


if __name__ == "__main__":
    main()
