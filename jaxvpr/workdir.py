"""The folder of a run: whose it is, and which weights it holds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from configs import common
from data_pipelines.whole import write_json
from jaxvpr import build, weights
from jaxvpr.errors import UserError
from jaxvpr.parallel import hosts
from jaxvpr.training.checkpoint import Checkpoints
from jaxvpr.training.loop import Variables

# What may change between the parts of one run: it decides neither a weight nor a recall.
FREE = ("loader.threads", "loader.workers", "loader.prefetch", "checkpoint.", "log_seconds", "test_data.", "eval.batch")
# Data may move to another folder; that its images are the same ones is the user's word.
MOVED = re.compile(r"(train_data|more_train_data\..+|val_data\..+)\.root$")
MODEL_FILE = "model.safetensors"


def claim(folder: Path, config: ConfigDict) -> None:
    """Makes the folder this recipe's, or checks that it is. A folder without checkpoints is nobody's yet.

    Raises:
      UserError: if another recipe lives there (names the keys that differ), or the folder cannot be written.
    """
    file, ours = folder / "config.json", json.loads(config.to_json())
    if file.exists() and _has_checkpoints(folder):
        differ = _differences(json.loads(file.read_text()), ours)
        if differ:
            raise UserError(
                f"{folder} holds a run of another configuration; these keys differ:\n  "
                + "\n  ".join(f"{key}: {old!r} there, {new!r} now" for key, (old, new) in differ.items())
                + "\nGive another --workdir, or the old values."
            )
    if hosts.is_first():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, ours)
    hosts.barrier("workdir")


def _has_checkpoints(folder: Path) -> bool:
    checkpoints = folder / "checkpoints"
    return checkpoints.is_dir() and any(path.name.isdigit() for path in checkpoints.iterdir())


def _differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    flat_old, flat_new = (
        {
            key: value
            for key, value in flatten_dict(tree, sep=".").items()
            if not (key.startswith(FREE) or MOVED.match(key))
        }
        for tree in (old, new)
    )
    absent = "absent"
    return {
        key: (flat_old.get(key, absent), flat_new.get(key, absent))
        for key in sorted(set(flat_old) | set(flat_new))
        if flat_old.get(key, absent) != flat_new.get(key, absent)
    }


def default(config: ConfigDict) -> Path:
    """Where a recipe runs if nobody says."""
    return Path("runs") / config.name


def variables(config: ConfigDict, folder: Path, which: str, fresh: bool = False) -> tuple[str, Variables]:
    """The weights that `--checkpoint` names: (what they are, variables on the host).

    Args:
      which: "best" or "last" or a step of the folder's checkpoints, or a file of weights of any family. A folder
        without checkpoints may hold the one model that `save_model` wrote.
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
        checkpoints = Checkpoints(folder / "checkpoints", read_only=True)
        found = checkpoints.variables(shapes, int(which) if which.isdigit() else which)
        checkpoints.close()
    if found:
        return f"step {found[0]} of {folder}", jax.device_get(found[1])
    if config.init:
        return config.init, build.initial_variables(config)
    if (folder / MODEL_FILE).is_file():
        return str(folder / MODEL_FILE), build.filled(config, weights.init_from(shapes, folder / MODEL_FILE))
    if fresh:
        return f"random, seed {config.seed}", build.initial_variables(config)
    raise UserError(
        f"{folder} holds no checkpoint. Train first, or give --workdir=FOLDER, --checkpoint=FILE, or weights=FILE "
        "behind the recipe (--config=RECIPE,weights=FILE)."
    )


def save_model(folder: Path, config: ConfigDict, trained: Variables) -> Path:
    """Writes the model as one file that describes itself: weights under our names, the recipe as metadata."""
    file = folder / MODEL_FILE
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
