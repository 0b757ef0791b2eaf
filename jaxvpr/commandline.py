"""The command line: a verb, a recipe, and changes to it. Every mistake is answered with what exists."""

from __future__ import annotations

import ast
import difflib
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from configs import common
from jaxvpr.checks import check, check_training
from jaxvpr.errors import UserError

VERBS = ("train", "evaluate", "extract", "localize", "compress", "import", "export", "sweep")
FLAGS = {
    "config": "recipe, or file of a sweep: FILE[:preset][,key=value ...]",
    "workdir": "folder of the run: checkpoints, logs, metrics.json, report.html (default: runs/<name of the recipe>)",
    "checkpoint": "weights to use: best, last, or a step of the workdir, or a FILE of weights",
    "images": "folder of photos to describe, to localise, or to fit a PCA on (compress)",
    "database": "folder of database images (evaluate), or descriptors from extract, or a run's classes.npy (localize)",
    "queries": "folder of query images (evaluate)",
    "out": "file (extract: .npy; compress: .safetensors; export: that, .pth, .stablehlo) or folder (localize) to write",
    "family": "names of the weights to write (export; default: those of the recipe's method)",
    "top": "how many places to name (localize)",
    "coordinator": "several hosts: HOST:PORT of process 0, or auto",
    "processes": "several hosts: how many processes",
    "process": "several hosts: the number of this one",
}
DEFAULTS = {"checkpoint": "best", "top": "5"}


class Command(NamedTuple):
    """What was asked for.

    Attributes:
      verb: one of `VERBS`.
      flags: values of `FLAGS` that were given or have a default.
      config: the recipe with its changes, locked; the defaults for `sweep`, whose file names its own recipe.
      changes: the (key, text) of each `--config.KEY`.
    """

    verb: str
    flags: dict[str, str]
    config: ConfigDict
    changes: tuple[tuple[str, str], ...] = ()


def usage() -> str:
    """The help text."""
    lines = [f"  --{name:<12} {text}" for name, text in FLAGS.items()]
    return "\n".join(
        [
            f"jaxvpr [{'|'.join(VERBS)}] --config=FILE[:preset][,key=value ...] [--config.key=value ...] [flags]",
            *lines,
            f"Recipes that come along: {', '.join(_shipped())}. Keys and defaults: configs/common.py.",
            f"Sweeps that come along: {', '.join(_shipped('sweeps/'))}.",
        ]
    )


def parse(arguments: Sequence[str]) -> Command:
    """Reads the arguments of a command.

    Raises:
      UserError: for an unknown verb, flag, recipe, preset or key, or a value of another type; says what exists.
    """
    verbs, flags, changes = [], dict(DEFAULTS), []
    queue = list(arguments)
    while queue:
        argument = queue.pop(0)
        if not argument.startswith("--"):
            verbs.append(argument)
            continue
        name, given, value = argument[2:].partition("=")
        if name not in FLAGS and not name.startswith("config."):
            raise UserError(
                f"no flag --{name}{_did_you_mean(name, FLAGS)}; there are {_listed(FLAGS, '--')} and --config.KEY"
            )
        if not given:
            if not queue or queue[0].startswith("--"):
                raise UserError(f"--{name} needs a value: --{name}=VALUE")
            value = queue.pop(0)
        if name.startswith("config."):
            changes.append((name.removeprefix("config."), value))
        else:
            flags[name] = value
    if len(verbs) > 1 or any(verb not in VERBS for verb in verbs):
        raise UserError(f"no verb {' '.join(verbs)!r}{_did_you_mean(verbs[0], VERBS)}; there are {list(VERBS)}")
    if "config" not in flags:
        raise UserError(f"--config=FILE is needed; recipes that come along: {', '.join(_shipped())}")
    verb = verbs[0] if verbs else VERBS[0]
    if verb == "sweep":
        return Command(verb, flags, common.base(), tuple(changes))
    config = load_config(flags["config"])
    override_all(config, changes)
    check(config)
    if verb == "train":
        check_training(config)
    return Command(verb, flags, config.lock(), tuple(changes))


def load_config(text: str) -> ConfigDict:
    """Runs the recipe of `FILE[:preset][,key=value ...]`.

    A file that is not found from the working directory is looked up among those that come with the package.

    Raises:
      UserError: no such file, no `get_config` in it, no such preset or key.
    """
    config, changes = run_file(text, "get_config")
    _fill_method(config)
    override_all(config, changes)
    return config


def run_file(text: str, name: str) -> tuple[Any, list[tuple[str, str]]]:
    """What the function `name` of `FILE[:preset][,key=value ...]` returns, and the (key, text) of the changes.

    Raises:
      UserError: as `load_config`.
    """
    head, *changes = text.split(",")
    file, _, preset = head.partition(":")
    path = find_config(file)
    if path.suffix != ".py":  # Python would also run what stands in a zip, which weights of PyTorch are
        raise UserError(f"{file} is no recipe, a Python file (.py); weights go behind one: RECIPE.py,weights=FILE")
    try:
        found = runpy.run_path(str(path))
    except (ImportError, SyntaxError) as error:
        raise UserError(f"{file} is no recipe that Python can run: {error}") from error
    if name not in found:
        other = next((verb for function, verb in FUNCTIONS.items() if function in found), "")
        raise UserError(f"{file} has no function {name}(preset)" + f"; the verb for it is {other}" * bool(other))
    for change in changes:
        if "=" not in change:
            raise UserError(f"--config={text}: expected key=value after the comma, got {change!r}")
    try:
        return found[name](preset), [(key, value) for key, _, value in (c.partition("=") for c in changes)]
    except ValueError as error:
        raise UserError(f"{file}: {error}") from error


FUNCTIONS = {"get_config": "train", "get_sweep": "sweep"}


def find_config(file: str) -> Path:
    """The path of a recipe, in the working directory or beside the package."""
    beside = Path(__file__).resolve().parent.parent
    for candidate in (Path(file), beside / file, beside / "configs" / file):
        if candidate.is_file():
            return candidate
    raise UserError(f"no recipe {file!r} here or with the package; those that come along: {', '.join(_shipped())}")


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
        _fill_method(config)


def _fill_method(config: ConfigDict) -> None:
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


DATA_SETS = ("more_train_data", "val_data", "test_data")
ALIASES = {"weights": "init"}
OWN_OPTIONS = ("loss", "miner")
FREE = frozenset(("backbone_options", "aggregator_options", "loss_options", "miner_options", "options", "city"))


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
    near = _did_you_mean(part, [*keys, *ALIASES] if key == part else keys)
    return f"no key config.{key}{near}; there are {keys}"


def _did_you_mean(name: str, names: Any) -> str:
    near = difflib.get_close_matches(name, list(names), 1)
    return f" (did you mean {near[0]}?)" if near else ""


def _listed(names: Any, prefix: str) -> str:
    return ", ".join(prefix + name for name in names)


def _shipped(folder: str = "") -> list[str]:
    beside = Path(__file__).resolve().parent.parent / "configs" / folder
    names = (path.name for path in beside.glob("*.py") if path.name not in ("__init__.py", "common.py"))
    return sorted(f"configs/{folder}{name}" for name in names)
