"""The folder of a run: whose it is, and which weights it holds."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from configs import common
from data_pipelines.progress import slow
from data_pipelines.whole import write_json
from jaxvpr import build, models, weights
from jaxvpr.checks import check
from jaxvpr.commandline import load_config
from jaxvpr.errors import UserError
from jaxvpr.parallel import hosts
from jaxvpr.training.checkpoint import Checkpoints
from jaxvpr.training.loop import Variables

# What may change between the parts of one run: it decides neither a weight nor which is best. A PCA comes after it.
FREE = (
    "loader.threads", "loader.workers", "loader.prefetch", "checkpoint.",
    "log_seconds", "test_data.", "eval.batch", "eval.localize", "pca.",
)  # fmt: skip
# Data may move to another folder; that its images are the same ones is the user's word.
MOVED = re.compile(r"(train_data|target_data|more_train_data\..+|val_data\..+)\.root$")
MODEL_FILE = "model.safetensors"


def claim(folder: Path, config: ConfigDict) -> None:
    """Makes the folder this recipe's, or checks that it is. A folder without checkpoints is nobody's yet.

    Raises:
      UserError: if another recipe lives there (names the keys that differ), or the folder cannot be written.
    """
    if has_checkpoints(folder):
        refuse_other(folder, config)
    if hosts.is_first():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", json.loads(config.to_json()))
    hosts.barrier("workdir")


def refuse_other(folder: Path, config: ConfigDict, free: tuple[str, ...] = FREE) -> None:
    """Checks that a folder in which a run began is this recipe's, but for the keys that may change (`free`).

    Raises:
      UserError: if another recipe lives there; names the keys that differ.
    """
    file = folder / "config.json"
    differ = _differences(json.loads(file.read_text()), json.loads(config.to_json()), free) if file.exists() else {}
    if differ:
        raise UserError(
            f"{folder} holds a run of another configuration; these keys differ:\n  "
            + "\n  ".join(f"{key}: {old!r} there, {new!r} now" for key, (old, new) in differ.items())
            + "\nGive another --workdir, or the old values."
        )


def has_checkpoints(folder: Path) -> bool:
    """Whether a run has begun to leave checkpoints in its folder."""
    checkpoints = folder / "checkpoints"
    return checkpoints.is_dir() and any(path.name.isdigit() for path in checkpoints.iterdir())


def differences(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """The keys in which two recipes differ, each with its values; data may lie in another folder."""
    return _differences(json.loads(old.to_json()), json.loads(new.to_json()), ())


def _differences(old: dict[str, Any], new: dict[str, Any], free: tuple[str, ...]) -> dict[str, tuple[Any, Any]]:
    flat_old, flat_new = (
        {
            key: value
            for key, value in flatten_dict(tree, sep=".").items()
            if not (key.startswith(free) or MOVED.match(key))
        }
        for tree in (old, new)
    )
    absent = "absent"
    return {
        key: (flat_old.get(key, absent), flat_new.get(key, absent))
        for key in sorted(set(flat_old) | set(flat_new))
        if flat_old.get(key, absent) != flat_new.get(key, absent)
    }


def default(name: str) -> Path:
    """Where a recipe or sweep of this name runs if nobody says."""
    return Path("runs") / name


def variables(config: ConfigDict, folder: Path, which: str, fresh: bool = False) -> tuple[str, Variables]:
    """The weights that `--checkpoint` names: (what they are, variables on the host).

    Args:
      which: "best" or "last" or a step of the folder's checkpoints, or a file of weights of any family. A folder
        without checkpoints may hold the one model that `save_model` wrote; it counts before the recipe's own weights
        where a run made it from them.
      fresh: answer with random weights where there are none at all.

    Raises:
      UserError: where there is no such checkpoint and the recipe itself names no weights to start from.
    """
    shapes = build.shapes(config)
    if not (which in ("best", "last") or which.isdigit()):
        if not Path(which).is_file():
            raise UserError(f"--checkpoint={which}: no such file of weights; else it is best, last or a step")
        return which, build.initial_variables(config, which)
    found = None
    if (folder / "checkpoints").is_dir():
        with slow(f"reading a checkpoint of {folder}"):
            checkpoints = Checkpoints(folder / "checkpoints", read_only=True)
            found = checkpoints.variables(shapes, int(which) if which.isdigit() else which)
            checkpoints.close()
    if found:
        return f"step {found[0]} of {folder}", jax.device_get(found[1])
    left = folder / MODEL_FILE
    if left.is_file() and (not config.init or _began_from(left) == config.init):
        return str(left), build.filled(config, weights.init_from(shapes, left))
    if config.init:
        return config.init, build.initial_variables(config)
    if fresh:
        return f"random, seed {config.seed}", build.initial_variables(config)
    raise UserError(
        f"{folder} holds no checkpoint. Train first, or give --workdir=FOLDER, --checkpoint=FILE, or weights=FILE "
        "behind the recipe (--config=RECIPE,weights=FILE)."
    )


def _began_from(file: Path) -> str:
    """What the run that wrote a model began from."""
    return json.loads(weights.read_metadata(file).get("jaxvpr_config") or "{}").get("init", "")


def save_model(folder: Path, config: ConfigDict, trained: Variables) -> Path:
    """Writes the model as one file that describes itself: weights under our names, the recipe as metadata."""
    return write_model(folder / MODEL_FILE, config, trained)


def write_model(file: Path, config: ConfigDict, trained: Variables) -> Path:
    """`save_model` under any name that ends in .safetensors."""
    weights.write(file, weights.to_torch("jaxvpr", trained), {"jaxvpr_config": config.to_json()})
    return file


def load_model(file: Path) -> tuple[ConfigDict, Variables]:
    """The inverse of `save_model`.

    Raises:
      UserError: for a file that neither `save_model` nor `exchange.export` wrote.
    """
    text = weights.read_metadata(file).get("jaxvpr_config")
    if text is None:
        raise UserError(f"{file} carries no recipe; give the recipe with --config and this file as --checkpoint")
    # A recipe of before a key came to be has the key's default.
    config = common.base().unlock()
    config.update(ConfigDict(json.loads(text)))
    config.lock()
    return config, build.filled(config, weights.init_from(build.shapes(config), file))


NAMES = (
    "the folder of a run, a model.safetensors that a run wrote, METHOD:FILE (a method of docs/models.md and its "
    "weights), or RECIPE.py,init=FILE"
)


def named(name_or_file: str | os.PathLike[str]) -> tuple[ConfigDict, Variables]:
    """A model by one of `NAMES`: the recipe it comes from, locked, and its weights on the host.

    Raises:
      UserError: where there is no such thing, or it carries no weights.
    """
    path, (method, _, file) = Path(name_or_file), str(name_or_file).partition(":")
    if (path / MODEL_FILE).is_file():
        path = path / MODEL_FILE
    if method in models.METHODS:
        config = load_config(f"configs/zoo.py:{method}")
        config.init = file
    elif path.suffix == ".safetensors" and ".py" not in str(path).partition(",")[0]:
        if not path.is_file():
            raise UserError(f"{path}: no such file. A model is named by {NAMES}")
        return load_model(path)
    elif path.is_dir():
        raise UserError(f"{path} holds no {MODEL_FILE}: a run writes it when it ends")
    else:
        config = load_config(str(name_or_file))
    check(config.lock())
    if not config.init:
        raise UserError(f"{name_or_file} names no weights; add ,init=FILE. A model is named by {NAMES}")
    return config, build.initial_variables(config)
