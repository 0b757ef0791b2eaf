"""The weights that a recipe starts from."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from data_pipelines.places import Paths
from data_pipelines.progress import slow
from data_pipelines.sources import Source
from jaxvpr import models, weights
from jaxvpr.builders.datasets import benchmarks, places
from jaxvpr.builders.features import maps_kept
from jaxvpr.builders.gallery import with_table
from jaxvpr.builders.network import describer, fresh_variables, mesh, model, shapes
from jaxvpr.cli import weight_source
from jaxvpr.errors import UserError
from jaxvpr.fitting import clusters
from jaxvpr.models import Variables

log = logging.getLogger(__name__)


def initial_variables(
    config: ConfigDict,
    then: str = "",
    drawn: Variables | None = None,
    images: Callable[[], Paths] | None = None,
    frozen: Sequence[str] = (),
) -> Variables:
    """The weights that a recipe starts from, on the host: those of its file, random where that says nothing.

    An aggregator with clusters that no file gave starts from those of `images` where `clusters.images` says so; without
    them of training images, or of the database of the first test set where nothing is trained.

    Args:
      then: further weights, read over the first, as `cli.weight_source` has it.
      drawn: random values, where they are there already.
      images: gives what clusters are made of; asked where they are made.
      frozen: patterns of the parameter paths that will not train.

    Raises:
      UserError: for a file that does not fit; where `clusters.images` asks for clusters that the aggregator has not, or
        names no images to make them of; for `frozen` parameters that are random, unless `frozen_random` allows them.
    """
    blank, sources = shapes(config), [source for source in (config.init, then) if source]
    given = _read(config, blank, then) if then else blank
    if config.init and _lacking(given):  # a model that is whole needs nothing of what it was trained from
        given = blank
        for source in sources:
            given = _read(config, given, source)
    if sources and (lacking := _lacking(given)):
        log.info("%s gives everything but %s", " and ".join(sources), ", ".join(lacking))
    wanted = bool(config.clusters.images) and clusters.needs_clusters(given)
    started = filled(config, given, drawn)
    if frozen and not config.frozen_random:
        _refuse_random(config, given["params"], started["params"], frozen, clustered=wanted)
    started = with_table(config, started)
    return _clustered(config, started, images() if images else _to_cluster(config)) if wanted else started


def without_clusters(config: ConfigDict) -> ConfigDict:
    """The recipe without making clusters, for a look at the model: k-means would describe images first."""
    plain = config.copy_and_resolve_references().unlock()
    plain.clusters.images = 0
    return plain.lock()


def _read(config: ConfigDict, variables: Variables, text: str) -> Variables:
    source = weight_source.parse(text)
    method = source.method or config.method
    family = models.description(method).family if method else None
    return weights.init_from(variables, source.file, source.pattern or None, family)


def filled(config: ConfigDict, given: Variables, drawn: Variables | None = None) -> Variables:
    """`given` with random values (`drawn`, if they are there already) where it has but shapes."""
    flat = flatten_dict(given, keep_empty_nodes=True)
    absent = [key for key, leaf in flat.items() if _absent(leaf)]
    if not absent:
        return given

    def lacking(made: Variables) -> list[Any]:
        of_all = flatten_dict(made)
        return [of_all[key] for key in absent]

    # No others are drawn, which would take seconds, and gigabytes for the largest models.
    values = lacking(drawn) if drawn else jax.device_get(jax.jit(lambda: lacking(fresh_variables(config)))())
    return unflatten_dict(flat | dict(zip(absent, values, strict=True)))


def _refuse_random(config: ConfigDict, given: Any, started: Any, frozen: Sequence[str], clustered: bool) -> None:
    """Raises UserError where parameters that will not train have random values; those that are all alike have not."""
    absent = {path for path, leaf in flatten_dict(given, sep="/").items() if _absent(leaf)}
    random = [
        path
        for path, leaf in flatten_dict(started, sep="/").items()
        if path in absent
        and any(re.search(pattern, path) for pattern in frozen)
        and np.ptp(leaf) > 0
        and not (clustered and path.startswith("aggregator/"))  # k-means fills it
    ]
    if random:
        raise UserError(
            "frozen parameters start from random numbers, which they would keep: "
            + ", ".join(random[:3])
            + f", ... ({len(random)} in all)" * (len(random) > 3)
            + f". config.init={config.init!r} does not give them: init=FILE of trained weights does. Else let them "
            "train (config.frozen, options of config.model that freeze), or set config.frozen_random=true if random "
            "ones are meant"
        )


def _lacking(given: Variables) -> list[str]:
    """The modules of which something has but shapes."""
    return sorted({"/".join(key[1:3]) for key, leaf in flatten_dict(given).items() if _absent(leaf)})


def _absent(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)


def _to_cluster(config: ConfigDict) -> Paths:
    """Training images; those of the database, where nothing is trained."""
    if config.train_data:
        return places(config, config.train_data).path
    if config.test_data:
        return benchmarks(config, config.test_data)[0].database.path
    raise UserError(
        f"clusters.images={config.clusters.images} makes the aggregator's clusters of images, and the recipe has "
        "neither train_data nor test_data. Name them: extract --images=FOLDER, evaluate --database=FOLDER, or from "
        "Python jaxvpr.load(NAME, images=FOLDER). localize finds them beside the database (.safetensors)"
    )


def _clustered(config: ConfigDict, variables: Variables, images: Paths) -> Variables:
    """The variables with clusters of the images' local features."""
    keys, over = config.clusters, mesh(config)

    def kept(some: Paths) -> Source:
        return maps_kept(config, variables, some, over).source(some)

    features = clusters.local_features(
        describer(config, over), variables, images, model(config),
        count=keys.images * keys.per_image, per_image=keys.per_image, seed=config.seed,
        kept=kept if config.maps.cached else None,
    )  # fmt: skip
    log.info("clusters of %d local features of %d images", len(features), len(features) // keys.per_image)
    with slow("k-means of them"):
        return clusters.cluster_start(variables, features, iterations=keys.iterations, seed=config.seed)
