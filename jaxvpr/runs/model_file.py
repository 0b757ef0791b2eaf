"""A model as one file that describes itself: weights under our names, the recipe as metadata."""

from __future__ import annotations

import json
from pathlib import Path

from ml_collections import ConfigDict

from configs import common
from jaxvpr import builders, weights
from jaxvpr.cli.weight_source import MODEL_FILE
from jaxvpr.errors import UserError
from jaxvpr.models import Variables


def save_model(folder: Path, config: ConfigDict, trained: Variables) -> Path:
    """Writes the model as one file that describes itself: weights under our names, the recipe as metadata."""
    return write_model(folder / MODEL_FILE, config, trained)


def write_model(file: Path, config: ConfigDict, trained: Variables) -> Path:
    """`save_model` under any name that ends in .safetensors."""
    weights.write(file, weights.to_torch("jaxvpr", trained), {"jaxvpr_config": config.to_json()})
    return file


def load_model(file: Path) -> tuple[ConfigDict, Variables]:
    """The inverse of `save_model`.

    Raises:
      UserError: for a file that neither `save_model` nor the verb export wrote, or a model of parts that are not here.
    """
    text = weights.read_metadata(file).get("jaxvpr_config")
    if text is None:
        raise UserError(f"{file} carries no recipe; give the recipe with --config and this file as --checkpoint")
    config = recipe_of(text)
    try:
        shapes = builders.shapes(config)
    except UserError as error:
        raise UserError(
            f"{file} was trained by the recipe {config.name!r}, whose model cannot be built here: {error}. Where the "
            f"recipe's own file adds the missing part, give that: RECIPE.py,init={file}"
        ) from error
    return config, builders.filled(config, weights.init_from(shapes, file))


def recipe_of(text: str) -> ConfigDict:
    """The recipe that was saved as JSON, locked; a key that came to be later has its default."""
    config = common.base().unlock()
    config.update(ConfigDict(json.loads(text)))
    return config.lock()


def began_from(file: Path) -> str:
    """What the run that wrote a model began from."""
    return json.loads(weights.read_metadata(file).get("jaxvpr_config") or "{}").get("init", "")
