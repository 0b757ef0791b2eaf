"""What pooling alone is worth on real photos: SqueezeNet's ImageNet weights, each aggregator, no training.

Recall with 95 % Wilson intervals. The VLAD family takes its clusters from the local features of the database images by
k-means; nothing else is learned from the sets. The other aggregators have no parameters, or GeM's p = 3.

  python -m benchmarks.real_pooling --data FOLDER --weights squeezenet1_0.pth --out benchmarks/results/real_pooling.json
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import side_by_side
from jaxvpr import builders
from jaxvpr.cli.overrides import override
from jaxvpr.cli.recipes import load_config
from jaxvpr.parallel import memory
from jaxvpr.retrieval.evaluator import measure

SETS = {"corridor": "corridor", "nordland": "nordland_64x32", "ie_tower": "ie_tower"}
CLUSTERS = {"clusters.images": "500"}
# Name in the table -> what is changed in the recipe.
AGGREGATORS: dict[str, dict[str, str]] = {
    "SPoC": {"model.aggregator": "spoc"},
    "MAC": {"model.aggregator": "mac"},
    "R-MAC": {"model.aggregator": "rmac"},
    "GeM": {"model.aggregator": "gem"},
    "VLAD, 16 words": {"model.aggregator": "vlad", "model.aggregator_options.clusters": "16", **CLUSTERS},
    "VLAD, 32 words": {"model.aggregator": "vlad", "model.aggregator_options.clusters": "32", **CLUSTERS},
    "NetVLAD, 16 clusters": {"model.aggregator": "netvlad", "model.aggregator_options.clusters": "16", **CLUSTERS},
    "NetVLAD, 64 clusters": {"model.aggregator": "netvlad", "model.aggregator_options.clusters": "64", **CLUSTERS},
}


def measured(name: str, folder: Path, weights: Path, aggregator: str) -> dict[str, Any]:
    """One row: an aggregator on a set."""
    config = load_config(f"configs/squeezenet.py:{name},init={weights},test_data.{name}.root={folder / SETS[name]}")
    for key, value in AGGREGATORS[aggregator].items():
        override(config, key, value)
    [bench] = builders.benchmarks(config, config.test_data)
    variables = builders.initial_variables(config.lock())
    found = measure(builders.describer(config, builders.mesh(config)), variables, bench, (1, 5, 10))
    [recall] = found.recalls.values()
    return {
        "set": name,
        "aggregator": aggregator,
        "queries": len(bench.queries),
        "database": len(bench.database),
        "dimension": found.dimension,
        "recall": {str(n): round(recall.of_all[n], 1) for n in (1, 5, 10)},
        "interval of R@1": [round(end, 1) for end in recall.interval(1)],
    }


def row(aggregator: str, rows: list[dict[str, Any]]) -> str:
    """A line of the Markdown table."""
    cells = [
        f"**{one['recall']['1']:.1f}** ({one['interval of R@1'][0]:.1f}–{one['interval of R@1'][1]:.1f}) "
        f"/ {one['recall']['5']:.1f} / {one['recall']['10']:.1f}"
        for one in rows
    ]
    return f"| {aggregator} | {rows[0]['dimension']:,} | {' | '.join(cells)} |"


def main() -> None:
    """Measures every aggregator on every set."""
    parser = side_by_side.flags(__doc__, rounds=1)
    parser.add_argument("--data", type=Path, required=True, help="folder of the three sets")
    parser.add_argument("--weights", type=Path, required=True, help="SqueezeNet 1.0 of torchvision")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--aggregators", nargs="+", choices=list(AGGREGATORS), default=list(AGGREGATORS))
    given = parser.parse_args()
    memory.keep_freed()
    rows = {name: [measured(one, given.data, given.weights, name) for one in given.sets] for name in given.aggregators}
    results = {"rows": [one for each in rows.values() for one in each], "table": [row(*pair) for pair in rows.items()]}
    side_by_side.finish(side_by_side.report(results, ("jax", "jaxlib", "flax", "faiss-cpu")), given.out)


if __name__ == "__main__":
    main()
