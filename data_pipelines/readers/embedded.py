"""The embedded city as a data set: written once, read as any other tree of '@' names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from data_pipelines import minicity
from data_pipelines.errors import DataError
from data_pipelines.places import Places
from data_pipelines.readers import at_names


def read(root: str | os.PathLike[str], *, split: str | None = None, city: Mapping[str, Any] | None = None) -> Places:
    """Reads the mini city under `root`; writes it first where it is not there.

    Args:
      root: folder of the city.
      split: train, val or test; None reads all.
      city: settings of `CityConfig` that differ from its defaults.

    Raises:
      DataError: a setting that does not exist or makes no city, or a folder that holds something else.
    """
    known = list(minicity.CityConfig.__dataclass_fields__)
    unknown = sorted(set(city or {}) - set(known))
    if unknown:
        raise DataError(f"the mini city has no setting {unknown}; it has {known}")
    minicity.write(root, minicity.CityConfig(**(city or {})))
    return at_names.read(root, split=split, name="minicity")
