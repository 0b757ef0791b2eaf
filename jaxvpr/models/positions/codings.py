"""What the numbers of a position head mean: the seam `Coding`, its answers, and the two that regress.

A coding turns normalised positions [..., 3] (north, east, bearing; `coordinates`) into what a loss compares with, and
raw outputs of a head into normalised positions. Both work on NumPy's float64 and on JAX's arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from jaxvpr.models.positions.coordinates import UNCHOSEN, Area, Array, arc, root, xp

ENDINGS = ("softmax", "sigmoid", "none", "tanh")
PROJECTIONS = ("degrees", "spread")


class Located(NamedTuple):
    """N answers, each float64 [N] on the host.

    north, east: degrees of latitude and longitude, or metres where the area has metres.
    bearing: degrees clockwise from north in [0, 360); NaN where the head gives none.
    confidence: in [0, 1]; NaN where the head has none.
    """

    north: np.ndarray
    east: np.ndarray
    bearing: np.ndarray
    confidence: np.ndarray


class Coding(Protocol):
    """The meaning of a head's outputs: a frozen dataclass, so that equal ones are one program."""

    def __hash__(self) -> int:
        """Equal codings have equal ones."""

    @property
    def area(self) -> Area:
        """The box that [0, 1] is."""

    @property
    def bearing(self) -> bool:
        """Whether it has a bearing."""

    @property
    def numbers(self) -> int:
        """How many outputs the head has."""

    def encode(self, at: Array) -> Any:
        """Targets of normalised positions [..., 3]; NaN (or what the coding says) where a bearing is not known."""

    def decode(self, raw: Array) -> tuple[Array, Array]:
        """Raw outputs [..., numbers] as (normalised [..., 3], confidence [...]); NaN where the head says nothing."""


def located(coding: Coding, raw: Any) -> Located:
    """The answers of a head, in float64 on the host.

    Args:
      raw: [N, numbers], outputs of the head.

    Raises:
      ValueError: for outputs of another length, or that are not finite; as `answers`.
    """
    raw = np.asarray(raw, np.float64)
    if raw.ndim != 2 or raw.shape[1] != coding.numbers:
        raise ValueError(f"outputs of shape {raw.shape}; this head has {coding.numbers} numbers for each answer")
    wrong = np.flatnonzero(~np.isfinite(raw).all(1))
    if wrong.size:
        raise ValueError(f"outputs that are not finite in {wrong.size:,} of {len(raw):,} answers, row {wrong[0]} first")
    return answers(coding.area, *coding.decode(raw))


def answers(area: Area, at: Any, confidence: Any) -> Located:
    """The answers that a coding has decoded, on the device or here.

    Outputs of many cells are best decoded where they are computed: a photo has 480 KB of them with 100 x 100 x 12.

    Args:
      at: normalised positions [N, 3]; in float32 they are as coarse as 6e-8 of the area's sides.
      confidence: [N].

    Raises:
      ValueError: where the area is not chosen yet, or for positions that are not finite.
    """
    if not area.chosen:
        raise ValueError("position_options.area is not chosen: give (south, west, north, east), or train the head")
    at, confidence = np.asarray(at, np.float64), np.asarray(confidence, np.float64)
    wrong = np.flatnonzero(~np.isfinite(at[:, :2]).all(1))
    if wrong.size:
        raise ValueError(
            f"positions that are not finite in {wrong.size:,} of {len(at):,} answers, row {wrong[0]} first"
        )
    north, east = area.placed(at[:, 0], at[:, 1])
    return Located(north, east, at[:, 2] % 1.0 * 360.0 % 360.0, confidence)


@dataclass(frozen=True)
class Direct:
    """Regresses the normalised numbers themselves (Gaza, section 3.3.1).

    Attributes:
      area: the box that [0, 1] is.
      bearing: whether there is a third number, the bearing in turns.
      ending: what stands behind the last layer: "softmax" (the document's: the numbers sum to one, so that two of three
        are all that it can say), "sigmoid", "none", or "tanh" in [-1, 1] (ReGeo's) brought to [0, 1].
    """

    area: Area = UNCHOSEN
    bearing: bool = True
    ending: str = "sigmoid"

    def __post_init__(self) -> None:
        """Raises ValueError for an ending that does not exist."""
        if self.ending not in ENDINGS:
            raise ValueError(f"ending={self.ending!r}; there are {list(ENDINGS)}")

    @property
    def numbers(self) -> int:
        """Three, or two without a bearing."""
        return 3 if self.bearing else 2

    def encode(self, at: Array) -> Array:
        """The numbers themselves, [..., numbers]; NaN where the bearing is not known."""
        return at[..., : self.numbers]

    def outputs(self, raw: Array) -> Array:
        """What `encode` gives, as the head says it: raw outputs behind the ending."""
        lib = xp(raw)
        if self.ending == "softmax":
            return softmax(raw)
        if self.ending == "sigmoid":
            return sigmoid(raw)
        return (lib.tanh(raw) + 1) / 2 if self.ending == "tanh" else raw

    def decode(self, raw: Array) -> tuple[Array, Array]:
        """See `Coding`. It has no confidence."""
        return with_bearing(self.outputs(raw)), unknown(raw[..., 0])


