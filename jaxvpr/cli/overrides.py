"""Changes to a recipe, as text: dotted keys, each checked against the type of what is there."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import common
from jaxvpr.errors import UserError

# Groups of data sets by name, and groups that are one data set, each with the reader of a set that a change begins.
DATA_SETS = {"more_train_data": "at_names", "val_data": "at_names", "test_data": "at_names"}
DATA_SET = {"train_data": "at_names", "target_data": "folder"}
ALIASES = {"weights": "init"}
# A key that names a function, and the key of its arguments beside it.
OWN_OPTIONS = {
    "loss": "loss_options",
    "miner": "miner_options",
    "name": "options",
    "sequence": "sequence_options",
    "position": "position_options",
}
MODEL_OPTIONS = ("backbone_options", "aggregator_options", "sequence_options", "non_local", "position_options")
FREE = frozenset((*MODEL_OPTIONS, "loss_options", "miner_options", "options", "city"))
CLOSES = {"(": ")", "[": "]", "{": "}"}


def split_changes(text: str) -> list[str]:
    """The parts of a text between its commas, but for commas within brackets or quotes.

    A quote counts where a Python literal may begin, so that the apostrophe of a file name is none; a bracket behind a
    backslash, as in a regular expression, is none either.

    Raises:
      UserError: for a bracket or quote that is never closed.
    """
    parts, inside, quote, before = [""], [], "", ""
    for character in text:
        if quote:
            quote = "" if character == quote and before != "\\" else quote
        elif character in "'\"" and (parts[-1].rstrip() or "=")[-1] in "=([{,:":
            quote = character
        elif character in CLOSES and before != "\\":
            inside.append(CLOSES[character])
        elif inside and character == inside[-1] and before != "\\":
            inside.pop()
        if character == "," and not inside and not quote:
            parts.append("")
        else:
            parts[-1] += character
        before = character
    if missing := quote or "".join(inside):
        raise UserError(
            f"a closing {missing[-1]} is missing in {parts[-1]}; a value with a lone bracket or quote goes into a flag "
            "of its own, --config.KEY=VALUE"
        )
    return parts


def override_all(config: ConfigDict, changes: Sequence[tuple[str, str]]) -> None:
    """Sets keys from text, those of outer groups first: a name (`method`, `objective.loss`) before its options, and the
    folder `data` before the root of a data set."""
    for key, text in sorted(changes, key=lambda change: (change[0].count("."), change[0] != "data")):
        override(config, key, text)


def override(config: ConfigDict, key: str, text: str) -> None:
    """Sets a dotted key from text, checked against the type of what is there.

    A group of free options (`backbone_options`, `options` of a reader, `city`) takes new keys, or a dict in place of
    all it holds; elsewhere an unknown key is an error. A key of a data set that does not exist yet begins it, and a
    dict stands for a whole data set or a whole group of them: `val_data={}` drops all, `val_data.NAME={}` one. `method`
    fills in what it stands for, `data` moves the roots of the data sets that lie in it, and another loss, miner,
    optimiser or head for clips has its own defaults instead of the options of the recipe's.

    Raises:
      UserError: unknown key (lists those beside it) or a value of another type.
    """
    key = ALIASES.get(key, key)
    _leave_auto(config, key)
    *parents, last = key.split(".")
    value = parsed(text)
    if isinstance(value, dict) and _is_data(key):
        _replace_data(config, key, value)
        return
    _begin_data_set(config, parents)
    group: Any = config
    free = any(part in FREE for part in parents)
    for depth, part in enumerate(parents):
        if isinstance(group, ConfigDict) and part not in group and any(before in FREE for before in parents[:depth]):
            with group.unlocked():
                group[part] = ConfigDict({})  # `options.columns.path` begins the option `columns`
        if not isinstance(group, ConfigDict) or part not in group:
            raise UserError(_no_key(".".join(parents[: depth + 1]), part, group))
        group = group[part]
    if not isinstance(group, ConfigDict) or (last not in group and not free):
        raise UserError(_no_key(key, last, group))
    old = group.get(last)
    whole = last in FREE and isinstance(value, dict)
    if isinstance(old, ConfigDict) and isinstance(value, str) and text.startswith("{"):
        raise UserError(
            f"config.{key}={text} is not a dict as Python writes it, with its strings in quotes. A shell takes quotes "
            f"away: put the whole argument into single ones, '{{\"NAME\": VALUE}}'"
        )
    if (
        isinstance(old, ConfigDict)
        and isinstance(value, dict)
        and parents[:1]
        and parents[0] in (*DATA_SET, *DATA_SETS)
        and not whole
    ):
        for inner, content in value.items():  # `clips` or `partition` of a data set
            override(config, f"{key}.{inner}", as_text(content))
        return
    if isinstance(old, ConfigDict) and not whole:
        raise UserError(f"config.{key} is a group; its keys are {sorted(old)}")
    with group.unlocked():
        if whole:
            _check_names(key, value)
            group[last] = ConfigDict(value)
        else:
            group[last] = value if last not in group else _as_type_of(key, old, value, text)
        if OWN_OPTIONS.get(last) in group and group[last] != old:
            group[OWN_OPTIONS[last]] = ConfigDict({})
    if key == "method":
        fill_method(config)
        if config.image.size:  # one that takes images of any size leaves it to the data
            _leave_auto(config, "image.size")
    if key == "data":
        _move_data(config, old)


def _leave_auto(config: ConfigDict, key: str) -> None:
    """What the user says himself is not chosen: the key, what is in its group, and a group that it is in."""
    auto = config.get("auto", ())
    left = tuple(one for one in auto if not f"{one}.".startswith(f"{key}.") and not key.startswith(f"{one}."))
    if len(left) < len(auto):
        with config.unlocked():
            config.auto = left


def data_sets(config: ConfigDict) -> Iterator[tuple[str, ConfigDict]]:
    """The data sets of a recipe, by their dotted keys."""
    for group in DATA_SET:
        if config[group]:
            yield group, config[group]
    for group in DATA_SETS:
        yield from ((f"{group}.{name}", spec) for name, spec in sorted(config[group].items()))


def _check_names(key: str, value: Any) -> None:
    """Raises UserError for a dict whose keys could not be keys of a recipe."""
    for name, content in value.items() if isinstance(value, dict) else ():
        if not isinstance(name, str) or "." in name or not name:
            raise UserError(f"config.{key}: {name!r} is no key; a key is a string without dots")
        _check_names(f"{key}.{name}", content)


def as_text(value: Any) -> str:
    """A value as `override` reads it."""
    return value if isinstance(value, str) else repr(value)


def _is_data(key: str) -> bool:
    """Whether a key is a data set or a group of data sets, not one of its keys."""
    group, *name = key.split(".")
    return (group in DATA_SETS and len(name) < 2) or (group in DATA_SET and not name)


def _begin_data_set(config: ConfigDict, parents: Sequence[str]) -> None:
    """Makes the data set that a key belongs to, where the recipe has none of that name."""
    group, *name = parents or [""]
    with config.unlocked():
        if group in DATA_SETS and name and name[0] not in config[group]:
            config[group][name[0]] = common.data(DATA_SETS[group], "")
        if group in DATA_SET and not config[group]:
            config[group] = common.data(DATA_SET[group], "")


def _replace_data(config: ConfigDict, key: str, value: dict[str, Any]) -> None:
    """Puts what a dict says in place of a data set, or of a group of them; an empty one drops it.

    Raises:
      UserError: for a set to drop that is not there, and as `override` for the keys of a set.
    """
    group, _, name = key.partition(".")
    if name and not value and name not in config[group]:
        raise UserError(unknown(f"data set config.{key} to drop", name, config[group]))
    with config.unlocked():
        if not name:
            config[group] = ConfigDict({})
        elif name in config[group]:
            del config[group][name]
    for inner, content in value.items():
        override(config, f"{key}.{inner}", as_text(content))


def _move_data(config: ConfigDict, old: str) -> None:
    """Moves the roots of all data sets that lie in the folder `old` into `config.data`.

    Raises:
      UserError: where none lies there, so that the change would say nothing.
    """
    sets = list(data_sets(config))
    inside = [spec for _, spec in sets if Path(spec.root).is_relative_to(old)]
    if not inside:
        roots = ", ".join(f"{key}.root={spec.root}" for key, spec in sets)
        there = f": {roots}. Change these keys" if roots else ". Leave it out"
        raise UserError(f"config.data={config.data} moves the data sets of the recipe in {old}, where none lies{there}")
    for spec in inside:
        with spec.unlocked():
            spec.root = str(Path(config.data, Path(spec.root).relative_to(old)))


def fill_method(config: ConfigDict) -> None:
    """Sets `model` and `image` as the method was published, where the recipe names one."""
    if not config.method:
        return
    from jaxvpr import models  # imports JAX, which no other recipe needs before it is known to make sense

    if config.method not in models.METHODS:
        answer = unknown(f"method {config.method!r}", config.method, models.METHODS)
        raise UserError(f"config.method: {answer}; docs/models.md describes them")
    described = models.description(config.method)
    with config.unlocked():
        for key in ("backbone", "aggregator"):
            config.model[key] = described.model[key]
            config.model[f"{key}_options"] = ConfigDict(dict(described.model.get(f"{key}_options", {})))
        config.model.l2_after = described.model.get("l2_after", True)
        config.model.sequence = described.model.get("sequence", "")
        if "position" in described.model:  # else the recipe's own head stays
            config.model.position = described.model["position"]
            config.model.position_options = ConfigDict(dict(described.model.get("position_options", {})))
        for key in ("sequence_options", "non_local"):
            config.model[key] = ConfigDict(dict(described.model.get(key, {})))
        config.image.update(
            {key: value for key, value in described.preprocess._asdict().items() if key in config.image}
        )


def parsed(text: str) -> Any:
    """The value of a text: true or false, a literal as Python writes it, or the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # the last two: brackets without end
        return text


