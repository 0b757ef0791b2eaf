"""What an aggregator's digits are worth on real photos: the factors of its products rounded to TF32 or bfloat16.

A CPU computes float32 whatever `model.head_precision` says, so the rounding is written into the traced program, before
every product that asks for the default precision. Sums stay in float32, as on GPUs and TPUs. SqueezeNet has ImageNet
weights, NetVLAD clusters by k-means; the other aggregators are random.

  python -m benchmarks.head_precision --data FOLDER --weights squeezenet1_0.pth \
    --out benchmarks/results/head_precision.json
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.extend import core

from benchmarks import side_by_side
from benchmarks.device.program import PRODUCTS
from data_pipelines.places import Paths
from jaxvpr import builders
from jaxvpr.cli.overrides import override
from jaxvpr.cli.recipes import load_config
from jaxvpr.parallel import memory
from jaxvpr.retrieval.evaluator import measure

AGGREGATORS: dict[str, dict[str, str]] = {
    "mixvpr": {"dim": "256", "rows": "4", "cells": "(13,13)"},
    "netvlad": {"clusters": "64"},
    "convap": {"dim": "512"},
    "boq": {"dim": "256", "queries": "32", "rows": "8"},
}
# Bits of the mantissa. Those of float32 are all kept.
BITS = {"float32": 23, "TF32": 10, "bfloat16": 7}


def rounded(apply: Callable[..., Any], bits: int) -> Callable[..., Any]:
    """`apply(variables, images)` with both factors of products at the default precision rounded to so many bits."""

    def rounds(variables: Any, images: Any) -> Any:
        program = jax.make_jaxpr(apply)(variables, images)
        return _evaluate(program.jaxpr, program.consts, jax.tree.leaves((variables, images)), bits)[0]

    return rounds


def _evaluate(jaxpr: Any, consts: Any, arguments: Any, bits: int) -> list[Any]:
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

    def value(variable: Any) -> Any:
        return variable.val if isinstance(variable, core.Literal) else known[variable]

    for equation in jaxpr.eqns:
        given, params = [value(variable) for variable in equation.invars], equation.params
        if inner := params.get("jaxpr") or params.get("call_jaxpr"):
            found = _evaluate(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), given, bits)
        else:
            if equation.primitive.name in PRODUCTS and "DEFAULT" in str(params["precision"]):
                given = [jax.lax.reduce_precision(x, 8, bits) for x in given]
            made = equation.primitive.bind(*given, **params)
            found = made if equation.primitive.multiple_results else [made]
        known.update(zip(equation.outvars, found, strict=True))
    return [value(variable) for variable in jaxpr.outvars]


def measured(folder: Path, weights: Path, aggregator: str) -> list[dict[str, Any]]:
    """An aggregator's rows: each type of the backbone with each rounding of the head."""
    name, rows, exact = "corridor", [], None
    for dtype in ("float32", "bfloat16"):
        config = load_config(f"configs/squeezenet.py:{name},init={weights},test_data.{name}.root={folder / name}")
        keys = {f"aggregator_options.{key}": value for key, value in AGGREGATORS[aggregator].items()}
        for key, value in {"aggregator": aggregator, **keys, "dtype": dtype, "head_precision": "default"}.items():
            override(config, f"model.{key}", value)
        if aggregator == "netvlad":
            override(config, "clusters.images", "500")
        [bench] = builders.benchmarks(config, config.test_data)
        photos = Paths.concat([bench.database.path, bench.queries.path])
        describer, variables = builders.describer(config, builders.mesh(config)), builders.initial_variables(config)
        for digits, bits in BITS.items():
            apply = rounded(builders.apply(config), bits)
            described = describer(variables, photos, apply).descriptors
            exact = described if exact is None else exact
            [recall] = measure(describer, variables, bench, (1, 5, 10), apply).recalls.values()
            apart = np.maximum(1 - (described * exact).sum(1), 0)
            rows.append(
                {
                    "aggregator": aggregator,
                    "backbone": dtype,
                    "factors of the head": digits,
                    "1 - cosine to float32, median": float(f"{np.median(apart):.1e}"),
                    "largest": float(f"{apart.max():.1e}"),
                    "recall": {str(n): round(recall.of_all[n], 1) for n in (1, 5, 10)},
                }
            )
    return rows


def main() -> None:
    """Measures every aggregator on the corridor."""
    parser = side_by_side.flags(__doc__, rounds=1)
    parser.add_argument("--data", type=Path, required=True, help="folder of the set `corridor`")
    parser.add_argument("--weights", type=Path, required=True, help="SqueezeNet 1.0 of torchvision")
    parser.add_argument("--aggregators", nargs="+", choices=list(AGGREGATORS), default=list(AGGREGATORS))
    given = parser.parse_args()
    memory.keep_freed()
    rows = [row for name in given.aggregators for row in measured(given.data, given.weights, name)]
    side_by_side.finish(side_by_side.report({"rows": rows}, ("jax", "jaxlib", "flax")), given.out)


if __name__ == "__main__":
    main()
