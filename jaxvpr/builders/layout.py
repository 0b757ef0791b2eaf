"""What a folder of the user's holds: which reader reads it, and which of its splits serve what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from data_pipelines.places import ROLES, SPLITS, Places
from data_pipelines.readers import at_names
from jaxvpr.builders.datasets import places
from jaxvpr.errors import UserError

Choice = tuple[str, Any, str]  # a dotted key, its value, and why


def reader(config: ConfigDict) -> list[Choice]:
    """Which reader reads the folder of `train_data`."""
    root = Path(config.train_data.root)
    if at_names.is_tree(root):
        return [("train_data.reader", "at_names", "the folder has images, train, val or test in it")]
    if root.suffix.lower() == ".csv" or any(root.glob("*.csv")):
        return [("train_data.reader", "csv", "a table lies in the folder")]
    return [
        ("train_data.reader", "folder", "neither a table nor a folder of a split lies there"),
        ("train_data.options", {"without_position": "drop"}, "photos without coordinates teach no place"),
    ]


def splits(config: ConfigDict) -> list[Choice]:
    """Which splits train, validate and test; a part of the map is held out where there is none to validate on.

    Raises:
      UserError: where there are splits, but none to train on.
    """
    images = places(config, config.train_data)
    named = [split for split in SPLITS if (images.split == SPLITS.index(split)).any()]
    if named and "train" not in named:
        raise UserError(
            f"{config.train_data.root} has the split{'s' * (len(named) > 1)} {', '.join(named)} and no train. Put what "
            "trains into train, or say which split trains: train_data.split=NAME"
        )
    found: list[Choice] = [("train_data.split", "train", "the data name their splits")] if named else []
    for group, split in (("val_data", "val"), ("test_data", "test")):
        if split in named and _asks(images.select(split=split)) and not config[group]:
            found.append((group, {split: _other(config.train_data, split)}, "the data have this split"))
    if config.val_data or any(key == "val_data" for key, _, _ in found):
        return [*found, ("train_data.hold_out", 0.0, "there is a set to validate on")]
    why = "no split to validate on: a part of the map is kept apart"
    return [*found, ("train_data.hold_out", config.train_data.hold_out, why)]


def _asks(images: Places) -> bool:
    """Whether a split has queries and a database."""
    return all(np.any(images.role == ROLES.index(role)) for role in ("database", "query"))


def _other(spec: ConfigDict, split: str) -> dict[str, Any]:
    """Another split of a data set."""
    return {
        "reader": spec.reader,
        "root": spec.root,
        "split": split,
        "thresholds": tuple(spec.thresholds),
        "options": spec.options.to_dict(),
    }