@dataclass(frozen=True)
class Hypersphere:
    """Regresses a point of the unit sphere in four dimensions of unit length (Gaza, equations 3.3 and 3.4).

        w = sin lat, x = cos lat cos lon cos b, y = cos lat cos lon sin b, z = cos lat sin lon

    Back: lat = atan2(w, sqrt(x² + y² + z²)), b = atan2(s y, s x), lon = atan2(z, s sqrt(x² + y²)) where s is the sign
    of cos lon, which four numbers cannot tell: it is that of the whole area. At a pole only the position comes back;
    there and at longitudes of ±90 degrees x and y vanish and the bearing is NaN. Without a bearing it is the sphere in
    three dimensions, which leaves nothing open.

    In float64 that round trip is exact to 1e-8 m. In float32 the numbers are as coarse as 6e-8 of the Earth's radius:
    positions come back to 0.5 m (median of 100,000 in San Francisco, on a CPU; the worst is 2.4 m) in "degrees", and
    to 1 mm (5 mm) in a city of 10 km with "spread"; bearings to 4e-5 degrees in both.

    Attributes:
      area: the box that [0, 1] is.
      bearing: whether the bearing is the fourth dimension.
      projection: "degrees", latitude and longitude as they are, or "spread", the box laid over `spread` of both, where
        it is a larger part of the sphere. An area of metres takes "spread".
      spread: degrees, in (0, 90).
    """

    area: Area = UNCHOSEN
    bearing: bool = True
    projection: str = "degrees"
    spread: tuple[float, float] = (15.0, 45.0)

    def __post_init__(self) -> None:
        """Raises ValueError for a projection that does not exist or that the area does not allow."""
        if self.projection not in PROJECTIONS:
            raise ValueError(f"projection={self.projection!r}; there are {list(PROJECTIONS)}")
        if len(self.spread) != 2 or not 0 <= self.spread[0] < self.spread[1] <= 90:
            raise ValueError(f"spread={self.spread}; expected two ascending degrees within [0, 90]")
        if self.projection == "degrees" and self.area.metres:
            raise ValueError("an area of metres has no degrees for the hypersphere; projection='spread' takes it")
        west, east = ((side + 90.0) / 180.0 for side in (self._box.west, self._box.east))
        if self.bearing and self.area.chosen and np.ceil(east) - np.floor(west) > 1:
            raise ValueError(
                f"area={self.area[:4]} lies on both sides of a longitude of ±90 degrees, where the hypersphere cannot "
                "tell a bearing from its opposite; projection='spread', or bearing=false"
            )

    @property
    def numbers(self) -> int:
        """Four, or three without a bearing."""
        return 4 if self.bearing else 3

    @property
    def _box(self) -> Area:
        """The degrees that the sphere is shown."""
        low, high = self.spread
        return self.area if self.projection == "degrees" else Area(low, low, high, high)

    @property
    def _side(self) -> float:
        """The sign of cos lon in all of the area."""
        return 1.0 if np.cos(np.radians((self._box.west + self._box.east) / 2)) > 0 else -1.0

    def encode(self, at: Array) -> Array:
        """(w, x, y, z) of normalised positions, [..., 4], or (w, x, z), [..., 3]; x and y are NaN without a bearing."""
        lib = xp(at)
        north, east = self._box.placed(at[..., 0], at[..., 1])
        latitude, longitude, turned = (angle * (np.pi / 180.0) for angle in (north, east, at[..., 2] * 360.0))
        across = lib.cos(latitude) * lib.cos(longitude)
        plane = (across * lib.cos(turned), across * lib.sin(turned)) if self.bearing else (across,)
        return lib.stack([lib.sin(latitude), *plane, lib.cos(latitude) * lib.sin(longitude)], -1)

    def outputs(self, raw: Array) -> Array:
        """What `encode` gives, as the head says it: raw outputs at unit length."""
        lib = xp(raw)
        squares = lib.sum(lib.square(raw), -1, keepdims=True)
        long = ~(squares <= 1e-24)  # as `layers.l2_normalise`, in float64 too
        return raw * lib.where(long, 1 / lib.sqrt(lib.where(long, squares, 1.0)), 0.0)

    def across(self, outputs: Array) -> Array:
        """sqrt(x² + y²) of `outputs` or of an `encode`d position, [...]: |cos lat cos lon|, whatever the bearing."""
        return root(xp(outputs).sum(xp(outputs).square(outputs[..., 1:-1]), -1))

    def decode(self, raw: Array) -> tuple[Array, Array]:
        """See `Coding`; the bearing is NaN where x and y say nothing. It has no confidence."""
        lib, point = xp(raw), self.outputs(raw)
        w, x, z, side = point[..., 0], point[..., 1], point[..., -1], self._side
        radius = self.across(point)
        latitude = arc(w, root(lib.square(radius) + lib.square(z)))
        longitude = arc(z, side * radius if self.bearing else x)
        u, v = self._box.normalised(latitude * (180.0 / np.pi), longitude * (180.0 / np.pi))
        if not self.bearing:
            return with_bearing(lib.stack([u, v], -1)), unknown(w)
        turns = arc(side * point[..., 2], side * x) / (2 * np.pi) % 1.0
        # The cosine of 90 degrees, as computed, is not zero: below a few of its roundings there is no direction.
        turns = lib.where(radius > 8 * float(np.finfo(raw.dtype).eps), turns, np.nan)
        return lib.stack([u, v, turns], -1), unknown(w)


def with_bearing(at: Array) -> Array:
    """Normalised positions [..., 2 or 3] as [..., 3]: NaN where there is no bearing."""
    lib = xp(at)
    return at if at.shape[-1] == 3 else lib.concatenate([at, lib.full_like(at[..., :1], np.nan)], -1)


def unknown(like: Array) -> Array:
    """NaN of that shape."""
    return xp(like).full_like(like, np.nan)


def sigmoid(raw: Array) -> Array:
    """1 / (1 + exp(-raw)), which a hyperbolic tangent keeps from overflow."""
    return (xp(raw).tanh(raw / 2) + 1) / 2


def softmax(raw: Array) -> Array:
    """The shares of the last axis."""
    lib = xp(raw)
    shares = lib.exp(raw - lib.max(raw, -1, keepdims=True))
    return shares / lib.sum(shares, -1, keepdims=True)
