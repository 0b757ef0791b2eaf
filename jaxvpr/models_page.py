"""Writes docs/models.md from the code: every published method, backbone and aggregator, with what it costs.

python -m jaxvpr.models_page --out docs/models.md
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from data_pipelines.shapes import target
from jaxvpr import models
from jaxvpr.models.costs import flops, model_mib, parameter_count
from jaxvpr.weights import FAMILIES

HEAD = """# Models

Generated from the code by `python -m jaxvpr.models_page --out docs/models.md`; a test compares it with the code.

"""
METHODS = """## Published methods

`--config=configs/zoo.py:METHOD,weights=FILE` evaluates, describes, imports or exports any of them on any data. A name
in braces stands for one method each; costs are the last one's. Parameters and MiB (float32, with BatchNorm's
statistics) are those of the whole model; GFLOPs those of one image at the size beside them, a multiply-add counted
as two.

"""
BACKBONES = """
## Backbones

`model.backbone`, each with its options and their defaults (`model.backbone_options.OPTION=VALUE`); those without a
value differ between the names.

"""
AGGREGATORS = """
## Aggregators

`model.aggregator`, each with its options and their defaults (`model.aggregator_options.OPTION=VALUE`).

"""
NAMES = """
## Names of weights

`import`, `weights=` and `--checkpoint` read files under these names and tell them apart; `export` writes those of the
method, or of `--family`:
"""


class Costs(NamedTuple):
    """What a model weighs: learned numbers, bytes as MiB, 1e9 operations an image, and the descriptor's length."""

    parameters: int
    mib: float
    gflops: float
    dimension: int


def costs(module: models.PlaceModel, size: tuple[int, int]) -> Costs:
    """Counts a model without computing anything; `size` is (height, width) in pixels."""
    images = jax.ShapeDtypeStruct((1, *size, 3), np.uint8)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    dimension = jax.eval_shape(module.apply, variables, images).shape[1]
    return Costs(parameter_count(variables), model_mib(variables), flops(module, *size) / 1e9, dimension)


def method_row(names: Sequence[str]) -> str:
    """The table row of methods that differ in the last part of their names, the descriptor's length."""
    described, method = models.describe(names[-1]), models.build(names[-1])
    preprocess = method.preprocess
    size = target(preprocess.size, preprocess.multiple)
    found = costs(method.module, size)
    taken = "own size" if not preprocess.size else "x".join(map(str, preprocess.size))
    rounded = f", multiple of {preprocess.multiple}" if preprocess.multiple > 1 else ""
    return _row(
        f"`{label(names)}`", described.model["backbone"], _aggregator(described.model), f"{found.dimension:,}",
        f"{found.parameters / 1e6:,.1f} M", f"{found.mib:,.1f}", f"{found.gflops:,.1f} at {'x'.join(map(str, size))}",
        f"{taken}{rounded}, {preprocess.resize}", f"`{described.family}`",
    )  # fmt: skip


def label(names: Sequence[str]) -> str:
    """One name for methods that differ in its last part."""
    if len(names) == 1:
        return names[0]
    return f"{names[0].rpartition('-')[0]}-{{{', '.join(name.rpartition('-')[2] for name in names)}}}"


def _aggregator(model: Mapping[str, Any]) -> str:
    """The aggregator's name; behind a further step, both."""
    inner = model.get("aggregator_options", {}).get("inner")
    return f"{_aggregator(inner)} + {model['aggregator']}" if inner else model["aggregator"]


def grouped() -> list[list[str]]:
    """Names of methods; those that differ only in the length at their end stand together, ascending."""
    groups: dict[Any, list[str]] = {}
    for name, described in models.METHODS.items():
        groups.setdefault((re.sub(r"-\d+$", "-", name), described.preprocess), []).append(name)
    return [sorted(names, key=lambda name: (len(name), name)) for names in groups.values()]


def page() -> Iterator[str]:
    """The lines of the page."""
    titles = ("method", "backbone", "aggregator", "descriptor", "parameters", "MiB", "GFLOPs", "preprocessing", "names")
    yield from (HEAD, METHODS, _row(*titles), _row(*["---"] * len(titles)))
    yield from (method_row(names) for names in grouped())
    yield from tables()


def tables() -> Iterator[str]:
    """What the page says of backbones, aggregators and names of weights."""
    yield from (BACKBONES, *_modules(models.BACKBONES), AGGREGATORS, *_modules(models.AGGREGATORS), NAMES)
    yield ", ".join(f"`{name}`" for name in FAMILIES) + ".\n"


def _modules(builders: Mapping[str, Any]) -> Iterator[str]:
    """One row for all names of a class."""
    yield from (_row("name", "what", "options"), _row("---", "---", "---"))
    classes: dict[Any, dict[str, dict[str, Any]]] = {}
    for name, builder in builders.items():
        module, fixed = (builder.func, builder.keywords) if isinstance(builder, partial) else (builder, {})
        classes.setdefault(module, {})[name] = fixed
    for module, variants in classes.items():
        what = (module.__doc__ or "").partition("\n")[0].rstrip(".")
        yield _row(", ".join(f"`{name}`" for name in variants), what, ", ".join(_options(module, variants.values())))


def _options(module: Any, variants: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for option in fields(module):
        values = [fixed.get(option.name, option.default) for fixed in variants]
        if option.name not in ("parent", "name", "dtype"):
            same = all(value == values[0] for value in values)
            yield f"{option.name}={_shown(values[0])}" if same and values[0] is not MISSING else option.name


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value).replace("|", "\\|")


def _row(*cells: Any) -> str:
    return f"| {' | '.join(map(str, cells))} |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    out.write_text("".join(page()))
    print(f"wrote {out}: {len(models.METHODS)} methods")


if __name__ == "__main__":
    main()
