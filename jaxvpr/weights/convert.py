"""Converts weights between PyTorch's originals and ours, strictly: every name on both sides must match.

`variables` is the nested dict of a `PlaceModel`, `{"params": …, "batch_stats": …}`. Our parameters are named by
their path without the collection, `backbone/layer1_0/conv1/kernel`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxvpr.errors import UserError
from jaxvpr.weights import packed, spellings
from jaxvpr.weights.files import read
from jaxvpr.weights.tables import FAMILIES, Family, covered, name_of

Tensors = Mapping[str, np.ndarray]
Variables = Mapping[str, Any]
Key = tuple[str, ...]
# How many families an error names.
NEAREST = 3


# What a model may have learned after a file was written: none of it need be there, or all.
LATER = "position/"


class _Match(NamedTuple):
    """Which tensor fills which of our parameters, and what does not fit, one line a kind."""

    family: str
    values: dict[Key, np.ndarray]
    problems: list[str]


def from_torch(family: str, tensors: Tensors, variables: Variables, pattern: str | None = None) -> dict[str, Any]:
    """`variables` with the values of an original's tensors.

    Args:
      family: key of `FAMILIES`. A family of backbones (torchvision's) leaves the aggregator as it is.
      tensors: by the original's names, as `files.read` gives them.
      variables: of our model, for names, shapes and types; arrays or `jax.ShapeDtypeStruct`.
      pattern: regular expression searched in our paths. Only those that match are replaced, and the file may then hold
        more than they need.

    Returns:
      A new nested dict; the replaced leaves are NumPy arrays.

    Raises:
      UserError: for an unknown family; or listing names that are missing or left over on either side and shapes that
        differ.
    """
    match = _match(family, tensors, variables, pattern)
    if match.problems:
        raise UserError(f"the weights do not fit this model as {family}:\n  " + "\n  ".join(match.problems))
    return _filled(variables, match)


def to_torch(family: str, variables: Variables) -> dict[str, np.ndarray]:
    """The tensors of our model under an original's names, which its own loader accepts with strict matching.

    BatchNorm's `num_batches_tracked`, which nothing reads, is written as 0. A family of backbones leaves the aggregator
    out.

    Raises:
      UserError: for an unknown family; or listing our parameters that the original has no name for.
    """
    table = _family(family)
    ours = {path: value for (_, path), value in _paths(variables).items() if covered(table, path)}
    names = {path: name_of(table, path) for path in ours}
    nameless = [path for path, name in names.items() if name is None]
    if nameless:
        raise UserError(
            f"this model cannot be written as {family}, which has no name for {_some(nameless)}. "
            f"The family {family_for(variables)} has a name for everything"
        )
    if len(set(names.values())) < len(names):
        raise UserError(f"{family} is read alone: a file of it has one name for several parameters of this model")
    tensors = {str(names[path]): _transposed(table, path, np.asarray(value), back=True) for path, value in ours.items()}
    if table.counters:
        norms = [name.removesuffix("running_mean") for name in tensors if name.endswith("running_mean")]
        tensors |= {f"{norm}num_batches_tracked": np.zeros((), np.int64) for norm in norms}
    return {name: np.zeros(shape, np.float32) for name, shape in table.unused} | packed.split(tensors)


def init_from(
    variables: Variables, path: str | os.PathLike[str], pattern: str | None = None, expected: str | None = None
) -> dict[str, Any]:
    """`variables` with the weights of a file, whichever family's names it uses, as `spellings` has them.

    Args:
      variables, pattern: as for `from_torch`.
      path: `.pth` or `.safetensors`.
      expected: the family that an error names first where several are as near.

    Raises:
      UserError: for a file that cannot be read, that fits as no family (says what is missing for the nearest), or that
        holds numbers that are not finite.
    """
    match = _best(read(path), variables, pattern, path, expected)
    _check_finite(match, path)
    return _filled(variables, match)


def guess_family(
    tensors: Tensors,
    variables: Variables,
    pattern: str | None = None,
    source: str | os.PathLike[str] = "the weights",
    expected: str | None = None,
) -> str:
    """The one family under whose names `tensors` fit `variables` strictly.

    Raises:
      UserError: where there is none; says what does not fit for the nearest family (`expected`, where others are as
        near) and those half as near. `source` names the tensors.
    """
    return _best(tensors, variables, pattern, source, expected).family


def _best(
    tensors: Tensors, variables: Variables, pattern: str | None, source: str | os.PathLike[str], expected: str | None
) -> _Match:
    """The first match without problems; else an error that has those of the nearest."""
    found: dict[str, _Match] = {}
    for spelled in spellings.of(tensors):
        for family in FAMILIES:
            match = _match(family, spelled, variables, pattern)
            if not match.problems:
                return match
            if family not in found or len(match.values) > len(found[family].values):
                found[family] = match
    order = {family: (-len(match.values), family != expected) for family, match in found.items()}
    first, *others = sorted(order, key=order.__getitem__)[:NEAREST]
    shown = [first, *(family for family in others if 2 * order[family][0] <= order[first][0] < 0)]
    lines = [f"  as {family}: " + "; ".join(found[family].problems) for family in shown]
    raise UserError(
        f"{source} does not fit this model as any of the {len(FAMILIES)} families of names that docs/models.md lists. "
        "Nearest:\n" + "\n".join(lines)
    )


def _check_finite(match: _Match, path: str | os.PathLike[str]) -> None:
    for key, value in match.values.items():
        with np.errstate(all="ignore"):
            if np.isfinite(np.sum(value, dtype=np.float32)):  # several times as fast as to look at every number
                continue
        if wrong := int((~np.isfinite(value)).sum()):
            ours = "/".join(key[1:])
            raise UserError(
                f"{path}: {name_of(FAMILIES[match.family], ours)} ({ours} here): {wrong:,} of its {value.size:,} "
                f"numbers are NaN or infinite as {value.dtype}. Its training diverged: take an earlier file"
            )


def _filled(variables: Variables, match: _Match) -> dict[str, Any]:
    return unflatten_dict({**flatten_dict(variables, keep_empty_nodes=True), **match.values})


def left_out(family: str, variables: Variables) -> list[str]:
    """Our parameters that a file of this family does not hold: the aggregator's, where it is one of backbones."""
    table = _family(family)
    return [path for _, path in _paths(variables) if not covered(table, path)]


def family_for(variables: Variables) -> str:
    """The first family of complete models that has a name for all of `variables`; "jaxvpr" where no original has."""
    paths = [path for _, path in _paths(variables)]
    return next(
        name for name, table in FAMILIES.items() if not table.covers and all(name_of(table, path) for path in paths)
    )


def _family(name: str) -> Family:
    if name not in FAMILIES:
        raise UserError(f"no family of weights {name!r}; there are {sorted(FAMILIES)}")
    return FAMILIES[name]


def _match(family: str, tensors: Tensors, variables: Variables, pattern: str | None) -> _Match:
    table, paths = _family(family), _paths(variables)
    ours = [key for key in paths if covered(table, key[1])]
    chosen = [key for key in ours if pattern is None or re.search(pattern, key[1])]
    names = {key: name_of(table, key[1]) for key in chosen}
    heads = [key for key in names if key[1].startswith(LATER)]
    if pattern is None and not any(names[key] in tensors for key in heads):
        names = {key: name for key, name in names.items() if key not in heads}
    tensors = packed.join(tensors, names.values())
    values, shapes = {}, []
    for key, name in names.items():
        if name is not None and name in tensors:
            value, wanted = _transposed(table, key[1], tensors[name], flat=len(paths[key].shape) == 2), paths[key]
            if value.shape == wanted.shape:
                with np.errstate(over="ignore", invalid="ignore"):  # whoever wants finite numbers looks at them
                    values[key[0], *key[1].split("/")] = np.asarray(value, wanted.dtype, order="C")
            else:
                shapes.append(f"{name} {tensors[name].shape} for {key[1]} {tuple(wanted.shape)}")

    def has_new(key: tuple[str, str]) -> bool:
        return bool(table.keeps and re.fullmatch(table.keeps, key[1]))

    problems = {
        "for models that have": [str(table.keeps)] if table.keeps and not any(map(has_new, paths)) else [],
        "no parameter of ours matches": [] if chosen else [pattern or str(table.covers)],
        "ours, without a name there": [key[1] for key, name in names.items() if name is None],
        "missing in the file": [name for name in names.values() if name and name not in tensors],
        "left over in the file": _left_over(table, tensors, set(names.values())) if pattern is None else [],
        "of other shapes": shapes,
    }
    return _Match(family, values, [f"{what}: {_some(items)}" for what, items in problems.items() if items])


def _left_over(table: Family, tensors: Tensors, used: set[str | None]) -> list[str]:
    """Names in a file that nothing uses and the family's table does not expect."""
    extras = [*table.extras, *([r".+\.num_batches_tracked"] if table.counters else [])]
    stages = {match[0] for name in used if table.stages and name and (match := re.match(table.stages, name))}
    beyond_cut = [
        name for name in tensors if table.stages and (m := re.match(table.stages, name)) and m[0] not in stages
    ]
    expected = {name for name in tensors if any(re.fullmatch(extra, name) for extra in extras)}
    expected |= {*beyond_cut, *(name for name, _ in table.unused)}
    return [name for name in tensors if name not in used and name not in expected]


def _transposed(table: Family, path: str, value: np.ndarray, back: bool = False, flat: bool = False) -> np.ndarray:
    """A PyTorch tensor with our order of axes, or (`back`) ours with PyTorch's: OIHW and HWIO, [out, in] and [in, out].

    Where the original has a 1x1 convolution and we have a linear layer (`flat`), the two sides are dropped or added.
    """
    if table.same_layout or not path.endswith("/kernel"):
        return value
    convolved = any(re.fullmatch(pattern, path.removesuffix("/kernel")) for pattern in table.convolved)
    if convolved and back and value.ndim == 2:
        return value.T[..., None, None]
    if value.ndim == 4:
        value = value.transpose((3, 2, 0, 1) if back else (2, 3, 1, 0))
        return value[0, 0] if convolved and flat and value.shape[:2] == (1, 1) else value
    return value.T


def _paths(variables: Variables) -> dict[tuple[str, str], Any]:
    """Our leaves by (collection, path); parameters first, since errors show the first few."""
    leaves = sorted(flatten_dict(variables).items(), key=lambda item: item[0][0] != "params")
    return {(key[0], "/".join(key[1:])): value for key, value in leaves}


def _some(items: Iterable[str], most: int = 6) -> str:
    items = list(items)
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
