"""Positions of images as heads learn them: degrees or metres, an area, and numbers in [0, 1]."""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from data_pipelines import geo
from data_pipelines.errors import DataError
from data_pipelines.places import Places
from jaxvpr.builders.network import model
from jaxvpr.errors import UserError
from jaxvpr.models.positions import EARTH, Area, Coding
from jaxvpr.retrieval.positions import as_learned

log = logging.getLogger(__name__)
Array = np.ndarray
MARGIN = 0.01  # of the sides of an area that is chosen, around the images


class Positions(NamedTuple):
    """Where images were taken, each float64 [N].

    north, east: degrees of latitude and longitude, or metres where `metres`.
    bearing: degrees clockwise from north, NaN where unknown.
    """

    north: Array
    east: Array
    bearing: Array
    metres: bool


def positions(images: Places) -> Positions:
    """The positions of all images: degrees where they have a UTM zone, else metres of the data's own frame.

    Raises:
      DataError: for an image without a position, or where some have a zone and others none; names it.
    """
    unknown = np.flatnonzero(~(np.isfinite(images.east) & np.isfinite(images.north)))
    if len(unknown):
        raise DataError(
            f"{images.name}: {len(unknown):,} of {len(images):,} images have no position (first: "
            f"{images.path[unknown[0]]}), and a head that answers positions learns and is measured by them. Leave "
            "these images out"
        )
    local = images.zone < 1
    if local.any() and not local.all():
        one, other = (images.path[int(np.argmax(kind))] for kind in (local, ~local))
        raise DataError(
            f"{images.name}: {other} has a UTM zone and {one} has none: positions are degrees or metres of a frame of "
            "their own, not both. Give the zone (docs/data_formats.md), or train on one kind"
        )
    bearing = images.heading.astype(np.float64)
    if local.all():
        return Positions(images.north, images.east, bearing, True)
    return Positions(*geo.from_utm(images.east, images.north, images.zone), bearing, False)


def area_around(at: Positions) -> tuple[float, float, float, float]:
    """(south, west, north, east) of positions, with a hundredth of its sides around them; the short way round.

    Raises:
      DataError: for positions that are one point.
    """
    east = at.east
    if not at.metres and np.ptp(east) > 180.0:  # across the 180th meridian
        east = np.mod(east, 360.0)
    low, high = np.array([at.north.min(), east.min()]), np.array([at.north.max(), east.max()])
    sides = high - low
    if not (sides > 0).any():
        raise DataError("all images lie at one point: there is no area to answer positions of")
    around = MARGIN * np.where(sides > 0, sides, sides.max())  # a line has a width too
    (south, west), (north, east) = (np.round(side, 2 if at.metres else 7) for side in (low - around, high + around))
    return float(south), float(west), float(north), float(east)


def coding_of(config: ConfigDict) -> Coding:
    """What the numbers of the recipe's position head mean.

    Raises:
      UserError: where the model has none.
    """
    head = model(config).position
    if head is None:
        raise UserError(
            "config.model.position='' is a model of descriptors alone: set model.position to direct, hypersphere, "
            "cells or mixture"
        )
    return head.coding


def normalised(area: Area, at: Positions) -> Array:
    """float32 [N, 3]: north and east in [0, 1] within the area, the bearing in turns.

    Raises:
      DataError: for degrees where the area has metres, or the other way round.
    """
    if area.metres != at.metres:
        kinds = ("degrees", "metres")
        raise DataError(
            f"images have positions in {kinds[at.metres]}, and the area that the head answers in has "
            f"{kinds[area.metres]} (model.position_options.metres): a head serves the frame that it was trained in"
        )
    return as_learned(area, at.north, at.east, at.bearing)


def to_learn(config: ConfigDict, images: Places) -> tuple[Array, Array]:
    """(rows int64 [M] of the images within the area, normalised positions float32 [M, 3] of them).

    Raises:
      UserError, DataError: where the area is not chosen, no image lies in it, or the head has a bearing and no image
        has.
    """
    coding, at = coding_of(config), positions(images)
    if not coding.area.chosen:
        south, west, north, east = area_around(at)
        raise UserError(
            "config.model.position_options.area is not chosen. South, west, north, east of these images are "
            f"({south}, {west}, {north}, {east}): give that, or name the key in config.auto"
        )
    targets = normalised(coding.area, at)
    inside = coding.area.holds(at.north, at.east)
    if not inside.any():
        raise DataError(
            f"{images.name}: none of {len(images):,} images lies in model.position_options.area={coding.area[:4]}; "
            f"they lie in {area_around(at)}"
        )
    if not inside.all():
        log.warning(
            "%s: %d of %d images lie outside model.position_options.area and are not learned",
            images.name, int((~inside).sum()), len(images),
        )  # fmt: skip
    _check_bearings(coding, images, at.bearing[inside])
    return np.flatnonzero(inside), targets[inside]


def _check_bearings(coding: Coding, images: Places, bearing: Array) -> None:
    blind = np.isnan(bearing)
    if not coding.bearing or not blind.any():
        return
    if blind.all():
        raise DataError(
            f"{images.name}: no image has a heading, and model.position={type(coding).__name__.lower()} answers a "
            "bearing too: set model.position_options.bearing=false, or read images with headings"
        )
    log.warning("%s: %d images have no heading: of them the position alone is learned", images.name, blind.sum())


def area_metres(area: Area) -> tuple[float, float]:
    """Height and width of an area in metres, the width in its middle."""
    height, width = area.sides
    if area.metres:
        return height, width
    degree = EARTH * np.pi / 180
    return height * degree, width * degree * float(np.cos(np.radians((area.south + area.north) / 2)))
