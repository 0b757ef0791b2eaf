"""The folder of a run, and whose it is."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from configs import common, objectives
from data_pipelines.atomic import write_json
from data_pipelines.own_files import read_json
from jaxvpr.errors import UserError
from jaxvpr.parallel import hosts

log = logging.getLogger(__name__)
# What may change between the parts of one run: it decides neither a weight nor which is best. A PCA comes after it.
FREE = (
    "loader.threads", "loader.workers", "loader.prefetch", "checkpoint.",
    "log_seconds", "profile.", "hosts.", "frozen_random", "test_data.", "eval.batch", "eval.localize", "eval.search",
    "eval.host_mib", "pca.", "mesh.",
)  # fmt: skip
AGAIN = "It says which recipe the run has: delete it if that is the one given now, and it is written anew"
# Data may move to another folder; that its images are the same ones is the user's word.
MOVED = re.compile(r"data$|(train_data|target_data|more_train_data\..+|val_data\..+)\.root$")
OPTIMISERS = ("optimizer", "optimizer_extra", "optimizer_shared")
WARMUPS = ("margin_warmup", "loss_options.margin_warmup")  # shares of the run


def claim(folder: Path, config: ConfigDict) -> None:
    """Makes the folder this recipe's, or checks that it is. A folder without checkpoints is nobody's yet.

    A run may be given more epochs than it began with, also where it has ended; what then is not as if it had them from
    the beginning is said.

    Raises:
      UserError: if another recipe lives there (names the keys that differ), or the folder cannot be written.
    """
    check(folder, config)
    if hosts.is_first():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", json.loads(config.to_json()))
    hosts.barrier("workdir")


def check(folder: Path, config: ConfigDict) -> None:
    """As `claim`, and changes nothing."""
    if has_checkpoints(folder):
        refuse_other(folder, config, (*FREE, *_longer(folder, config)))


def _longer(folder: Path, config: ConfigDict) -> tuple[str, ...]:
    """("epochs",) where the run of the folder now has more of them."""
    file = folder / "config.json"
    before = read_json(file, AGAIN).get("epochs") if file.exists() else 0
    if not isinstance(before, int) or not 0 < before < config.epochs:
        return ()
    depends = [f"{group}.schedule={config[group].schedule}" for group in OPTIMISERS if _falls(config[group])]
    depends += [f"objective.{key}" for key in WARMUPS if _value(config.objective, key)]
    depends += ["domain.gamma"] * bool(config.domain.method and config.domain.gamma)
    depends += [f"every_epochs={config.every_epochs}"] * bool(before % config.every_epochs)
    log.info(
        "%s: a run of %d epochs goes on to %d, %s", folder, before, config.epochs,
        "as if it had had them from the beginning" if not depends else "and what follows the length of a run changes "
        f"from here on, not in the epochs before: {', '.join(depends)}",
    )  # fmt: skip
    return ("epochs",)


def _falls(optimiser: ConfigDict) -> bool:
    """Whether the learning rate of a step depends on how many there will be."""
    return optimiser.schedule in ("cosine", "linear") and not optimiser.length


def _value(group: ConfigDict, key: str) -> Any:
    first, _, rest = key.partition(".")
    value = group.get(first)
    return _value(value, rest) if rest and isinstance(value, ConfigDict) else value


def refuse_other(folder: Path, config: ConfigDict, free: tuple[str, ...] = FREE) -> None:
    """Checks that a folder in which a run began is this recipe's, but for the keys that may change (`free`).

    Raises:
      UserError: if another recipe lives there; names the keys that differ.
      DataError: if it cannot be seen whose it is.
    """
    file = folder / "config.json"
    differ = _differences(read_json(file, AGAIN), json.loads(config.to_json()), free) if file.exists() else {}
    if differ:
        raise UserError(
            f"{folder} holds a run of another configuration; these keys differ:\n  "
            + "\n  ".join(f"{key}: {old!r} there, {new!r} now" for key, (old, new) in differ.items())
            + "\nGive another --workdir, or the old values."
        )


def has_checkpoints(folder: Path) -> bool:
    """Whether a run has begun to leave checkpoints in its folder."""
    return bool(steps(folder))


def steps(folder: Path) -> list[int]:
    """The steps of the checkpoints in the folder of a run, oldest first."""
    checkpoints = folder / "checkpoints"
    names = [path.name for path in checkpoints.iterdir()] if checkpoints.is_dir() else []
    return sorted(int(name) for name in names if name.isdecimal())


def differences(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """The keys in which two recipes differ, each with its values; data may lie in another folder."""
    return _differences(json.loads(old.to_json()), json.loads(new.to_json()), ())


def _differences(old: dict[str, Any], new: dict[str, Any], free: tuple[str, ...]) -> dict[str, tuple[Any, Any]]:
    if chosen := tuple(new.get("auto", ())):  # what they will be is not known yet
        free = (*free, *chosen, "auto")
    flat_old, flat_new, defaults = (
        {key: value for key, value in flat.items() if not (key.startswith(free) or MOVED.match(key))}
        for flat in (_flat(old), _flat(new), _defaults(new))
    )
    # A recipe of before a key came to be has the key's default.
    flat_old = {key: value for key, value in defaults.items() if key in flat_new} | flat_old
    absent = "absent"
    return {
        key: (flat_old.get(key, absent), flat_new.get(key, absent))
        for key in sorted(set(flat_old) | set(flat_new))
        if flat_old.get(key, absent) != flat_new.get(key, absent)
    }


def _flat(tree: dict[str, Any]) -> dict[str, Any]:
    return flatten_dict(tree, sep=".")


def _defaults(recipe: dict[str, Any]) -> dict[str, Any]:
    """Those of the keys that all recipes have, and of those of the objective and of each data set of this one."""
    own = ConfigDict(recipe.get("objective", {}))
    objective = ConfigDict({"objective": objectives.DEFAULTS.get(own.get("name"), lambda keys: keys)(own)})
    of_all, of_objective, of_data = (
        _flat(json.loads(keys.to_json())) for keys in (common.base(), objective, common.data("", ""))
    )
    sets = [key.removesuffix("reader") for key in _flat(recipe) if key.endswith(".reader")]
    return of_all | of_objective | {one + key: value for one in sets for key, value in of_data.items()}


def default(name: str) -> Path:
    """Where a recipe or sweep of this name runs if nobody says."""
    return Path("runs") / name
