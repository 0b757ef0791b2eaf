"""The PCA of a recipe (`config.pca`), fitted behind its model.

A PCA becomes the last layer of the model (`fitting.pca.fold`), so that a compressed model is an ordinary one: its
recipe has the aggregator "fc" around the trained one, or "projected" around its head for clips, and a `pca.dim` of 0.
"""

from __future__ import annotations

import logging
from collections.abc import Sized

from ml_collections import ConfigDict

from data_pipelines.clips import Clips
from data_pipelines.places import Paths
from data_pipelines.progress import slow
from jaxvpr import builders
from jaxvpr.errors import UserError
from jaxvpr.fitting import pca as components
from jaxvpr.models import Variables

log = logging.getLogger(__name__)


def check(config: ConfigDict, images: Sized) -> int:
    """Looks whether a PCA of the recipe can be fitted on these training images, before hours of training.

    Returns:
      How many numbers a descriptor has without it; 0 for a recipe without a PCA.

    Raises:
      UserError: for more components than that, or too few images or memory for them; for images and a model
        that joins descriptors of frames.
    """
    if not config.pca.dim:
        return 0
    if components.last_part(config.model) == "sequence" and not isinstance(images, Clips):
        raise UserError(
            f"pca.dim={config.pca.dim} behind model.sequence={config.model.sequence!r} is fitted on clips, and these "
            "are images. Give train_data.clips.length=5 (or as many frames as you test with), or set pca.dim=0"
        )
    length, keys = builders.descriptor_size(config, builders.clip_length(config)), config.pca
    components.sample_size(len(images), dim=keys.dim, length=length, images=keys.images, memory_mib=keys.memory_mib)
    return length


def fitted(
    config: ConfigDict, variables: Variables, images: Paths | Clips | None = None
) -> tuple[ConfigDict, Variables]:
    """The compressed model: the recipe's with a PCA fitted on training images behind it.

    Args:
      variables: of the model without it.
      images: to fit it on; by default all that the recipe trains on.

    Raises:
      UserError: as `check`; where there are no training images, or they do not vary in as many directions.
    """
    images = _training_images(config) if images is None else images
    keys, length = config.pca, check(config, images)
    descriptors = components.sampled_descriptors(
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
    return with_pca(config), components.fold(variables, pca, components.last_part(config.model))


def with_pca(config: ConfigDict) -> ConfigDict:
    """The recipe of the compressed model. It is no published method any more."""
    compressed = config.copy_and_resolve_references().unlock()
    part = components.last_part(config.model)
    model = components.with_projection(config.model.to_dict(), config.pca.dim, builders.clip_length(config))
    compressed.model[part] = model[part]
    compressed.model[f"{part}_options"] = ConfigDict(model[f"{part}_options"])
    compressed.method, compressed.pca.dim = "", 0
    return compressed.lock()


def _training_images(config: ConfigDict) -> Paths | Clips:
    if not config.train_data:
        raise UserError(
            f"pca.dim={config.pca.dim} is fitted on training images, and the recipe has no train_data. Fit it on a "
            "folder: jaxvpr compress --config=RECIPE,pca.dim=... --images=FOLDER --out=FILE.safetensors, and give that "
            "as --checkpoint=FILE.safetensors"
        )
    return builders.shown(builders.elements(config, builders.training_sets(config)))
