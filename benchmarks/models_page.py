"""Keeps the tables of docs/models.md: every published method, backbone, aggregator and head, with what it costs.

    python -m benchmarks.models_page --out docs/models.md

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; the words around it are the page's own.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from data_pipelines.shapes import common_size
from jaxvpr import models
from jaxvpr.models.costs import flops, model_mib, parameter_count
from jaxvpr.models.positions import CODINGS, OWN_HEADS, PositionHead
from jaxvpr.weights import FAMILIES


class Costs(NamedTuple):
    """What a model weighs: learned numbers, bytes as MiB, 1e9 operations an image or clip, the descriptor's length."""

    parameters: int
    mib: float
    gflops: float
    dimension: int


def costs(module: models.PlaceModel, size: tuple[int, int], frames: int = 0) -> Costs:
    """Counts a model without computing anything; `size` is (height, width) in pixels, `frames` those of a clip."""
    images = jax.ShapeDtypeStruct((1, *(frames,) * bool(frames), *size, 3), np.uint8)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    dimension = jax.eval_shape(module.apply, variables, images).shape[1]
    return Costs(parameter_count(variables), model_mib(variables), flops(module, *size, frames) / 1e9, dimension)


def method_row(names: Sequence[str]) -> str:
    """The table row of methods that differ in the last part of their names, the descriptor's length."""
    described, method = models.description(names[-1]), models.build(names[-1])
    preprocess = method.preprocess
    size = common_size(preprocess.size, preprocess.multiple, preprocess.crop)
    found = costs(method.module, size, described.frames)
    shape = f"{described.frames}x" * bool(described.frames) + "x".join(map(str, size))
    taken = "own size" if not preprocess.size else "x".join(map(str, preprocess.size))
    fitted = "middle in multiples" if preprocess.crop else "multiple"
    rounded = f", {fitted} of {preprocess.multiple}" if preprocess.multiple > 1 else ""
    return _row(
        f"`{label(names)}`", described.model["backbone"], _aggregator(described.model), f"{found.dimension:,}",
        f"{found.parameters / 1e6:,.1f} M", f"{found.mib:,.1f}", f"{found.gflops:,.1f} at {shape}",
        f"{taken}{rounded}, {preprocess.resize}", f"`{described.family}`",
    )  # fmt: skip


def label(names: Sequence[str]) -> str:
    """One name for methods that differ in its last part."""
    if len(names) == 1:
        return names[0]
    return f"{names[0].rpartition('-')[0]}-{{{', '.join(name.rpartition('-')[2] for name in names)}}}"


def _aggregator(model: Mapping[str, Any]) -> str:
    """The aggregator's name; behind it that of a further step, and of the head for clips."""
    if head := model.get("sequence"):
        return f"{_aggregator({**model, 'sequence': ''})}, {head}"
    inner = model.get("aggregator_options", {}).get("inner")
    return f"{_aggregator(inner)} + {model['aggregator']}" if inner else model["aggregator"]


def grouped() -> list[list[str]]:
    """Names of methods; those that differ only in the length at their end stand together, ascending."""
    groups: dict[Any, list[str]] = {}
    for name, described in models.METHODS.items():
        groups.setdefault((re.sub(r"-\d+$", "-", name), described.preprocess), []).append(name)
    return [sorted(names, key=lambda name: (len(name), name)) for names in groups.values()]


def methods() -> Iterator[str]:
    """The table of published methods."""
    titles = ("method", "backbone", "aggregator", "descriptor", "parameters", "MiB", "GFLOPs", "preprocessing", "names")
    yield from (_row(*titles), _row(*["---"] * len(titles)))
    yield from (method_row(names) for names in grouped())


def positions() -> Iterator[str]:
    """What heads answer positions by, each with the options that it alone has; then the layers of them all."""
    yield from (_row("name", "what", "options"), _row("---", "---", "---"))
    shared = ("area=()", "metres=False")
    for name, kind in CODINGS.items():
        own = (*shared, *_options(OWN_HEADS[name], [{}])) if name in OWN_HEADS else ()
        yield _row(f"`{name}`", _first_line(kind), ", ".join((*_options(kind, [{}]), *own)))
    every = f"all but {', '.join(f'`{name}`' for name in OWN_HEADS)}"
    yield _row(every, _first_line(PositionHead), ", ".join((*shared, *_options(PositionHead, [{}]))))


def names() -> Iterator[str]:
    """The families of names."""
    yield ", ".join(f"`{name}`" for name in FAMILIES) + ".\n"


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "methods": methods,
    "backbones": lambda: _modules(models.BACKBONES),
    "aggregators": lambda: _modules(models.AGGREGATORS),
    "sequences": lambda: _modules(models.SEQUENCES),
    "positions": lambda: positions(),
    "names": names,
}


def updated(text: str, tables: Iterable[str] = tuple(TABLES)) -> str:
    """The page with some of its tables made anew.

    Raises:
      ValueError: where a table has no place in it.
    """
    for name in tables:
        place = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.S)
        if not place.search(text):
            raise ValueError(f"the page has no place for the table {name}: <!-- table: {name} --> to <!-- end -->")
        made = "".join(TABLES[name]())
        text = place.sub(lambda match, made=made: match[1] + made + match[2], text)  # type: ignore[misc]
    return text


def _modules(builders: Mapping[str, Any]) -> Iterator[str]:
    """One row for all names of a class."""
    yield from (_row("name", "what", "options"), _row("---", "---", "---"))
    classes: dict[Any, dict[str, dict[str, Any]]] = {}
    for name, builder in builders.items():
        module, fixed = (builder.func, builder.keywords) if isinstance(builder, partial) else (builder, {})
        classes.setdefault(module, {})[name] = fixed
    for module, variants in classes.items():
        named = ", ".join(f"`{name}`" for name in variants)
        yield _row(named, _first_line(module), ", ".join(_options(module, variants.values())))


def _first_line(kind: Any) -> str:
    return (kind.__doc__ or "").partition("\n")[0].rstrip(".")


def _options(module: Any, variants: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for option in fields(module):
        values = [fixed.get(option.name, option.default) for fixed in variants]
        if option.name not in ("parent", "name", "dtype", "area", "coding"):
            same = all(value == values[0] for value in values)
            yield f"{option.name}={_shown(values[0])}" if same and values[0] is not MISSING else option.name


def _shown(value: Any) -> str:
    """A default as a user writes it."""
    if isinstance(value, nn.Module):
        parts = {"aggregator": models.AGGREGATORS, "sequence": models.SEQUENCES}
        value = next({part: name} for part, made in parts.items() for name in made if made[name]() == value)
    return f"{value:g}" if isinstance(value, float) else repr(value).replace("|", "\\|")


def _row(*cells: Any) -> str:
    return f"| {' | '.join(map(str, cells))} |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the page")
    out = parser.parse_args().out
    out.write_text(updated(out.read_text()))
    print(f"wrote {out}: {len(models.METHODS)} methods")


if __name__ == "__main__":
    main()
