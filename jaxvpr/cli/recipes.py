"""Recipe files: where they are found, and how they are run."""

from __future__ import annotations

import difflib
import runpy
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import common
from jaxvpr.cli.overrides import fill_method, override_all, split_changes, unknown
from jaxvpr.errors import UserError

ROOT = Path(__file__).resolve().parents[2]  # where configs/ lies beside the package
NO_RECIPES = ("__init__.py", "common.py", "objectives.py", "trainings.py")
FUNCTIONS = {"get_config": "train", "get_sweep": "sweep"}


def load_config(text: str) -> ConfigDict:
    """Runs the recipe of `FILE[:preset][,key=value ...]`.

    A file that is not found from the working directory is looked up among those that come with the package, where the
    name alone suffices. A recipe that gives itself no name has that of its file.

    Raises:
      UserError: no such file, no `get_config` in it, no such preset or key.
    """
    config, changes = run_file(text, "get_config")
    _check_keys(text.partition(",")[0], config)
    if not config.name:
        with config.unlocked():
            config.name = Path(text.partition(",")[0].partition(":")[0]).stem
    fill_method(config)
    override_all(config, changes)
    return config


def run_file(text: str, name: str) -> tuple[Any, list[tuple[str, str]]]:
    """What the function `name` of `FILE[:preset][,key=value ...]` returns, and the (key, text) of the changes.

    A comma within brackets or quotes belongs to a value: `image.size=(48,48)`.

    Raises:
      UserError: as `load_config`.
    """
    head, *changes = split_changes(text)
    file, _, preset = head.partition(":")
    path = find_config(file)
    if path.suffix != ".py":  # Python would also run what stands in a zip, which weights of PyTorch are
        raise UserError(f"{file} is not a recipe, a Python file (.py); weights go behind one: RECIPE.py,weights=FILE")
    with _explained(file, path):
        found = runpy.run_path(str(path))
    if not callable(found.get(name)):
        other = next((verb for function, verb in FUNCTIONS.items() if function in found), "")
        raise UserError(f"{file} has no function {name}(preset)" + f"; the verb for it is {other}" * bool(other))
    for change in changes:
        if "=" not in change:
            raise UserError(f"--config={text}: expected key=value after the comma, got {change!r}")
    with _explained(file, path):
        made = found[name](preset)
    return made, [(key, value) for key, _, value in (c.partition("=") for c in changes)]


@contextmanager
def _explained(file: str, path: Path) -> Iterator[None]:
    """Whatever a recipe's own code raises becomes a UserError that names its line."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, UserError):
            raise
        if isinstance(error, ImportError | SyntaxError):
            raise UserError(f"{file} is not a recipe that Python can run: {error}") from error
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        at = f", line {lines[-1]}" if lines and not isinstance(error, ValueError) else ""
        raise UserError(f"{file}{at}: {said:.500}") from error


def _check_keys(file: str, config: Any) -> None:
    """Raises UserError where a recipe returned something else than a configuration with all keys."""
    if not isinstance(config, ConfigDict):
        raise UserError(f"{file}: get_config must return a ConfigDict that began as common.base(), not {config!r:.100}")
    if lacking := _lacking(common.base(), config):
        raise UserError(
            f"{file}: the configuration lacks {', '.join(lacking)}; it has all keys where it begins as common.base()"
        )


def _lacking(defaults: ConfigDict, config: ConfigDict, above: str = "") -> list[str]:
    """The dotted keys and groups of `defaults` that a configuration has not, but for what an objective holds."""
    found = []
    for key, value in defaults.items():
        group = isinstance(value, ConfigDict)
        if key not in config or (group and not isinstance(config[key], ConfigDict)):
            found.append(above + key)
        elif group and key != "objective":
            found += _lacking(value, config[key], f"{above}{key}.")
    return found


def find_config(file: str) -> Path:
    """The path of a recipe, in the working directory or beside the package."""
    for candidate in (Path(file), ROOT / file, ROOT / "configs" / file, ROOT / "configs" / f"{file}.py"):
        if candidate.is_file():
            return candidate
    named = {path: Path(path).stem for path in (*shipped(), *shipped("sweeps/"))}
    near = difflib.get_close_matches(Path(file).stem, list(named.values()), 1)
    meant = next((path for path, stem in named.items() if stem in near), "")
    raise UserError(unknown(f"recipe {file!r} here or with the package", meant, named))


def shipped(folder: str = "") -> list[str]:
    """The recipes that come with the package, or its sweeps, which lie in the folder `sweeps/` of configs/."""
    names = (path.name for path in (ROOT / "configs" / folder).glob("*.py") if path.name not in NO_RECIPES)
    return sorted(f"configs/{folder}{name}" for name in names)
