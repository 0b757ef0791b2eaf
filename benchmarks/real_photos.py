"""What can be had without training on the sets of `configs/real.py`, and what trained runs find on each other's sets.

Every model is EfficientNet-Lite0 to block 10, whose features of each image are computed once and kept. Clusters and
principal components are those of the training images; recalls are those of the test set, with 95 % Wilson intervals.

  python -m benchmarks.real_photos --data FOLDER --out benchmarks/results/real_photos.json
  python -m benchmarks.real_photos --data FOLDER --runs runs/own-nordland runs/own-ie_tower runs/own-city
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from benchmarks import side_by_side
from data_pipelines.places import Paths
from jaxvpr import builders
from jaxvpr.builders import choices
from jaxvpr.cli.overrides import override
from jaxvpr.cli.recipes import load_config
from jaxvpr.fitting import pca
from jaxvpr.models import Variables
from jaxvpr.parallel import memory
from jaxvpr.retrieval import recall, search
from jaxvpr.retrieval.evaluator import Benchmark
from jaxvpr.runs import which

SETS = ("nordland", "ie_tower", "city")
NETVLAD = {"model.aggregator": "netvlad", "model.aggregator_options": "{'clusters': 64}"}
# Name in the table -> what is changed in the recipe, and numbers of a PCA with whitening (0: none).
STARTS: dict[str, tuple[dict[str, str], int]] = {
    "GeM": ({"model.aggregator": "gem", "model.aggregator_options": "{}", "clusters.images": "0"}, 0),
    "GeM, PCA-whitening to 64": (
        {"model.aggregator": "gem", "model.aggregator_options": "{}", "clusters.images": "0"}, 64,
    ),
    "VLAD, 64 words": ({"model.aggregator": "vlad", "model.aggregator_options": "{'clusters': 64}"}, 0),
    "NetVLAD, 64 words": (NETVLAD, 0),
    "NetVLAD, PCA-whitening to 512": (NETVLAD, 512),
}  # fmt: skip
NS = (1, 5, 10)


def recipe(name: str, given: Any) -> ConfigDict:
    """The recipe of heads on cached maps of a set, with what it chooses from the images."""
    config = load_config(f"configs/own.py:{name},data={given.data},maps.folder={given.features}")
    return choices.settle(config, builders.training_sets)[0].copy_and_resolve_references().unlock()


def descriptors(config: ConfigDict, variables: Variables, paths: Paths) -> np.ndarray:
    """float32 [N, D] by features that are kept."""
    over = builders.mesh(config)
    kept = builders.maps_kept(config, variables, paths, over)
    return builders.kept_describer(config, over, kept)(variables, paths).descriptors


def found(bench: Benchmark, database: np.ndarray, queries: np.ndarray) -> dict[str, Any]:
    """The recall of a test set by its descriptors."""
    [positives] = bench.positives.values()
    _, predictions = search.exact(database, queries, max(NS))
    measured = recall.recall(predictions, positives, NS)
    return {
        "queries": len(queries),
        "database": len(database),
        "dimension": database.shape[1],
        "recall": {str(n): round(measured.of_all[n], 1) for n in NS},
        "interval of R@1": [round(end, 1) for end in measured.interval(1)],
    }


def untrained(name: str, start: str, given: Any) -> dict[str, Any]:
    """One row: a start on a set."""
    config, (changes, dim) = recipe(name, given), STARTS[start]
    for key, value in changes.items():
        override(config, key, value)
    [bench], images = builders.tests(config), builders.training_sets(config)[0].path
    variables = builders.initial_variables(config.lock(), images=lambda: images)
    database, queries = (descriptors(config, variables, paths) for paths in bench.shown)
    if dim:
        fitted = pca.fit(descriptors(config, variables, images), dim, whiten=True)
        database, queries = (_unit(x @ fitted.weight.T + fitted.bias) for x in (database, queries))
    return {"set": name, "start": start, **found(bench, database, queries)}


def transferred(run: Path, name: str, given: Any) -> dict[str, Any]:
    """One row: the model of a run on a set, at the size that it was trained at."""
    saved, variables = which.named(run)
    config = saved.copy_and_resolve_references().unlock()
    [bench] = builders.tests(recipe(name, given).lock())
    config.maps.update(cached=True, folder=str(given.features))
    database, queries = (descriptors(config, variables, paths) for paths in bench.shown)
    return {"set": name, "run": run.name, **found(bench, database, queries)}


def _unit(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32)


def cell(one: dict[str, Any]) -> str:
    """A cell of the Markdown table."""
    low, high = one["interval of R@1"]
    return f"{one['recall']['1']:.1f} ({low:.1f}–{high:.1f}) / {one['recall']['5']:.1f} / {one['recall']['10']:.1f}"


def main() -> None:
    """Measures every start, or every run, on every set."""
    parser = side_by_side.flags(__doc__, rounds=1)
    parser.add_argument("--data", type=Path, required=True, help="folder of nordland, ie_tower and the city")
    parser.add_argument("--features", type=Path, default=Path("runs/features"), help="where features are kept")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--runs", nargs="+", type=Path, default=[], help="folders of trained runs, own-SET each")
    given = parser.parse_args()
    memory.keep_freed()
    if given.runs:
        rows = {run.name: [transferred(run, name, given) for name in given.sets] for run in given.runs}
    else:
        rows = {start: [untrained(name, start, given) for name in given.sets] for start in STARTS}
    table = [f"| {name} | {' | '.join(map(cell, of_name))} |" for name, of_name in rows.items()]
    results = {"rows": [one for each in rows.values() for one in each], "table": table}
    side_by_side.finish(side_by_side.report(results, ("jax", "jaxlib", "flax", "faiss-cpu")), given.out)


if __name__ == "__main__":
    main()
