"""Which weights a verb works with."""

from __future__ import annotations

import os
from pathlib import Path

import jax
from ml_collections import ConfigDict

from data_pipelines.progress import slow
from jaxvpr import builders, models, weights
from jaxvpr.cli.checks import check
from jaxvpr.cli.recipes import load_config
from jaxvpr.errors import UserError
from jaxvpr.models import Variables
from jaxvpr.runs.model_file import MODEL_FILE, began_from, load_model
from jaxvpr.training.checkpoint import Checkpoints


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
    shapes = builders.shapes(config)
    if not (which in ("best", "last") or which.isdigit()):
        if not Path(which).is_file():
            raise UserError(f"--checkpoint={which}: no such file of weights; else it is best, last or a step")
        return which, builders.initial_variables(config, which)
    found = None
    if (folder / "checkpoints").is_dir():
        with slow(f"reading a checkpoint of {folder}"):
            checkpoints = Checkpoints(folder / "checkpoints", read_only=True)
            found = checkpoints.variables(shapes, int(which) if which.isdigit() else which)
            checkpoints.close()
    if found:
        return f"step {found[0]} of {folder}", jax.device_get(found[1])
    left = folder / MODEL_FILE
    if left.is_file() and (not config.init or began_from(left) == config.init):
        return str(left), builders.filled(config, weights.init_from(shapes, left))
    if config.init:
        return config.init, builders.initial_variables(config)
    if fresh:
        return f"random, seed {config.seed}", builders.initial_variables(config)
    raise UserError(
        f"{folder} holds no checkpoint. Train first, or give --workdir=FOLDER, --checkpoint=FILE, or weights=FILE "
        "behind the recipe (--config=RECIPE,weights=FILE)."
    )


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
    return config, builders.initial_variables(config)
