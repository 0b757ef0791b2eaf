"""Principal components of descriptors: fitted within a limit of memory, then added to the model as a layer.

`fold(variables, fit(sampled_descriptors(...), dim))` does all of it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.clips import Clips
from data_pipelines.places import Paths
from jaxvpr.errors import UserError
from jaxvpr.parallel import hosts
from jaxvpr.retrieval.evaluator import Describer

log = logging.getLogger(__name__)
Array = np.ndarray

# Below this share of the first variance, a direction is lost in float32's rounding.
FAINT = 1e-6
# Images or numbers, whichever are fewer, up to which FAISS alone is quick; and rounds of the iteration beyond.
EXACT, ROUNDS = 2048, 7


class Pca(NamedTuple):
    """`weight x + bias`: the leading principal components of descriptors x.

    Attributes:
      weight: float32 [dim, D], largest variance first; orthonormal rows, or whitened ones.
      bias: float32 [dim]; centres the descriptors that it was fitted on.
      kept: share of their variance that the components have, 0 to 1.
    """

    weight: Array
    bias: Array
    kept: float


def sampled_descriptors(
    describer: Describer,
    variables: Any,
    paths: Paths | Clips,
    *,
    dim: int,
    length: int,
    images: int = 2**14,
    memory_mib: int = 4096,
    seed: int = 0,
) -> Array:
    """Descriptors of random images, as many as the fit has memory for.

    Args:
      paths: of the training images, or their clips.
      dim, length: components to be fitted, and numbers of a descriptor.
      images: at most so many are used. The default is the Deep VG benchmark's.
      memory_mib: of the host, for the descriptors and the fit together.
      seed: which images; the draw depends on no batch, device or number of processes.

    Returns:
      float32 [n, D]; images that cannot be read are left out.

    Raises:
      UserError: where there are not more images than components.
    """
    count = sample_size(len(paths), dim=dim, length=length, images=images, memory_mib=memory_mib)
    if count < (wanted := min(images, len(paths))):
        log.info("the PCA takes %d images: %d would not fit in pca.memory_mib=%d", count, wanted, memory_mib)
    rows = np.sort(np.random.default_rng(seed).choice(len(paths), count, replace=False))
    described = describer(variables, paths.take(rows))
    # In place, because a second table may not fit.
    present = np.delete(np.arange(count), described.missing)
    for to, row in enumerate(present):
        if to < row:
            described.descriptors[to] = described.descriptors[row]
    return described.descriptors[: len(present)]


def sample_size(available: int, *, dim: int, length: int, images: int, memory_mib: int) -> int:
    """How many of the available images a PCA of `dim` of `length` numbers is fitted on.

    Raises:
      UserError: for more components than a descriptor has numbers, or too few images for them.
    """
    if dim > length:
        raise UserError(f"pca.dim={dim} is more than the {length} numbers of a descriptor; set at most {length}")
    count = affordable(min(images, available), dim, length, memory_mib)
    if count <= dim:
        raise UserError(
            f"pca.dim={dim} needs more than {dim} images: there are {available} training images, pca.images={images} "
            f"allows {min(images, available)} of them, and pca.memory_mib={memory_mib} {count} descriptors of "
            f"{length} numbers"
        )
    return count


def affordable(images: int, dim: int, length: int, memory_mib: int) -> int:
    """How many of so many images fit in the memory, by `peak_bytes`."""
    fits = [count for count in range(images + 1) if peak_bytes(count, dim, length) <= memory_mib * 2**20]
    return max(fits, default=0)


def peak_bytes(count: int, dim: int, length: int) -> int:
    """The most that the descriptors and the fit hold at once.

    Of at least as many images as numbers FAISS makes the covariance, in float32 and in float64; of fewer the products
    of all pairs of images, beside a centred copy of the descriptors and a direction for each. Where a sketch comes
    first, there are only the descriptors and a few tables of `sketched` columns.
    """
    if columns := sketched(count, dim, length):
        return 4 * count * length + 8 * count * columns + 12 * length * columns + 12 * columns**2
    return 4 * count * length + 12 * length**2 if count >= length else 12 * count * length + 12 * count**2


def sketched(count: int, dim: int, length: int) -> int:
    """The number of columns that descriptors are reduced to before FAISS fits them; 0 for no reduction.

    FAISS's eigenvectors take time with the cube of the images or the numbers, whichever are fewer: 8 seconds for 2000
    on two cores. Beyond `EXACT`, and for far fewer components, it fits the descriptors within the subspace of
    `_subspace` alone.
    """
    side, columns = min(count, length), dim + max(64, dim // 8)
    return columns if side > EXACT and 2 * columns <= side else 0


def fit(x: Array, dim: int, *, whiten: bool = False) -> Pca:
    """Principal components by FAISS.

    Signs are fixed: the largest number of a component is positive.

    Args:
      x: descriptors, float32 [n, D], n above `dim`. They are centred in place, which keeps digits and memory.
      dim: components that are kept.
      whiten: divide each by its standard deviation, so that the variance of all is one.

    Returns:
      `Pca`, that of the first host on every host.

    Raises:
      UserError: for too few descriptors, any that is not finite, or fewer directions in them than `dim`.
    """
    count, length = x.shape
    if not dim < count or dim > length:
        raise UserError(f"{count} descriptors of {length} numbers cannot give {dim} components")
    if not all(np.isfinite(row).all() for row in x):
        raise UserError("descriptors are not finite: check the weights for NaN")
    mean = x.mean(0, dtype=np.float64).astype(np.float32)
    x -= mean[None]
    total = sum(float(np.dot(row, row)) for row in x)
    columns = sketched(count, dim, length)
    basis = _subspace(x, columns) if columns else None
    weight, scatter = _by_faiss(x if basis is None else x @ basis.T, dim, whiten)
    weight = weight if basis is None else weight @ basis
    weight *= np.sign(np.take_along_axis(weight, np.abs(weight).argmax(1)[:, None], 1))
    agreed = {
        name: hosts.of_first(partial(np.asarray, value), value.shape, np.float32)
        for name, value in {"weight": weight, "bias": -weight @ mean}.items()
    }
    return Pca(agreed["weight"], agreed["bias"], float(scatter[:dim].sum(dtype=np.float64) / total))


def _by_faiss(x: Array, dim: int, whiten: bool) -> tuple[Array, Array]:
    """The components of centred x, float32 [dim, D], and the sums of squares along all that were found."""
    import faiss  # here, since few recipes need a PCA

    count, length = x.shape
    pca = faiss.PCAMatrix(length, dim, -0.5 if whiten else 0.0, False)
    pca.max_points_per_d = max(pca.max_points_per_d, -(-count // length))  # beyond these it would draw a part of them
    pca.train(x)
    scatter = faiss.vector_to_array(pca.eigenvalues)[: min(count, length)]
    rank = int((scatter > FAINT * scatter[0]).sum())
    if rank < dim:
        raise UserError(
            f"the descriptors of {count} images vary in {rank} directions, fewer than pca.dim={dim}: lower it, or give "
            "more images that differ"
        )
    weight = faiss.vector_to_array(pca.A).reshape(dim, length)
    # FAISS whitens by the sum of squares where a variance is their mean.
    return weight * np.float32(math.sqrt(count - 1) if whiten else 1), scatter


def _subspace(x: Array, columns: int) -> Array:
    """Orthonormal rows [columns, D] that span where centred x varies most: subspace iteration from a fixed start.

    After Halko, Martinsson and Tropp (SIAM Review 2011). The error that a direction beyond the last row
    adds to one that is kept shrinks with the 14th power of the ratio of their deviations.
    """
    import faiss

    basis = np.random.default_rng(0).standard_normal((columns, x.shape[1]), np.float32)
    for _ in range(ROUNDS):
        basis = (x @ basis.T).T @ x
        # In place and in float32, where NumPy's has several tables of float64.
        faiss.matrix_qr(x.shape[1], columns, faiss.swig_ptr(basis))  # type: ignore[attr-defined]
    return basis


def last_part(model: Mapping[str, Any]) -> str:
    """What of a model a PCA stands behind: "aggregator", or "sequence" where that joins descriptors of frames."""
    return "aggregator" if model.get("sequence") in (None, "", "joint") else "sequence"


def with_projection(model: Mapping[str, Any], dim: int, frames: int = 0) -> dict[str, Any]:
    """The keywords of `models.join` for a model with a layer of `dim` components after its descriptor.

    Args:
      frames: of the clips that it describes, where its descriptor is as long as they are ("cat").
    """
    part = last_part(model)
    options = dict(model.get(f"{part}_options") or {})
    if model[part] == "cat":
        options["frames"] = frames
    inner = {part: model[part], f"{part}_options": options}
    return {
        **model,
        part: {"aggregator": "fc", "sequence": "projected"}[part],
        f"{part}_options": {"inner": inner, "dim": dim, "l2": model.get("l2_after", True)},
    }


def fold(variables: Mapping[str, Any], pca: Pca, part: str = "aggregator") -> dict[str, Any]:
    """Variables of the model of `with_projection`: those of the model itself, and the PCA as its last layer.

    The folded model's descriptor is the PCA of the model's own, made a unit vector again if that was one. `part` is the
    model's `last_part`.
    """
    held = {
        kind: {name: {"inner": tree} if name == part else tree for name, tree in trees.items()}
        for kind, trees in variables.items()
    }
    layer = {"kernel": np.ascontiguousarray(pca.weight.T), "bias": pca.bias}
    params = held["params"]
    return {**held, "params": {**params, part: {**params.get(part, {}), "fc": layer}}}


def unfold(variables: Mapping[str, Any], part: str = "aggregator") -> dict[str, Any]:
    """The inverse of `fold`: variables of the model without its PCA."""
    plain = {}
    for kind, trees in variables.items():
        inner = trees.get(part, {}).get("inner")
        rest = {name: tree for name, tree in trees.items() if name != part}
        plain[kind] = rest if inner is None else {**rest, part: inner}
    return plain
