"""Positions as the best of a gallery of coordinates, each with an embedding that an image's is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxvpr.models.positions.codings import softmax, with_bearing
from jaxvpr.models.positions.coordinates import EARTH, UNCHOSEN, Area, Array, xp

PROJECTIONS = ("equal_earth", "area")
# The Equal Earth projection's polynomial (Savric, Patterson and Jenny, 2018), and GeoCLIP's factor, which brings the
# equator's ends to -1 and 1.
POLYNOMIAL = (1.340264, -0.081106, 0.000893, 0.003796)
SCALE = 66.50336 / 180
# So many logits are on the host at a time.
LOGITS = 2**25


def equal_earth(latitude: Array, longitude: Array) -> Array:
    """The Equal Earth projection of degrees, as GeoCLIP scales it: `[..., 2]`, east in [-1, 1] and north in +-0.487."""
    lib = xp(latitude, longitude)
    a1, a2, a3, a4 = POLYNOMIAL
    theta = lib.arcsin(3**0.5 / 2 * lib.sin(latitude * (np.pi / 180)))
    slope = 9 * a4 * theta**8 + 7 * a3 * theta**6 + 3 * a2 * theta**2 + a1
    east = 2 * 3**0.5 / 3 * (longitude * (np.pi / 180)) * lib.cos(theta) / slope
    north = a4 * theta**9 + a3 * theta**7 + a2 * theta**3 + a1 * theta
    return lib.stack([east, north], -1) * SCALE


@dataclass(frozen=True)
class Gallery:
    """The best of a gallery's coordinates; a head's numbers are an image's embedding, to be compared with theirs.

    It answers once the embeddings are there, as `Filled`.

    Attributes:
      area: the box that [0, 1] is; GeoCLIP's is the globe.
      size: how many coordinates the gallery has; 0: not chosen.
      dim: length of the embeddings.
      projection: of coordinates before they are encoded: "equal_earth", GeoCLIP's of the globe, in which 1 is
        20,000 km, or "area", whose longer side is [-1, 1], for a city or for metres.
    """

    area: Area = UNCHOSEN
    size: int = 0
    dim: int = 512
    projection: str = "equal_earth"

    def __post_init__(self) -> None:
        """Raises ValueError for a projection that does not exist, or of metres on the globe."""
        if self.projection not in PROJECTIONS:
            raise ValueError(f"projection={self.projection!r}; there are {list(PROJECTIONS)}")
        if self.area.metres and self.projection != "area":
            raise ValueError(f"projection={self.projection!r} is of degrees, and the area has metres: take 'area'")
        if self.size < 0 or self.dim < 1:
            raise ValueError(f"size={self.size}, dim={self.dim}; expected a size from 0 up and at least one number")

    @property
    def bearing(self) -> bool:
        """It has none."""
        return False

    @property
    def numbers(self) -> int:
        """Those of an embedding."""
        return self.dim

    def encode(self, at: Array) -> Array:
        """What is encoded of normalised positions [..., 2 or more]: `[..., 2]`."""
        if self.projection == "equal_earth":
            height, width = self.area.sides
            return equal_earth(self.area.south + at[..., 0] * height, self.area.west + at[..., 1] * width)
        height, width = self.area.sides
        if not self.area.metres:
            width = width * np.cos(np.radians(self.area.south + height / 2))
        longest = max(height, width)
        along = ((2 * at[..., 1] - 1) * (width / longest), (2 * at[..., 0] - 1) * (height / longest))
        return xp(at).stack(along, -1)

    def moved(self, at: Array, north: Array, east: Array) -> Array:
        """Normalised positions [..., 2] after so many metres north and east; at most to a pole."""
        lib, (height, width) = xp(at, north, east), self.area.sides
        if self.area.metres:
            return at + lib.stack([north / height, east / width], -1)
        degree = np.pi / 180 * EARTH
        latitude = lib.clip(self.area.south + at[..., 0] * height, -89.0, 89.0)
        steps = lib.stack([north / degree / height, east / (degree * lib.cos(latitude * (np.pi / 180))) / width], -1)
        low, high = (-90.0 - self.area.south) / height, (90.0 - self.area.south) / height
        there = at + steps
        return lib.stack([lib.clip(there[..., 0], low, high), there[..., 1]], -1)

    def decode(self, raw: Array) -> tuple[Array, Array]:
        """Raises ValueError: without the gallery's embeddings an embedding is no position (`coding_with`)."""
        raise ValueError(
            "a gallery answers by its embeddings: take the coding of `positions.coding_with(head, variables)`"
        )


@dataclass(frozen=True, eq=False)
class Filled:
    """A `Gallery` with its coordinates and their embeddings, on the host.

    Attributes:
      gallery: what its numbers mean.
      at: normalised, float64 [size, 2].
      embeddings: float32 [size, dim], of unit length.
    """

    gallery: Gallery
    at: np.ndarray
    embeddings: np.ndarray

    @property
    def area(self) -> Area:
        """The box that [0, 1] is."""
        return self.gallery.area

    @property
    def bearing(self) -> bool:
        """It has none."""
        return False

    @property
    def numbers(self) -> int:
        """Those of an embedding."""
        return self.gallery.numbers

    def encode(self, at: Array) -> Array:
        """As `Gallery`."""
        return self.gallery.encode(at)

    def best(self, raw: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The likeliest coordinates of each answer, the best first.

        Args:
          raw: [N, dim], outputs of the head: embeddings of images times the temperature's inverse.
          count: 1 to the gallery's size.

        Returns:
          Normalised positions float64 [N, count, 2], and their probabilities over the whole gallery, float64
          [N, count].

        Raises:
          ValueError: for another count.
        """
        if not 1 <= count <= len(self.at):
            raise ValueError(f"count={count}: the gallery has {len(self.at):,} coordinates")
        rows = max(1, LOGITS // len(self.at))
        raw = np.asarray(raw, np.float32)
        parts = [self._best(raw[first : first + rows], count) for first in range(0, len(raw), rows)]
        found = [np.concatenate(column) for column in zip(*parts, strict=True)] if parts else []
        return (self.at[found[0]], found[1]) if parts else (np.zeros((0, count, 2)), np.zeros((0, count)))

    def decode(self, raw: Array) -> tuple[Array, Array]:
        """The best coordinates, [N, 3] with an unknown bearing, and their probability."""
        if (lib := xp(raw)) is not np:
            logits = lib.einsum("nd,gd->ng", raw, self.embeddings)
            at = lib.asarray(self.at, logits.dtype)[lib.argmax(logits, -1)]
            return with_bearing(at), lib.max(softmax(logits), -1)
        at, probability = self.best(raw, 1)
        return with_bearing(at[:, 0]), probability[:, 0]

    def _best(self, raw: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        logits = raw @ self.embeddings.T
        some = np.argpartition(-logits, count - 1, axis=1)[:, :count] if count < len(self.at) else None
        chosen = np.broadcast_to(np.arange(len(self.at)), logits.shape) if some is None else np.sort(some, 1)
        values = np.take_along_axis(logits, chosen, 1)
        order = np.argsort(-values, axis=1, kind="stable")
        chosen, values = np.take_along_axis(chosen, order, 1), np.take_along_axis(values, order, 1)
        most = logits.max(1, keepdims=True)
        total = np.exp(logits - most).sum(1, dtype=np.float64, keepdims=True)
        return chosen, np.exp((values - most).astype(np.float64)) / total