def _as_type_of(key: str, old: Any, value: Any, text: str) -> Any:
    if isinstance(old, str):
        return text
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(old, tuple):
        if old and not isinstance(old[0], str) and isinstance(value, str):
            raise UserError(f"config.{key}={text!r:.200} is not a tuple of {type(old[0]).__name__} such as {old!r}")
        items = tuple(value) if isinstance(value, list | tuple) else (value,)
        return tuple(_as_type_of(key, old[0], item, str(item)) for item in items) if old else items
    if old is not None and type(old) is not type(value):
        raise UserError(
            f"config.{key}={text!r:.200} is not of type {type(old).__name__}, as its value so far is: {old!r}"
        )
    return value


def _no_key(key: str, part: str, group: Any) -> str:
    keys = sorted(group) if isinstance(group, ConfigDict) else []
    return unknown(f"key config.{key}", part, keys, ALIASES if key == part else ())


def unknown(what: str, name: str, names: Iterable[str], aliases: Iterable[str] = ()) -> str:
    """Says that there is no such thing: first which names are near it, names that it begins or similar ones, then all.

    Args:
      what: the thing with its name, as the message begins: "verb 'trian'".
      aliases: further names that it may be meant for, which are not listed.
    """
    known = list(names)
    meant = [*known, *aliases]
    near = [one for one in meant if name and one.startswith(name)] or difflib.get_close_matches(name, meant, 1)
    hint = f": did you mean {' or '.join(near[:5])}?" if near else "."
    return f"no {what}{hint} There {'is' if len(known) == 1 else 'are'} {', '.join(known) or 'none'}"
