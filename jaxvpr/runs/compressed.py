"""The PCA of a recipe (`config.pca`): which model a verb works with.

A PCA becomes the last layer of the model (`fitting.pca.fold`), so that a compressed model is an ordinary one: its
recipe has the aggregator "fc" around the trained one, and a `pca.dim` of 0.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from data_pipelines.places import Paths
from data_pipelines.progress import slow
from jaxvpr import builders, weights
from jaxvpr.builders.training_images import training_sets
from jaxvpr.errors import UserError
from jaxvpr.fitting import pca as components
from jaxvpr.models import Variables
from jaxvpr.runs import model_file, which, workdir

log = logging.getLogger(__name__)
# What decides a PCA, beside the weights and the images themselves.
DECIDES = ("model.", "image.", "pca.", "seed", "train_data.", "more_train_data.")


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


def chosen(config: ConfigDict, folder: Path, checkpoint: str, fresh: bool = False) -> Chosen:
    """The model that `--checkpoint` names, as `which.variables`, with its PCA where the recipe has a `pca.dim`.

    A model file that is compressed already is taken as it is. Of a checkpoint, the PCA is that of the model file beside
    it if that holds these very weights and was made by these keys; else it is fitted anew on the training images.

    Raises:
      UserError: as `which.variables` and `fitted`; for a file that was compressed by other keys.
    """
    if not config.pca.dim:
        what, variables = which.variables(config, folder, checkpoint, fresh)
        return Chosen(what, config, variables)
    named = Path(checkpoint).is_file()
    file = Path(checkpoint) if named else folder / model_file.MODEL_FILE
    there = _compressed_already(config, file)
    if there and (named or not (config.init or workdir.has_checkpoints(folder))):
        _refuse_other(config, file, there[0])
        return Chosen(str(file), with_pca(config), there[1], (config, components.unfold(there[1])))
    what, variables = which.variables(config, folder, checkpoint, fresh)
    if there and not _differences(config, there[0]) and _same(components.unfold(there[1]), variables):
        log.info("with the PCA of %s", file)
        return Chosen(what, *there, (config, variables))
    log.info("no PCA of these weights lies in %s: fitting one", folder)
    return Chosen(what, *fitted(config, variables), (config, variables))


def check(config: ConfigDict, available: int) -> int:
    """Looks whether a PCA of the recipe can be fitted on so many training images, before hours of training.

    Returns:
      How many numbers a descriptor has without it; 0 for a recipe without a PCA.

    Raises:
      UserError: for more components than that, or too few images or memory for them.
    """
    if not config.pca.dim:
        return 0
    builders.shapes(config)  # explains options that do not fit
    blank = builders.blank(config)
    length = jax.eval_shape(lambda: builders.model(config).init_with_output(jax.random.key(0), blank)[0]).shape[-1]
    keys = config.pca
    components.enough(available, dim=keys.dim, length=length, images=keys.images, memory_mib=keys.memory_mib)
    return length


def fitted(config: ConfigDict, variables: Variables, images: Paths | None = None) -> tuple[ConfigDict, Variables]:
    """The compressed model: the recipe's with a PCA fitted on training images behind it.

    Args:
      variables: of the model without it.
      images: to fit it on; by default all that the recipe trains on.

    Raises:
      UserError: as `check`; where there are no training images, or they do not vary in as many directions.
    """
    images = _training_images(config) if images is None else images
    keys, length = config.pca, check(config, len(images))
    descriptors = components.described(
        builders.describer(config, builders.mesh(config)), variables, images,
        dim=keys.dim, length=length, images=keys.images, memory_mib=keys.memory_mib, seed=config.seed,
    )  # fmt: skip
    log.info("a PCA of %d descriptors of %d numbers", *descriptors.shape)
    with slow("fitting it"):
        pca = components.fit(descriptors, keys.dim, whiten=keys.whiten)
    log.info(
        "PCA of %d images: %d of %d numbers keep %.1f %% of the variance",
        len(descriptors), keys.dim, length, 100 * pca.kept,
    )  # fmt: skip
    return with_pca(config), components.fold(variables, pca)


def with_pca(config: ConfigDict) -> ConfigDict:
    """The recipe of the compressed model. It is no published method any more."""
    compressed = config.copy_and_resolve_references().unlock()
    model = components.behind(config.model.to_dict(), config.pca.dim)
    compressed.model.aggregator = model["aggregator"]
    compressed.model.aggregator_options = ConfigDict(model["aggregator_options"])
    compressed.method, compressed.pca.dim = "", 0
    return compressed.lock()


def _training_images(config: ConfigDict) -> Paths:
    if not config.train_data:
        raise UserError(
            f"pca.dim={config.pca.dim} is fitted on training images, and the recipe has no train_data. Fit it on a "
            "folder: jaxvpr compress --config=RECIPE,pca.dim=... --images=FOLDER --out=FILE.safetensors, and give that "
            "as --checkpoint=FILE.safetensors"
        )
    return Paths.concat([images.path for images in training_sets(config)])


def _compressed_already(config: ConfigDict, file: Path) -> tuple[ConfigDict, Variables] | None:
    """The recipe and the weights of a file that holds this recipe's model behind a PCA of any length, if it does."""
    if file.suffix != ".safetensors" or not file.is_file():
        return None
    text = weights.read_metadata(file).get("jaxvpr_config")
    theirs, ours = (json.loads(text)["model"] if text else {}), json.loads(with_pca(config).model.to_json())
    if theirs.get("aggregator") == "fc":
        theirs["aggregator_options"]["dim"] = config.pca.dim
    alike = all(theirs.get(key) == ours[key] for key in ours if key != "dtype")
    return model_file.load_model(file) if alike else None


def _refuse_other(config: ConfigDict, file: Path, theirs: ConfigDict) -> None:
    """A file that the user names may be of other images, and must have the length and the whitening of the recipe."""
    found = {"dim": theirs.model.aggregator_options.dim, "whiten": theirs.pca.whiten}
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
