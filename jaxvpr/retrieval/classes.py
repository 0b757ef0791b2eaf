"""Localisation by classification: the classes that a model was trained with are the database, one row a class.

A photo is where the class lies whose prototype is nearest to its descriptor, over all groups at once (Trivigno et al.,
"Divide&Classify", ICCV 2023, section 3.4). Prototypes have any length in the original's code; here they are unit
vectors, as in the loss. The database grows with the map, not with the number of photos.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from data_pipelines import geo
from data_pipelines.errors import DataError
from data_pipelines.partitions import Cells
from data_pipelines.places import Places
from jaxvpr.parallel.mesh import replicate
from jaxvpr.retrieval import search
from jaxvpr.retrieval.recall import Recall, recall
from jaxvpr.retrieval.thresholds import parse_threshold

log = logging.getLogger(__name__)
Array = np.ndarray
IN_METRES = re.compile(r"\d+(?:\.\d+)?m")


class Classes(NamedTuple):
    """A class database.

    Attributes:
      prototypes: float32 [K, D], of unit length.
      places: one row a class: its position, and as its path the training image nearest to it.
    """

    prototypes: Array
    places: Places


class ClassPlaces(NamedTuple):
    """Where the classes of stacked heads lie.

    Attributes:
      slot: int64 [K], which head (group) a class belongs to.
      label: int64 [K], its row there.
      places: as in `Classes`.
    """

    slot: Array
    label: Array
    places: Places

    @classmethod
    def of(cls, cells: Cells, images: Places, *, side: float | None = None, sector: float | None = None) -> ClassPlaces:
        """The places of a partition's classes, group by group.

        Args:
          cells: the partition. images: what it divides.
          side: of the squares that the first two keys of a class count, in metres: a class lies in the middle of its
            square, as the original has it. None: in the mean of its images.
          sector: width of the headings that the third key counts, in degrees: a class has the heading of its middle.
            None: it has no heading.

        Raises:
          DataError: for images without a position, or of several UTM zones.
        """
        zone = images.single_zone()
        at = np.stack([images.east[cells.rows], images.north[cells.rows]], 1)
        unknown = np.flatnonzero(~np.isfinite(at).all(1))
        if len(unknown):
            raise DataError(
                f"{images.name}: {len(unknown)} images of classes have no position (first: "
                f"{images.path[cells.rows[unknown[0]]]}), so the classes cannot localise a photo. Set "
                "eval.localize=false, or train on images with coordinates"
            )
        sizes = np.diff(cells.indptr)
        if side is None:
            centre = np.add.reduceat(at, cells.indptr[:-1]) / sizes[:, None]
        else:
            centre = (cells.keys[:, :2] + 0.5) * side
        away = np.hypot(*(at - np.repeat(centre, sizes, axis=0)).T)
        nearest = np.repeat(np.minimum.reduceat(away, cells.indptr[:-1]), sizes) == away
        of_class = np.repeat(np.arange(len(sizes)), sizes)[nearest]
        _, first = np.unique(of_class, return_index=True)
        places = Places.create(
            f"classes of {images.name}",
            images.path.take(cells.rows[nearest][first]),
            east=centre[:, 0],
            north=centre[:, 1],
            zone=zone,
            heading=np.nan if sector is None else (cells.keys[:, 2] + 0.5) * sector,
        )
        slot = np.repeat(np.arange(len(cells)), cells.counts)
        return cls(slot, np.arange(len(slot)) - cells.groups[slot], places)

    def database(self, extra: Mapping[str, Any], mesh: Mesh) -> Classes:
        """The class database of trained heads; rows that only pad a head are left out.

        Args:
          extra: the objective's heads, `prototypes` [G, C, D] among them: on the host, or split over the mesh. Every
            process gets all of them.
        """
        chosen = np.asarray(replicate(mesh)(extra["prototypes"]))[self.slot, self.label].astype(np.float32)
        return Classes(chosen / np.maximum(np.linalg.norm(chosen, axis=1, keepdims=True), 1e-12), self.places)


def unfit(classes: Places, queries: Places, thresholds: Sequence[str]) -> str:
    """Why classes at these places cannot localise the queries within any of the thresholds; empty where they can."""
    if not any(map(IN_METRES.fullmatch, thresholds)):
        return f"no threshold in metres alone among {', '.join(thresholds)}"
    zones = np.unique(np.concatenate([places.zone[places.located] for places in (classes, queries)]))
    names = " and ".join(map(geo.zone_name, zones))
    return f"the classes and these queries lie in {names}" if len(zones) > 1 else ""


def locate(
    classes: Classes,
    descriptors: Array,
    queries: Places,
    *,
    thresholds: Sequence[str],
    ns: Sequence[int],
    missing: Sequence[int] | Array = (),
) -> dict[str, Recall]:
    """LR@N: the share of queries with one of their first N classes within a threshold; N beyond the classes takes all.

    Args:
      descriptors: float32 [Q, D]; their length does not change which prototype is nearest.
      queries: their places.
      thresholds: of a benchmark; those that are metres alone ("25m") are measured.
      ns: which LR@N to report.
      missing: queries that could not be read, which fail.

    Returns:
      threshold -> `Recall`, whose `answerable` are the queries with any class in reach. Empty where no threshold is
      metres alone, or the queries lie in another UTM zone than the classes.
    """
    if why := unfit(classes.places, queries, thresholds):
        log.warning("%s: no localisation by classification: %s", queries.name, why)
        return {}
    wanted = [text for text in thresholds if IN_METRES.fullmatch(text)]
    _, predictions = search.exact(classes.prototypes, descriptors, max(ns))
    predictions[np.asarray(missing, np.int64)] = -1
    return {text: recall(predictions, parse_threshold(text)(classes.places, queries), ns) for text in wanted}
