"""Visual place recognition in JAX/Flax: one engine that trains, evaluates and exports every family of methods."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxvpr.model import Model

__all__ = ["load"]


def load(
    name_or_file: str | os.PathLike[str],
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
) -> Model:
    """Loads a model; see `jaxvpr.model.load`. JAX is imported here, not with the package."""
    from jaxvpr.model import load as load_model

    return load_model(name_or_file, images)
