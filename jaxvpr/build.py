"""From a ConfigDict to plain objects: the one place where the keys of a recipe meet the functions that use them."""

from __future__ import annotations

import logging
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data_pipelines import readers
from data_pipelines.minicity import CityConfig
from data_pipelines.places import Paths, Places
from data_pipelines.progress import slow
from data_pipelines.shapes import target
from jaxvpr import models, weights
from jaxvpr.errors import UserError
from jaxvpr.parallel import hosts
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.retrieval import clusters
from jaxvpr.retrieval.evaluator import Benchmark, Describer, benchmark
from jaxvpr.training.loop import Variables

log = logging.getLogger(__name__)


def model(config: ConfigDict) -> models.PlaceModel:
    """The model of a recipe."""
    options = config.model.to_dict()
    try:
        return models.join(**options, mean=tuple(config.image.mean), std=tuple(config.image.std))
    except (ValueError, TypeError) as error:  # numpy has a TypeError for a dtype that does not exist
        raise UserError(f"config.model: {error}") from error


def shapes(config: ConfigDict) -> Variables:
    """Shapes and types of the model's variables; nothing is computed.

    Raises:
      UserError: for options of the model or an image size that do not fit together.
    """
    try:
        return jax.eval_shape(lambda: fresh_variables(config))
    except UserError:
        raise
    except (ValueError, TypeError) as error:
        own = "" if config.image.size else ". Images keep their own size here: give config.image.size or image.multiple"
        raise UserError(f"config.model: {error}{own}") from error


def mesh(config: ConfigDict) -> Mesh:
    """The mesh of a recipe, over all devices there are."""
    try:
        return make_mesh(config.mesh.model)
    except ValueError as error:
        raise UserError(str(error)) from error


def places(config: ConfigDict, spec: ConfigDict) -> Places:
    """The images of a data set, of its `conditions` and `role` only; the embedded city is written first where it is not
    there yet.

    A data set of the reader "minicity" may have a `city` of its own among its options, instead of `config.city`.
    """
    images, conditions, role = _all_places(config, spec), _conditions(spec), spec.get("role", "")
    return images.only(conditions=conditions, role=role) if conditions or role else images


def _conditions(spec: ConfigDict) -> tuple[str, ...]:
    # Recipes that were saved before this key came to be lack it, and `role`.
    return tuple(spec.get("conditions", ()))


def _all_places(config: ConfigDict, spec: ConfigDict) -> Places:
    options = spec.options.to_dict()
    if spec.reader == "minicity":
        options.setdefault("city", config.city.to_dict())
    read = partial(readers.read, spec.reader, spec.root, split=spec.split or None, **options)
    return hosts.first_then_others(f"read {spec.root}", read)


def benchmarks(config: ConfigDict, specs: ConfigDict) -> list[Benchmark]:
    """The data sets to measure on, in the order of their names."""
    return [_benchmark(config, name, spec) for name, spec in sorted(specs.items())]


def _benchmark(config: ConfigDict, name: str, spec: ConfigDict) -> Benchmark:
    lists = readers.pairs.ground_truth(spec.root) if "list" in spec.thresholds else None
    images, split, conditions = _all_places(config, spec), spec.split or "all", _conditions(spec)
    if spec.get("role", ""):
        raise UserError(
            f"the data set {name} has role={spec.role!r}: what is measured on needs database and queries. Leave role "
            "empty; it is for data to train on"
        )
    if conditions and lists:
        raise UserError(
            f"the data set {name} has conditions={conditions}, and the published list of its threshold 'list' is of "
            "all queries; leave conditions empty, or measure within metres"
        )
    if conditions:
        queries = images.only(conditions=conditions, role="query")
        images = Places.concat([images.select(role="database"), queries])
        split = f"{split} ({', '.join(conditions)})"
    return benchmark(name, images, split, spec.thresholds, lists)


def apply(config: ConfigDict) -> Any:
    """(variables, images) -> descriptors, in evaluation mode."""
    return _apply_of(model(config))


def describer(config: ConfigDict, over: Mesh) -> Describer:
    """What turns images into descriptors as the recipe's model and preprocessing have it."""
    module = model(config)
    return Describer(_apply_of(module), config, over, across=models.looks_across(module))


@lru_cache(maxsize=16)
def _apply_of(module: models.PlaceModel) -> Any:
    # The same object for equal models: what is compiled for validation serves the final measurement too.
    return module.apply


