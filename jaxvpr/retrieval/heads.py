"""Answers of a position head: from descriptors, in float64 on the host, the best few of each image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxvpr.models.positions import Area, Cells, Coding, Filled, Located, Mixture, located, metres_between
from jaxvpr.models.positions.codings import softmax, with_bearing

Array = np.ndarray
AT_ONCE = 256  # descriptors: a head of many cells gives half a megabyte for each


def answers(head: Callable[[Any, Any], Any], coding: Coding, variables: Any, descriptors: Array, top: int) -> Located:
    """The `top` answers of each of N images, best first, float64 [N, k]; `candidates` of what the head says.

    Args:
      head: `(variables, descriptors [B, D]) -> raw [B, coding.numbers]`.
      descriptors: float32 [N, D].

    Raises:
      ValueError: where the area is not chosen, or an output is not finite (names the row).
    """
    compiled = jax.jit(head)
    found = []
    for start in range(0, len(descriptors), AT_ONCE):
        some = descriptors[start : start + AT_ONCE]
        padded = np.pad(some, ((0, min(AT_ONCE, len(descriptors)) - len(some)), (0, 0)))  # one program for all
        found.append(candidates(coding, np.asarray(compiled(variables, padded))[: len(some)], top))
    return Located(*map(np.concatenate, zip(*found, strict=True)))


def candidates(coding: Coding, raw: Array, top: int) -> Located:
    """Of raw outputs [N, numbers] the `top` answers at most, best first, float64 [N, k].

    Cells and galleries give their likeliest classes and coordinates with the probabilities, a mixture the means of its
    heaviest hypotheses with their weights; any other head has one answer.

    Raises:
      ValueError: as `positions.located`.
    """
    best = located(coding, raw)
    if isinstance(coding, Cells):
        at, confidence = _cells(coding, np.asarray(raw, np.float64), top)
    elif isinstance(coding, Filled):
        places, confidence = coding.best(raw, min(top, len(coding.at)))
        at = with_bearing(places)
    elif isinstance(coding, Mixture):
        at, confidence = _hypotheses(coding, np.asarray(raw, np.float64), top)
    else:
        return Located(*(column[:, None] for column in best))
    north, east = coding.area.placed(at[..., 0], at[..., 1])
    return Located(north, east, at[..., 2] % 1.0 * 360.0 % 360.0, confidence)


def _cells(coding: Cells, raw: Array, top: int) -> tuple[Array, Array]:
    """Normalised positions [N, k, 3] and probabilities [N, k] of the likeliest classes; of equal ones the lowest."""
    order = np.argsort(-raw, -1, kind="stable")[:, :top]
    return coding.middles(order), np.take_along_axis(softmax(raw), order, -1)


def _hypotheses(coding: Mixture, raw: Array, top: int) -> tuple[Array, Array]:
    """Normalised positions [N, k, 3] and weights [N, k] of the heaviest hypotheses."""
    found = coding.hypotheses(raw)
    order = np.argsort(-found.logits, -1, kind="stable")[:, :top]
    means = np.take_along_axis(found.means, order[..., None], -2)
    if found.toward is None:
        turns = np.full(order.shape, np.nan)
    else:
        toward = np.take_along_axis(found.toward, order[..., None], -2)
        turns = np.arctan2(toward[..., 1], toward[..., 0]) / (2 * np.pi) % 1.0
    return np.concatenate([means, turns[..., None]], -1), np.take_along_axis(softmax(found.logits), order, -1)


def plan(area: Area, north: Array, east: Array) -> Array:
    """float64 [N, 2], metres east and north of the area's south-west corner on a plane, true in its middle."""
    u, v = area.normalised(north, east)
    middle = np.array([(area.south + area.north) / 2]), np.array([(area.west + area.east) / 2])
    up = metres_between(area, np.array([area.south]), middle[1], np.array([area.north]), middle[1])
    across = metres_between(area, middle[0], np.array([area.west]), middle[0], np.array([area.east]))
    return np.stack([v * across, u * up], -1)
