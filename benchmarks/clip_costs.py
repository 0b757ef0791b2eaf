"""What models of clips cost: memory of a training step of one triplet, time to describe a clip, and to find it.

The models of Tables 6.7 and 6.8 of R. Mereu's thesis (2021). A triplet is a query, a positive and ten negatives, all
clips. Its memory is that of the recipe's own training step, compiled ahead of time (`benchmarks.compiled`): nothing
runs, and the program is XLA's for a CPU, without a CPU's own programs of layers. Describing takes one clip at a time on
this machine's processor; matching is FAISS's exact search of 1,000 queries among 100,000 clips, measured on as many as
`--mib` hold and scaled, since it is linear in them.

  python -m benchmarks.clip_costs --length 3 --out benchmarks/results/clip_costs_3.json
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time
from pathlib import Path
from typing import Any

import faiss
import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks import compiled
from jaxvpr import builders
from jaxvpr.cli.recipes import load_config

RECIPE = (
    "configs/netvlad.py:msls,objective.weighted=false,batch=1,steps_per_epoch=1000,clusters.images=0,frozen_random=true"
)
CLS = "model.backbone_options={},model.aggregator=cls"
SMALL = "frozen=(),image.size=(224,224)"
CCT = f"model.backbone=cct14_224,model.backbone_options={{'cut':8,'frozen_blocks':2}},{SMALL}"
VLAD = "model.aggregator=netvlad,model.aggregator_options.clusters=64"
# name -> what it changes of a ResNet-18 to conv4.
MODELS = {
    "ResNet-18, GeM, CAT": "model.aggregator=gem,model.sequence=cat",
    "ResNet-18, NetVLAD, CAT": f"{VLAD},model.sequence=cat",
    "ResNet-18, SeqVLAD": f"{VLAD},model.sequence=joint",
    "ResNet-18, 2D attention, SeqVLAD": f"{VLAD},model.sequence=joint,model.non_local={{'kind':'2d','bottleneck':64}}",
    "ResNet-50, SeqVLAD": f"{VLAD},model.sequence=joint,model.backbone=resnet50",
    "ViT-B/16, CAT": f"model.backbone=vit_b16,{CLS},model.sequence=cat,{SMALL}",
    "TimeSformer": f"model.backbone=timesformer_b16,{CLS},{SMALL}",
    "CCT-224, SeqVLAD": f"{VLAD},model.sequence=joint,{CCT}",
    "CCT-384, SeqVLAD": f"{VLAD},model.sequence=joint,{CCT.replace('224', '384')}",
}
DATABASE, QUERIES = 100_000, 1000


def recipe(model: str, length: int) -> ConfigDict:
    """The recipe that trains one of `MODELS` on clips of so many frames."""
    return load_config(f"{RECIPE},train_data.clips.length={length},{MODELS[model]}")


def described_in(config: ConfigDict, length: int, repeats: int) -> tuple[int, float]:
    """Numbers of a clip's descriptor, and the milliseconds that describing one takes: the median of some."""
    module = builders.model(config)
    clip = np.random.default_rng(0).integers(0, 256, (1, length, *builders.image_size(config), 3), np.uint8)
    variables = jax.jit(functools.partial(module.init, jax.random.key(0)))(clip)
    describe = jax.jit(module.apply)
    dimension = describe(variables, clip).block_until_ready().shape[1]
    return dimension, _median_ms(lambda: describe(variables, clip).block_until_ready(), repeats)


def matched_in(dimension: int, mib: int, repeats: int) -> float:
    """Milliseconds that FAISS takes for each of 1,000 queries among 100,000 descriptors."""
    held = min(DATABASE, mib * 2**20 // (4 * dimension))
    rng = np.random.default_rng(0)
    database, queries = (rng.random((count, dimension), np.float32) for count in (held, QUERIES))
    index = faiss.IndexFlatL2(dimension)
    index.add(database)
    return _median_ms(lambda: index.search(queries, 10), repeats) / QUERIES * DATABASE / held


def _median_ms(work: Any, repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken)


def main() -> None:
    """Measures all models, one JSON line each, and writes them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, required=True, help="frames of a clip")
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS), metavar="NAME")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--mib", type=int, default=1024, help="of descriptors that are searched")
    parser.add_argument("--out", type=Path, help="a file for all of them")
    given = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    rows = []
    for model in given.models:
        config = recipe(model, given.length)
        memory = compiled.step(config, compiled.devices(compiled.CPU, 1)).memory
        dimension, extraction = described_in(config, given.length, given.repeats)
        row = {
            "model": model,
            "frames": given.length,
            "dimension": dimension,
            "mib_per_triplet": {part: round(size / 2**20, 1) for part, size in memory.items()},
            "extraction_ms": round(extraction, 1),
            "matching_ms": round(matched_in(dimension, given.mib, given.repeats), 2),
        }
        print(json.dumps(row), flush=True)
        rows.append(row)
    if given.out:
        given.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
