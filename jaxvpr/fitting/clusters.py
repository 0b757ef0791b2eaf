"""Clusters of local features, which aggregators of the VLAD family start from (Arandjelović et al., 2016).

`cluster_start(variables, local_features(describer, variables, paths, model))` does all of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from data_pipelines.places import Paths
from data_pipelines.sources import Source
from jaxvpr.errors import UserError
from jaxvpr.models.features import Features
from jaxvpr.models.layers import l2_normalise
from jaxvpr.models.place_model import PlaceModel
from jaxvpr.parallel import hosts
from jaxvpr.retrieval.evaluator import Apply, Describer

Array = np.ndarray

# How much smaller the weight of the second nearest cluster is than that of the nearest, on average.
RATIO = 0.01


def local_features(
    describer: Describer,
    variables: Mapping[str, Any],
    paths: Paths,
    model: PlaceModel,
    *,
    count: int = 50_000,
    per_image: int = 100,
    seed: int = 0,
    kept: Callable[[Paths], Source] | None = None,
) -> Array:
    """Normalised local features from random cells of random images.

    Args:
      describer: reads the images as they are read for evaluation.
      variables, model: the backbone of which computes the features.
      paths: of the images; all of them are read where there are fewer than `count / per_image`.
      count, per_image: features in all, and of each image; the defaults are the original's.
      seed: which images and cells. The draw depends on no batch, device or number of processes.
      kept: some images -> what reads the features that the backbone gave of them, where these are kept.

    Returns:
      float32 [n, D], n at most `count`, fewer where images are few or cannot be read.

    Raises:
      UserError: where there is no image that can be read.
    """
    wanted = min(-(-count // per_image), len(paths))
    rows = np.sort(np.random.default_rng(seed).choice(len(paths), wanted, replace=False))
    chosen = paths.take(rows)
    if kept:
        read = describer(variables, kept(chosen), sampler_of_features(per_image, seed))
    else:
        read = describer(variables, chosen, sampler(model, per_image, seed))
    features = np.delete(read.descriptors, read.missing, axis=0)
    if not len(features):
        raise UserError(f"none of {wanted} images can be read, so there is nothing to cluster")
    return features.reshape(len(features) * per_image, -1)[:count]


def sampler(model: PlaceModel, per_image: int, seed: int = 0) -> Apply:
    """`(variables, images [B, H, W, 3]) -> [B, per_image D]`: normalised features of random cells of each image.

    The cells follow from the seed and the image's own colours, so that an image gives the same ones in any batch. None
    comes twice, unless the map has fewer than `per_image`.
    """

    def sample(variables: Mapping[str, Any], images: jax.Array) -> jax.Array:
        parts = ("backbone", "non_local")
        own = {kind: {part: tree[part] for part in parts if part in tree} for kind, tree in variables.items()}
        features = model.apply(own, images, method="features").map  # type: ignore[union-attr]
        marks = jnp.sum(jnp.round(images.astype(jnp.float32)).astype(jnp.uint32), (1, 2, 3), dtype=jnp.uint32)
        return _cells(features, marks, per_image, seed)

    return sample


def sampler_of_features(per_image: int, seed: int = 0) -> Apply:
    """As `sampler`, of features in float16 that are kept; the cells follow from the features."""

    def sample(variables: Mapping[str, Any], shown: Any) -> jax.Array:
        found = Features.of(shown).map
        words = jax.lax.bitcast_convert_type(found, jnp.uint16).astype(jnp.uint32)
        return _cells(found, jnp.sum(words, (1, 2, 3), dtype=jnp.uint32), per_image, seed)

    return sample


def _cells(features: jax.Array, marks: jax.Array, per_image: int, seed: int) -> jax.Array:
    """[B, per_image D]: normalised features of random cells of maps [B, h, w, D], which follow from marks [B]."""
    local = l2_normalise(features.reshape(features.shape[0], -1, features.shape[-1]))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), marks)
    cells = jax.vmap(jax.random.permutation, (0, None))(keys, local.shape[1])
    chosen = cells[:, np.arange(per_image) % local.shape[1]]
    return jnp.take_along_axis(local, chosen[..., None], 1).reshape(len(features), -1)


def kmeans(x: Array, k: int, *, iterations: int = 100, seed: int = 0) -> Array:
    """Centres of k clusters by Lloyd's iterations (FAISS's): of more than 256 k points it takes a random 256 k.

    Args:
      x: float32 [N, D].

    Returns:
      float32 [k, D], the same on every run.

    Raises:
      UserError: for fewer points than clusters, or points that are not finite.
    """
    if x.ndim != 2 or len(x) < k or k < 1:
        raise UserError(f"local features of shape {x.shape} are too few for {k} clusters; give more images")
    if not np.isfinite(x).all():
        raise UserError("the local features are not finite: the weights hold NaN or are not those of this model")
    import faiss  # here, since few recipes need clusters

    model = faiss.Kmeans(x.shape[1], k, niter=iterations, seed=seed, min_points_per_centroid=1, verbose=False)
    model.train(np.ascontiguousarray(x, np.float32))
    return np.asarray(model.centroids)


def netvlad_start(centroids: Array, descriptors: Array) -> tuple[Array, Array]:
    """The assignment that NetVLAD starts from, `softmax(alpha x c / |c|)`.

    alpha = -ln(0.01) / mean(first - second largest cosine), so that the second nearest cluster of a feature weighs a
    hundredth of the nearest, on average.

    Args:
      centroids: float32 [K, D], K at least 2. descriptors: unit vectors, float32 [N, D].

    Returns:
      kernel [1, 1, D, K] and centroids [K, D], float32.

    Raises:
      UserError: where all features are alike.
    """
    directions = centroids / np.maximum(np.linalg.norm(centroids, axis=1, keepdims=True), 1e-12)
    alpha = _sharpness(directions @ descriptors.T)
    return (alpha * directions).T[None, None].astype(np.float32), centroids.astype(np.float32)


def biased_start(centroids: Array, descriptors: Array) -> tuple[Array, Array]:
    """As `netvlad_start`, where the assignment has a bias: `softmax(-alpha |x - c|²)`, whose x² cancels.

    Returns:
      kernel [1, 1, D, K] and bias [K], float32.
    """
    squares = np.sum(centroids**2, 1)
    alpha = _sharpness(2 * centroids @ descriptors.T - squares[:, None])
    return (2 * alpha * centroids).T[None, None].astype(np.float32), (-alpha * squares).astype(np.float32)


def _sharpness(likeness: Array) -> float:
    """alpha, from how alike each cluster and feature are, [K, N]."""
    if len(likeness) < 2:
        raise UserError("the assignment needs a second nearest cluster; set at least 2 clusters")
    second, first = np.partition(likeness, -2, axis=0)[-2:]
    gap = float(np.mean(first - second, dtype=np.float64))
    if not gap > 0:
        raise UserError("all local features are alike: check the images and the backbone's weights")
    return -float(np.log(RATIO)) / gap


def cluster_start(
    variables: Mapping[str, Any], descriptors: Array, *, iterations: int = 100, seed: int = 0
) -> dict[str, Any]:
    """`variables` whose aggregator (netvlad, crn, vlad, supervlad, or one of these before a step) starts from clusters.

    Args:
      variables: of the model, `{"params": {"aggregator": …}, …}`.
      descriptors: unit local features, float32 [N, D], as `local_features` gives them.
      iterations, seed: of `kmeans`.

    Returns:
      A new nested dict; the replaced leaves are NumPy arrays, and those of the first host on every host.

    Raises:
      UserError: for an aggregator without clusters, features of another length, or too few of them.
    """
    flat = flatten_dict(dict(variables), keep_empty_nodes=True)
    leaves = _cluster_leaves(flat)
    kernel, centroids = (leaves.get(name) for name in ("conv/kernel", "centroids"))
    dim, k = flat[kernel].shape[-2:] if kernel else flat[centroids].shape[::-1]
    if descriptors.shape[1] != dim:
        raise UserError(f"local features have {descriptors.shape[1]} numbers, but the aggregator's clusters {dim}")
    started: dict[str, Array] = {"centroids": kmeans(descriptors, k, iterations=iterations, seed=seed)}
    started["centers"] = started["centroids"].T
    if "conv/bias" in leaves:
        started["conv/kernel"], started["conv/bias"] = biased_start(started["centroids"], descriptors)
    elif kernel:
        started["conv/kernel"], _ = netvlad_start(started["centroids"], descriptors)
    # Sums in another order, on another processor, may end in other bits.
    agreed = {
        name: hosts.of_first(partial(np.asarray, started[name]), started[name].shape, np.float32) for name in leaves
    }
    flat |= {key: agreed[name].reshape(flat[key].shape) for name, key in leaves.items()}
    return unflatten_dict(flat)


def needs_clusters(variables: Mapping[str, Any]) -> bool:
    """Whether the clusters of an aggregator are still to be made: no file gave any of them.

    Args:
      variables: of the model; leaves that no file gave are `jax.ShapeDtypeStruct`.

    Raises:
      UserError: for an aggregator without clusters, or where files gave only some of them.
    """
    flat = flatten_dict(dict(variables), keep_empty_nodes=True)
    # A bias may come on top of clusters that were made without one.
    leaves = {name: flat[key] for name, key in _cluster_leaves(flat).items() if name != "conv/bias"}
    absent = [name for name, leaf in leaves.items() if isinstance(leaf, jax.ShapeDtypeStruct)]
    if absent and len(absent) < len(leaves):
        raise UserError(
            f"of the aggregator's clusters the files of weights hold {sorted(set(leaves) - set(absent))} and lack "
            f"{absent}, which belong together: widen the pattern of init=FILE:PATTERN, or narrow it and let "
            "clusters.images make all of them"
        )
    return bool(absent)


def _cluster_leaves(flat: Mapping[tuple[str, ...], Any]) -> dict[str, tuple[str, ...]]:
    """Which of `centroids`, `centers`, `conv/kernel` and `conv/bias` an aggregator has, and where."""
    pattern = re.compile(r"params/aggregator/(?:inner/)*(centroids|centers|conv/kernel|conv/bias)")
    leaves = {match[1]: key for key in flat if (match := pattern.fullmatch("/".join(key)))}
    if not {"centroids", "conv/kernel"} & set(leaves):
        names = sorted({key[2] for key in flat if key[:2] == ("params", "aggregator")})
        raise UserError(f"this aggregator has no clusters, only {names}; use netvlad, crn, vlad or supervlad")
    return leaves
