"""The embedded city as a data set: written once, read as any other tree of '@' names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_pipelines import minicity
from data_pipelines.errors import DataError
from data_pipelines.places import Places
from data_pipelines.readers import at_names


def read(
    root: str | os.PathLike[str],
    *,
    split: str | None = None,
    city: Mapping[str, Any] | None = None,
    panoramas: bool = False,
) -> Places:
    """Reads the mini city under `root`; first writes it, or its panoramas, where they are missing.

    Args:
      root: folder of the city.
      split: train, val or test; None reads all.
      city: settings of `CityConfig` that differ from its defaults.
      panoramas: read the panoramas of the training split instead of the views that were cut from them. The heading of
        one is that of its middle column, and its size is `minicity.strip_size`.

    Raises:
      DataError: an unknown setting or one out of range, a folder that holds something else, or panoramas of
        another split than train.
    """
    config = minicity.CityConfig.of(city or {})
    if panoramas and split not in (None, "train"):
        raise DataError(f"{root}: the mini city has panoramas of its split train only, not of {split!r}")
    minicity.write(root, replace(config, panoramas=config.panoramas or panoramas))
    if panoramas:
        return at_names.read(Path(root) / "images" / "panoramas", split="train", name="minicity")
    return at_names.read(root, split=split, name="minicity")
