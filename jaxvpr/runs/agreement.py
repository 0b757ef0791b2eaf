"""What all hosts of a run must have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from jaxvpr.cli.sweep_file import Sweep

# Keys that are a host's own, beside the folders that its data lie in.
OWN = ("loader.threads", "loader.workers", "loader.prefetch", "log_seconds", "hosts.wait")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "grain", "opencv-python-headless", "pillow")


def facts(verb: str, config: ConfigDict | Sweep, flags: Mapping[str, Any]) -> dict[str, Any]:
    """The command, the recipe but for `OWN` and roots, versions, our code and the number of devices, by name."""
    recipes = {f"{run.folder}: ": run.config for run in config.runs} if isinstance(config, Sweep) else {"": config}
    keys = {
        f"{run}{key}": str(value)
        for run, recipe in recipes.items()
        for key, value in flatten_dict(recipe.to_dict(), sep=".").items()
        if not (key.startswith(OWN) or key == "data" or key.endswith(".root"))
    }
    given = {f"--{name}": str(value) for name, value in flags.items()}
    own = {"verb": verb, "code": _code(), "devices": [jax.local_device_count(), jax.devices()[0].device_kind]}
    return {**keys, **given, **{f"version of {name}": _version(name) for name in PACKAGES}, **own}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _code() -> str:
    """A digest of the source of our packages; that of a recipe's own file shows in its keys."""
    root, digest = Path(__file__).parents[2], hashlib.sha256()
    for package in ("jaxvpr", "data_pipelines"):
        for file in sorted((root / package).rglob("*.py")):
            digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
    return digest.hexdigest()[:12]
