"""The gallery of coordinates that a head `geoclip` chooses its answers from: a table's, or those of training images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from data_pipelines.readers.coordinates import coordinates
from jaxvpr.builders.network import model
from jaxvpr.cli import weight_source
from jaxvpr.errors import UserError
from jaxvpr.models.positions import GeoCLIP, with_gallery

# The table in the package geoclip, of 100,000 coordinates.
IN_PACKAGE = "model/gps_gallery/coordinates_100K.csv"
OF_TRAINING = "train"


def table_gallery(config: ConfigDict) -> np.ndarray:
    """Normalised float64 [N, 2]: the coordinates of `position_options.source` within the area.

    Raises:
      UserError: for an area of metres or one that is not chosen, or that holds none of them.
      DataError: for a file that is no such table.
    """
    source, area = config.model.position_options.source, _head(config).coding.area
    if area.metres or not area.chosen:
        raise UserError(
            f"model.position_options.source={source!r} has degrees: give model.position_options.area as (south, west, "
            "north, east) in degrees and metres=false, or source='train' for the training images' own positions"
        )
    package = source.removeprefix("pip:") if source.startswith("pip:") else ""
    found = coordinates(weight_source.package_folder(package) / IN_PACKAGE if package else Path(source))
    inside = area.holds(found[:, 0], found[:, 1])
    if not inside.any():
        raise UserError(
            f"model.position_options.source={source!r}: none of its {len(found):,} coordinates lies in "
            f"model.position_options.area={area[:4]}"
        )
    return np.stack(area.normalised(found[inside, 0], found[inside, 1]), -1)


def training_gallery(at: np.ndarray) -> np.ndarray:
    """The different places among normalised positions [N, 2 or more], float64 [M, 2], in order."""
    return np.unique(np.asarray(at, np.float32)[:, :2], axis=0).astype(np.float64)


def filled_gallery(config: ConfigDict, variables: dict[str, Any], at: np.ndarray) -> dict[str, Any]:
    """Variables with a gallery of normalised positions [N, 2].

    Raises:
      UserError: where `position_options.size` says another number; gives the right one.
    """
    size = _head(config).coding.size
    if len(at) != size:
        raise UserError(
            f"model.position_options.size={size}, and the gallery of model.position_options.source="
            f"{config.model.position_options.get('source', '')!r} has {len(at):,} coordinates: give size={len(at)}, or "
            "name the key in config.auto"
        )
    return with_gallery(variables, at)


def with_table(config: ConfigDict, variables: dict[str, Any]) -> dict[str, Any]:
    """Variables of the recipe's model with the gallery of its table, where it names one and no file of weights gave
    another."""
    head = model(config).position
    source = config.model.position_options.get("source", "") if isinstance(head, GeoCLIP) else ""
    if source in ("", OF_TRAINING) or np.any(variables["batch_stats"]["position"]["gallery"]):
        return variables
    return filled_gallery(config, variables, table_gallery(config))


def _head(config: ConfigDict) -> GeoCLIP:
    head = model(config).position
    assert isinstance(head, GeoCLIP)
    return head
