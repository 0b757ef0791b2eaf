"""`localize` of 100 photos against 1,000 places, with configs/imagenet.py and from a cold start: whole processes.

The photos (640x480 JPEGs, drawn here) are noisy copies of 100 of the places. Beside `localize`, with nothing compiled
yet and with what an earlier run left, the same network, words and search in PyTorch: the package
`efficientnet-lite-pytorch`, Pillow, and one matrix product. `localize` also writes a table and a picture for each
photo, which PyTorch's side does not.

  python -m benchmarks.own_photos --out benchmarks/results/own_photos.json
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks import side_by_side

COMPILED, NOTHING, PEER = "localize, compiled before", "localize, nothing compiled", "pytorch"
SIDES = (NOTHING, COMPILED, PEER)
BATCH = 64  # of PyTorch's side; `eval.batch` of ours


def draw(folder: Path, places: int, photos: int) -> None:
    """JPEGs of `places` in `known`, and in `asked` noisy copies of the first `photos` of them under the same names."""
    for part in ("known", "asked"):
        (folder / part).mkdir()
    for place in range(places):
        random = np.random.default_rng(place)
        coarse = random.integers(0, 256, (12, 16, 3), np.uint8)
        image = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / "known" / f"{place:04d}.jpg"), image)
        if place < photos:
            noisy = np.clip(image + random.normal(0, 20, image.shape), 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / "asked" / f"{place:04d}.jpg"), noisy)


def jaxvpr(verb: str, folder: Path, cache: Path, images: str, *flags: str) -> list[str]:
    """The command of a verb, under a folder of compiled programs."""
    command = [
        "env",
        f"JAX_COMPILATION_CACHE_DIR={cache}",
        sys.executable,
        "-m",
        "jaxvpr.main",
        verb,
        "--config=imagenet",
    ]
    return [*command, f"--images={folder / images}", f"--workdir={folder / 'run'}", "--overwrite", *flags]


def timed(command: list[str]) -> tuple[dict[str, float], str]:
    """Seconds by the clock and of all cores' work that a process takes, and what it printed."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=side_by_side.ROOT)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    work = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu_seconds": work}, done.stdout


def pytorch(folder: Path) -> list[str]:
    """The nearest place of every photo."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet
    from PIL import Image
    from safetensors.torch import load_file
    from torch.nn.functional import normalize, one_hot

    from jaxvpr.cli import weight_source

    network = EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(weight_source.parse("pip:efficientnet-lite0").file, weights_only=True))
    words = load_file(folder / "places.safetensors")["aggregator.centroids"]
    photos = sorted((folder / "asked").iterdir())
    found = []
    with torch.inference_mode():
        for start in range(0, len(photos), BATCH):
            shown = [np.asarray(Image.open(p).resize((224, 224), Image.BICUBIC)) for p in photos[start : start + BATCH]]
            x = (torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2).float() - 127) / 128
            x = network._swish(network._bn0(network._conv_stem(x)))
            for block in network._blocks[:11]:
                x = block(x)
            x = normalize(x.flatten(2).mT, dim=-1)
            share = one_hot((x @ normalize(words, dim=-1).T).argmax(-1), len(words)).float()
            found.append(
                normalize(normalize(share.mT @ x - share.sum(1)[..., None] * words, dim=-1).flatten(1), dim=-1)
            )
    nearest = (torch.cat(found) @ torch.from_numpy(np.load(folder / "places.npy")).T).argmax(1)
    names = sorted(path.name for path in (folder / "known").iterdir())
    return [names[row] for row in nearest]


def first_answers(table: Path) -> list[str]:
    """The nearest place of every photo in the table that `localize` wrote."""
    with table.open(newline="") as stream:
        return [Path(row["path"]).name for row in csv.DictReader(stream) if row["rank"] == "1"]


def measure(folder: Path, places: int, photos: int, rounds: int) -> dict[str, Any]:
    """One round after the other, each side in a process of its own."""
    draw(folder, places, photos)
    kept, database = folder / "compiled", folder / "places.npy"
    extract, _ = timed(jaxvpr("extract", folder, kept, "known", f"--out={database}"))
    times: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    answers: dict[str, list[str]] = {}
    flags = (f"--database={database}", f"--out={folder / 'answers'}")
    timed(jaxvpr("localize", folder, kept, "asked", *flags))  # compiles what `extract` did not need
    for number, side in enumerate(side_by_side.turns(SIDES, rounds)):
        if side == PEER:
            command = [sys.executable, "-m", "benchmarks.own_photos", "--side", side, "--folder", str(folder)]
        else:
            cache = kept if side == COMPILED else folder / f"empty{number}"
            command = jaxvpr("localize", folder, cache, "asked", *flags)
        taken, printed = timed(command)
        times[side].append(taken)
        answers[side] = json.loads(printed) if side == PEER else first_answers(folder / "answers" / "predictions.csv")
    middle = {
        key: side_by_side.medians({side: [one[key] for one in found] for side, found in times.items()})
        for key in ("seconds", "cpu_seconds")
    }
    right = [f"{photo:04d}.jpg" for photo in range(photos)]
    return {
        "places": places,
        "photos": photos,
        "extract": {key: round(value, 1) for key, value in extract.items()},
        **middle,
        f"ratio_to_{PEER}": side_by_side.ratios({s: [one["seconds"] for one in f] for s, f in times.items()}, PEER),
        "right": {side: statistics.mean(map(str.__eq__, found, right)) for side, found in answers.items()},
        "same_answers": statistics.mean(map(str.__eq__, answers[COMPILED], answers[PEER])),
    }


def main() -> None:
    """Prints the report, or one side's answers."""
    parser = side_by_side.flags(__doc__, rounds=3)
    parser.add_argument("--places", type=int, default=1000)
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--side", choices=[PEER], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(pytorch(given.folder)))
        return
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), given.places, given.photos, given.rounds)
    side_by_side.finish(side_by_side.report(results, ("jax", "jaxlib", "flax", "torch")), given.out)


if __name__ == "__main__":
    main()
