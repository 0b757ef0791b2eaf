"""Changes to a recipe, as text: dotted keys, each checked against the type of what is there."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from configs import common
from jaxvpr.errors import UserError

DATA_SETS = ("more_train_data", "val_data", "test_data")
ALIASES = {"weights": "init"}
OWN_OPTIONS = ("loss", "miner")
FREE = frozenset(("backbone_options", "aggregator_options", "loss_options", "miner_options", "options", "city"))


def override_all(config: ConfigDict, changes: Sequence[tuple[str, str]]) -> None:
    """Sets keys from text, those of outer groups first: a name (`method`, `objective.loss`) before its options."""
    for key, text in sorted(changes, key=lambda change: change[0].count(".")):
        override(config, key, text)


def override(config: ConfigDict, key: str, text: str) -> None:
    """Sets a dotted key from text, checked against the type of what is there.

    A group of free options (`backbone_options`, `options` of a reader, `city`) takes new keys, or a dict in place of
    all it holds, and `NAME` in one of `DATA_SETS` may be a new data set; elsewhere an unknown key is an error. `method`
    fills in what it stands for, and another loss or miner has its own defaults instead of the options of the recipe's.

    Raises:
      UserError: unknown key (lists those beside it) or a value of another type.
    """
    key = ALIASES.get(key, key)
    *parents, last = key.split(".")
    if len(parents) > 1 and parents[0] in DATA_SETS and parents[1] not in config[parents[0]]:
        with config.unlocked():
            config[parents[0]][parents[1]] = common.data("at_names", "")
    if parents[:1] == ["target_data"] and not config.target_data:
        with config.unlocked():
            config.target_data = common.data("folder", "")
    group: Any = config
    for depth, part in enumerate(parents):
        if not isinstance(group, ConfigDict) or part not in group:
            raise UserError(_no_key(".".join(parents[: depth + 1]), part, group))
        group = group[part]
    free = bool(parents) and parents[-1] in FREE
    if not isinstance(group, ConfigDict) or (last not in group and not free):
        raise UserError(_no_key(key, last, group))
    value, old = _parsed(text), group.get(last)
    whole = last in FREE and isinstance(value, dict)
    if isinstance(old, ConfigDict) and not whole:
        raise UserError(f"config.{key} is a group; its keys are {sorted(old)}")
    with group.unlocked():
        if whole:
            group[last] = ConfigDict(value)
        else:
            group[last] = value if last not in group else _as_type_of(key, old, value, text)
        if last in OWN_OPTIONS and f"{last}_options" in group and group[last] != old:
            group[f"{last}_options"] = ConfigDict({})
    if key == "method":
        fill_method(config)


def fill_method(config: ConfigDict) -> None:
    """Sets `model` and `image` as the method was published, where the recipe names one."""
    if not config.method:
        return
    from jaxvpr import models  # imports JAX, which no other recipe needs before it is known to make sense

    try:
        described = models.describe(config.method)
    except ValueError as error:
        begun = [name for name in models.METHODS if name.startswith(config.method)]
        near = begun or difflib.get_close_matches(config.method, list(models.METHODS), 5, 0.5)
        hint = f". Did you mean {', '.join(near[:5])}?" if near else "."
        raise UserError(f"config.method: {error}{hint} docs/models.md describes them") from error
    with config.unlocked():
        for key in ("backbone", "aggregator"):
            config.model[key] = described.model[key]
            config.model[f"{key}_options"] = ConfigDict(dict(described.model.get(f"{key}_options", {})))
        config.image.update(
            {key: value for key, value in described.preprocess._asdict().items() if key in config.image}
        )


def _parsed(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _as_type_of(key: str, old: Any, value: Any, text: str) -> Any:
    if isinstance(old, str):
        return text
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(old, tuple):
        items = tuple(value) if isinstance(value, list | tuple) else (value,)
        return tuple(_as_type_of(key, old[0], item, str(item)) for item in items) if old else items
    if old is not None and type(old) is not type(value):
        raise UserError(f"config.{key}={text!r} is no {type(old).__name__}; its value so far is {old!r}")
    return value


def _no_key(key: str, part: str, group: Any) -> str:
    keys = sorted(group) if isinstance(group, ConfigDict) else []
    near = did_you_mean(part, [*keys, *ALIASES] if key == part else keys)
    return f"no key config.{key}{near}; there are {keys}"


def did_you_mean(name: str, names: Any) -> str:
    near = difflib.get_close_matches(name, list(names), 1)
    return f" (did you mean {near[0]}?)" if near else ""
