"""A model as one file that describes itself: weights under our names, the recipe as metadata."""

from __future__ import annotations

import json
from pathlib import Path

from ml_collections import ConfigDict

from configs import common
from jaxvpr import builders, weights
from jaxvpr.cli.checks import check
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
    config = saved_recipe(file)
    if config is None:
        raise UserError(f"{file} carries no recipe; give the recipe with --config and this file as --checkpoint")
    try:
        shapes = builders.shapes(config)
    except UserError as error:
        raise UserError(
            f"{file} was trained by the recipe {config.name!r}, whose model cannot be built here: {error}. Where the "
            f"recipe's own file adds the missing part, give that: RECIPE.py,init={file}"
        ) from error
    return config, builders.filled(config, weights.init_from(shapes, file))


def recipe_of(text: str, file: Path) -> ConfigDict:
    """The recipe that was saved in a file as JSON, locked; a key that came to be later has its default.

    Raises:
      UserError: for a text that is no recipe.
    """
    config = common.base().unlock()
    try:
        saved = dict(json.loads(text))
        if "model" not in saved:
            raise ValueError("it names no model")
        config.update(ConfigDict(saved))
        config.name = config.name or file.stem  # a model that was made in Python has none
        check(config)
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
        raise UserError(
            f"{file}: the recipe in it is damaged ({type(error).__name__}: {error!s:.300}). Take another copy, or give "
            f"the recipe that trained it: --config=RECIPE.py --checkpoint={file}"
        ) from error
    return config.lock()


def saved_recipe(file: Path) -> ConfigDict | None:
    """The recipe in a model's file; None where it has none. Raises UserError as `recipe_of`."""
    text = weights.read_metadata(file).get("jaxvpr_config")
    return None if text is None else recipe_of(text, file)


def began_from(file: Path) -> str:
    """What the run that wrote a model began from."""
    config = saved_recipe(file)
    return config.init if config else ""