def fresh_variables(config: ConfigDict) -> Variables:
    """Randomly initialised variables of the recipe's model; traceable, so that `eval_shape` gives their shapes."""
    made = model(config).init(jax.random.key(config.seed), blank(config))
    return {"params": made["params"], "batch_stats": made.get("batch_stats", {})}


def initial_variables(
    config: ConfigDict, then: str = "", drawn: Variables | None = None, images: Paths | None = None
) -> Variables:
    """The weights that a recipe starts from, on the host: those of its file, random where that says nothing.

    An aggregator with clusters that no file gave starts from those of training images where `clusters.images` says so.

    Args:
      then: further file of weights, FILE or FILE:PATTERN, read over the first.
      drawn: random values, where they are there already.
      images: what clusters are made of, where it has been read already.

    Raises:
      UserError: for a file that does not fit; where `clusters.images` asks for clusters that the aggregator has not, or
        names no images to make them of.
    """
    given, sources = shapes(config), [source for source in (config.init, then) if source]
    for source in sources:
        given = _read(config, given, source)
    lacking = sorted({"/".join(key[1:3]) for key, leaf in flatten_dict(given).items() if _absent(leaf)})
    if sources and lacking:
        log.info("%s gives everything but %s", " and ".join(sources), ", ".join(lacking))
    wanted = bool(config.clusters.images) and clusters.lacks_clusters(given)
    started = filled(config, given, drawn)
    return _clustered(config, started, images or _to_cluster(config)) if wanted else started


def _read(config: ConfigDict, variables: Variables, source: str) -> Variables:
    file, _, pattern = source.partition(":")
    family = models.describe(config.method).family if config.method else None
    return weights.init_from(variables, Path(file), pattern or None, family)


def filled(config: ConfigDict, given: Variables, drawn: Variables | None = None) -> Variables:
    """`given` with random values (`drawn`, if they are there already) where it has but shapes."""
    if not any(map(_absent, jax.tree.leaves(given))):
        return given  # nothing random is drawn, which takes seconds, and gigabytes for the largest models
    drawn = drawn or jax.device_get(jax.jit(lambda: fresh_variables(config))())
    return jax.tree.map(lambda here, new: new if _absent(here) else here, given, drawn)


def _absent(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)


def _to_cluster(config: ConfigDict) -> Paths:
    """Training images; those of the database, where nothing is trained."""
    if config.train_data:
        return places(config, config.train_data).path
    if config.test_data:
        return benchmarks(config, config.test_data)[0].database.path
    raise UserError("clusters.images wants images to cluster: the recipe has neither train_data nor test_data")


def _clustered(config: ConfigDict, variables: Variables, images: Paths) -> Variables:
    """The variables with clusters of the images' local features."""
    keys, describes = config.clusters, describer(config, mesh(config))
    features = clusters.local_features(
        describes, variables, images, model(config),
        count=keys.images * keys.per_image, per_image=keys.per_image, seed=config.seed,
    )  # fmt: skip
    log.info("clusters of %d local features of %d images", len(features), len(features) // keys.per_image)
    with slow("k-means of them"):
        return clusters.cluster_start(variables, features, iterations=keys.iterations, seed=config.seed)


def two_folders(config: ConfigDict, database: str, queries: str) -> Benchmark:
    """A benchmark of two folders of images with coordinates, within 25 m."""
    parts = [readers.read("folder", folder, role=role) for folder, role in ((database, "database"), (queries, "query"))]
    return benchmark(Path(queries).resolve().parent.name, Places.concat(parts), "test", ("25m",))


def recall_ns(config: ConfigDict, bench: Benchmark) -> tuple[int, ...]:
    """The N of recall@N that the database is large enough for."""
    ns = tuple(n for n in config.eval.recalls if n <= len(bench.database))
    if not ns:
        raise UserError(
            f"{bench.name}: the database has {len(bench.database)} images, too few for any of "
            f"eval.recalls={tuple(config.eval.recalls)}"
        )
    return ns


def identity(config: ConfigDict) -> dict[str, str]:
    """Digests that say which embedded city, and which difficulty of its test, a figure belongs to."""
    if not any(spec.reader == "minicity" for spec in config.test_data.values()):
        return {}
    city = CityConfig(**config.city.to_dict())
    return {"city_digest": city.digest(), "city_test_digest": city.test_digest()}


def image_size(config: ConfigDict) -> tuple[int, int]:
    """(height, width) the model is shown images at; where they keep their own size, one that stands for them all."""
    return target(config.image.size, config.image.multiple, config.image.crop)


def blank(config: ConfigDict) -> np.ndarray:
    """An input of the model, to initialise it with."""
    return np.zeros((1, *image_size(config), 3), np.uint8)
