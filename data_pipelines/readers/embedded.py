"""The embedded city as a data set: written once, read as any other tree of '@' names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

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
    drives: bool = False,
    drive: Mapping[str, Any] | None = None,
) -> Places:
    """Reads the mini city under `root`; first writes it, or its panoramas, where they are missing.

    Args:
      root: folder of the city.
      split: train, val or test; None reads all.
      city: settings of `CityConfig` that differ from its defaults.
      panoramas: read the panoramas of the training split instead of the views that were cut from them. The heading of
        one is that of its middle column, and its size is `minicity.strip_size`.
      drives: read the drives through the city, frames with `sequence` and `frame`, instead of its single views; the
        city itself need not be drawn for them.
      drive: settings of `DriveConfig` that differ from its defaults.

    Raises:
      DataError: an unknown setting or one out of range, a folder that holds something else, or panoramas of
        another split than train, or of drives.
    """
    config = minicity.CityConfig.of(city or {})
    if drives:
        if panoramas:
            raise DataError(f"{root}: the drives of the mini city have no panoramas; leave out panoramas or drives")
        return _drives(Path(root), config, minicity.DriveConfig.of(drive or {}), split)
    if panoramas and split not in (None, "train"):
        raise DataError(f"{root}: the mini city has panoramas of its split train only, not of {split!r}")
    minicity.write(root, replace(config, panoramas=config.panoramas or panoramas))
    if panoramas:
        return at_names.read(Path(root) / "images" / "panoramas", split="train", name="minicity")
    return at_names.read(root, split=split, name="minicity")


def _drives(root: Path, config: minicity.CityConfig, drive: minicity.DriveConfig, split: str | None) -> Places:
    """The frames of drives, with the zone and the headings that their names do not hold."""
    frames = minicity.write_drives(root, config, drive)
    files = (frames.files(config, row)[0] for row in range(len(frames)))
    heading = {Path(file).name: degrees for file, degrees in zip(files, frames.heading, strict=True)}
    places = at_names.read(root / "images" / "drives", split=split, name="minicity").in_zone(minicity.ZONE)
    names = (Path(places.path.relative(row)).name for row in range(len(places)))
    return replace(places, heading=np.array([heading[name] for name in names], np.float32))
