"""The file of a sweep: one recipe in many variations, every one of them checked before the first is trained.

A sweep file has a function `get_sweep(preset) -> dict` with the keys

- `name`: what the sweep is called, and its folder in `runs/`.
- `recipe`: what is varied, as `--config` takes it: FILE[:preset][,key=value ...].
- `runs`: {name: {key: value, ...}}, the changes of each run; its folder has its name. The key `recipe` names another.
- `seeds` (1): with how many seeds each run is trained, or {name: how many} for some. They count up from the recipe's.
- `rows`, `columns`: titles of a table with two axes. The name of each run then is ROW+COLUMN.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxvpr.cli import checks, overrides, recipes
from jaxvpr.errors import UserError

KEYS = ("name", "recipe", "runs", "seeds", "rows", "columns")
NAME = re.compile(r"[A-Za-z0-9][\w.+=-]*")


class Run(NamedTuple):
    """One training of a sweep.

    Attributes:
      name: of the variation; runs that differ in the seed alone share it.
      folder: of this run, in that of the sweep.
      seed: of this run.
      changes: what the sweep file changes in the recipe, {key: value}.
      config: the whole configuration, locked.
    """

    name: str
    folder: str
    seed: int
    changes: dict[str, Any]
    config: ConfigDict


class Sweep(NamedTuple):
    """The content of a sweep file, checked; `rows` and `columns` are empty where its table has no two axes."""

    name: str
    recipe: str
    rows: str
    columns: str
    runs: tuple[Run, ...]


def load(text: str, changes: Sequence[tuple[str, str]] = ()) -> Sweep:
    """Reads a sweep and checks the configuration of every run.

    Args:
      text: FILE[:preset][,key=value ...].
      changes: further (key, text) for all runs, made last.

    Raises:
      UserError: for a file, preset, key or value that is not one (names the run), and for runs that are the same.
    """
    given, changed = recipes.run_file(text, "get_sweep")
    file = text.partition(",")[0]
    _check_shape(file, given)
    seeds = _seeds(file, given)
    runs = [
        run
        for name, own in given["runs"].items()
        for run in _of_one_name(f"{file}, run {name!r}", name, own, seeds[name], given, [*changed, *changes])
    ]
    _check_apart(file, runs)
    return Sweep(given["name"], given["recipe"], given.get("rows", ""), given.get("columns", ""), tuple(runs))


def _of_one_name(
    where: str, name: str, own: Mapping[str, Any], seeds: int, given: Mapping[str, Any], for_all: list[tuple[str, str]]
) -> list[Run]:
    runs = []
    for number in range(seeds):
        try:
            config = recipes.load_config(own.get("recipe", given["recipe"]))
            changes = [(key, overrides.as_text(value)) for key, value in own.items() if key != "recipe"]
            overrides.override_all(config, changes)
            overrides.override_all(config, for_all)
            checks.check(config)
            checks.check_training(config)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        if not config.test_data:
            raise UserError(
                f"{where}: the recipe {own.get('recipe', given['recipe'])} has no test_data, by which a sweep compares"
            )
        folder = f"{name}-seed{config.seed + number}" if number else name
        with config.unlocked():
            config.name, config.seed = name, config.seed + number
        runs.append(Run(name, folder, config.seed, dict(own), config.lock()))
    return runs


def _check_shape(file: str, given: Any) -> None:
    if not isinstance(given, Mapping) or not {"name", "recipe", "runs"} <= set(given) <= set(KEYS):
        has = sorted(given) if isinstance(given, Mapping) else type(given).__name__
        raise UserError(f"{file}: get_sweep must return a dict with name, recipe and runs, of {list(KEYS)}; got {has}")
    for key in set(given) - {"runs", "seeds"}:
        if not isinstance(given[key], str):
            raise UserError(f"{file}: {key}={given[key]!r} must be a string")
    runs = given["runs"]
    if not isinstance(runs, Mapping) or not runs or not all(isinstance(own, Mapping) for own in runs.values()):
        raise UserError(f"{file}: runs must be {{name: {{key: value, ...}}, ...}} with one run or more")
    if ("rows" in given) != ("columns" in given):
        raise UserError(f"{file}: rows and columns go together, the titles of a table's two axes")
    for name in [given["name"], *runs]:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UserError(f"{file}: {name!r} names a folder: letters, digits and any of _ . + = - after the first")
        if "rows" in given and name in runs and not re.fullmatch(r"[^+]+\+[^+]+", name):
            raise UserError(f"{file}: the table has rows and columns, so run {name!r} must be called ROW+COLUMN")


def _seeds(file: str, given: Mapping[str, Any]) -> dict[str, int]:
    """How many seeds each run has."""
    seeds = given.get("seeds", 1)
    some = seeds if isinstance(seeds, Mapping) else dict.fromkeys(given["runs"], seeds)
    unknown = sorted(set(some) - set(given["runs"]))
    if unknown:
        raise UserError(f"{file}: seeds names {unknown}; the runs are {list(given['runs'])}")
    for name, count in some.items():
        if type(count) is not int or count < 1:
            raise UserError(f"{file}: seeds of {name!r} must be an integer from 1 up, not {count!r}")
    return {name: some.get(name, 1) for name in given["runs"]}


def _check_apart(file: str, runs: Sequence[Run]) -> None:
    """No two runs of one folder, or of one configuration."""
    folders: dict[str, str] = {}
    configs: dict[str, str] = {}
    for run in runs:
        plain = run.config.copy_and_resolve_references().unlock()
        plain.name = ""
        for taken, key, what in ((folders, run.folder.lower(), "folder"), (configs, plain.to_json(), "configuration")):
            if key in taken:
                raise UserError(
                    f"{file}: runs {taken[key]!r} and {run.folder!r} have the same {what}; drop or rename one"
                    + " (a change of the command line is made to all runs)" * (what == "configuration")
                )
            taken[key] = run.folder
