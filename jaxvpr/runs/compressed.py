"""The PCA of a recipe (`config.pca`), fitted behind its model.

A PCA becomes the last layer of the model (`fitting.pca.fold`), so that a compressed model is an ordinary one: its
recipe has the aggregator "fc" around the trained one, and a `pca.dim` of 0.
"""

from __future__ import annotations

import logging

from ml_collections import ConfigDict

from data_pipelines.clips import Clips
from data_pipelines.places import Paths
from data_pipelines.progress import slow
from jaxvpr import builders
from jaxvpr.errors import UserError
from jaxvpr.fitting import pca as components
from jaxvpr.models import Variables

log = logging.getLogger(__name__)


def check(config: ConfigDict, available: int) -> int:
    """Looks whether a PCA of the recipe can be fitted on so many training images, before hours of training.

    Returns:
      How many numbers a descriptor has without it; 0 for a recipe without a PCA.

    Raises:
      UserError: for more components than that, or too few images or memory for them; for a model that joins
        descriptors of frames behind its aggregator.
    """
    if not config.pca.dim:
        return 0
    head = builders.model(config).sequence
    if head is not None and not getattr(head, "of_features", False):
        raise UserError(
            f"pca.dim={config.pca.dim} becomes a layer behind the aggregator, and model.sequence="
            f"{config.model.sequence!r} joins what the aggregator makes of the frames. Set pca.dim=0, or "
            "model.sequence='joint'"
        )
    length, keys = builders.descriptor_size(config), config.pca
    components.sample_size(available, dim=keys.dim, length=length, images=keys.images, memory_mib=keys.memory_mib)
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
    keys, length = config.pca, check(config, len(images))
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
    return with_pca(config), components.fold(variables, pca)


def with_pca(config: ConfigDict) -> ConfigDict:
    """The recipe of the compressed model. It is no published method any more."""
    compressed = config.copy_and_resolve_references().unlock()
    model = components.with_projection(config.model.to_dict(), config.pca.dim)
    compressed.model.aggregator = model["aggregator"]
    compressed.model.aggregator_options = ConfigDict(model["aggregator_options"])
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
