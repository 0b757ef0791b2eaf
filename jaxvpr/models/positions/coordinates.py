"""Areas, and distances between positions: one formula for NumPy's float64 on the host and JAX's arrays on the device.

A *position* is (north, east): degrees of latitude and longitude, or metres in the data's own frame. *Normalised* is
each of them in [0, 1] within an area, and a bearing in turns (degrees / 360), NaN where it is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

EARTH = 6_371_008.8  # metres: the mean radius of the Earth (IUGG's R1)
Array = Any  # np.ndarray or jax.Array: what goes in comes out


def xp(*arrays: Array) -> Any:
    """`jax.numpy` where one of them is JAX's, else `numpy`."""
    return jnp if any(isinstance(array, jax.Array) for array in arrays) else np


class Area(NamedTuple):
    """A box of positions: degrees of latitude and longitude, or metres. All zeros: not chosen yet.

    An area across the 180th meridian has an `east` beyond 180, as in (-20, 175, -15, 185).
    """

    south: float = 0.0
    west: float = 0.0
    north: float = 0.0
    east: float = 0.0
    metres: bool = False

    @property
    def chosen(self) -> bool:
        """Whether it is a box at all."""
        return self.north > self.south and self.east > self.west

    @property
    def sides(self) -> tuple[float, float]:
        """Height and width in the area's own unit, degrees or metres."""
        return self.north - self.south, self.east - self.west

    def normalised(self, north: Array, east: Array) -> tuple[Array, Array]:
        """Positions as parts of the box, [0, 1] within it; a longitude is taken the short way round the globe."""
        height, width = self.sides
        if not self.metres:
            middle = self.west + width / 2
            away = east - middle
            with np.errstate(invalid="ignore"):  # an infinite one is nowhere, NaN
                east = middle + away - 360.0 * xp(east).round(away / 360.0)
        return (north - self.south) / height, (east - self.west) / width

    def placed(self, u: Array, v: Array) -> tuple[Array, Array]:
        """The positions of parts of the box; longitudes in [-180, 180]."""
        height, width = self.sides
        north, east = self.south + u * height, self.west + v * width
        if not self.metres:
            east = xp(east).where(abs(east) > 180.0, (east + 180.0) % 360.0 - 180.0, east)
        return north, east

    def holds(self, north: Array, east: Array) -> Array:
        """Which positions lie in the box, its border included; bool array. A position that is not finite does not.

        A billionth of the box is forgiven, which is what rounding takes from its border.
        """
        u, v = self.normalised(north, east)
        slack = 1e-9
        return (u >= -slack) & (u <= 1 + slack) & (v >= -slack) & (v <= 1 + slack)


UNCHOSEN = Area()


def area(numbers: Sequence[float], metres: bool = False) -> Area:
    """An area from (south, west, north, east); () is one that is not chosen yet.

    Raises:
      ValueError: for another length, for numbers that are not finite, or that make no box on Earth.
    """
    if not len(numbers):
        return Area(metres=metres)
    south, west, north, east = map(float, numbers) if len(numbers) == 4 else (0.0,) * 4
    made = Area(south, west, north, east, metres)
    if not (made.chosen and np.isfinite(made[:4]).all()):
        raise ValueError(f"area={tuple(numbers)}; expected (south, west, north, east) with south < north, west < east")
    if not metres and (made.south < -90 or made.north > 90 or made.east - made.west > 360):
        raise ValueError(
            f"area={tuple(numbers)} is no box of degrees: latitudes lie in [-90, 90], and 360 degrees are the whole "
            "globe; metres=true for metres north and east"
        )
    return made


def haversine(latitude: Array, longitude: Array, latitude2: Array, longitude2: Array) -> Array:
    """Metres along a great circle of the sphere of radius `EARTH`, between degrees; Gaza's equation 3.5.

    With float32 degrees the result is as coarse as they are, up to 0.8 m off; `metres_apart` is not.
    """
    one, other = _radians(latitude), _radians(latitude2)
    return _on_sphere(one, other, _radians(latitude2 - latitude), _radians(longitude2 - longitude))


def metres_between(area: Area, north: Array, east: Array, north2: Array, east2: Array) -> Array:
    """Metres between positions: along a great circle, or straight where the area is one of metres."""
    if area.metres:
        return root(xp(north, north2).square(north2 - north) + xp(north, north2).square(east2 - east))
    return haversine(north, east, north2, east2)


def metres_apart(area: Area, at: Array, other: Array) -> Array:
    """Metres between normalised positions, the first two numbers of `[..., 2 or more]`; `[...]`.

    Differences are taken within the box before anything is turned into radians, so that float32 keeps the digits that
    degrees would lose. Of its positions as they are it computes 0.1 m to 5e-7 m, 25 m to 6e-6 m and 1 km to 0.2 mm.
    Rounding the positions themselves takes more: 1 mm in a box of 10 km, 2.6 m where the box is the globe. Of two equal
    ones the gradient is zero.
    """
    height, width = area.sides
    north, east = (other[..., 0] - at[..., 0]) * height, (other[..., 1] - at[..., 1]) * width
    if area.metres:
        return root(xp(north).square(north) + xp(north).square(east))
    one, two = (_radians(area.south + where[..., 0] * height) for where in (at, other))
    return _on_sphere(one, two, _radians(north), _radians(east))


def _radians(degrees: Array) -> Array:
    return degrees * (np.pi / 180.0)


def _on_sphere(latitude: Array, latitude2: Array, north: Array, east: Array) -> Array:
    """Metres from two latitudes and the differences of both coordinates, all in radians.

    The root of both halves and their arc tangent are stable at zero, where an arc cosine loses half of the digits, and
    at the antipode, where an arc sine does.
    """
    lib = xp(latitude, latitude2)
    part = lib.square(lib.sin(north / 2)) + lib.cos(latitude) * lib.cos(latitude2) * lib.square(lib.sin(east / 2))
    return 2 * EARTH * arc(root(part), root(1 - part))


def arc(y: Array, x: Array) -> Array:
    """The angle of (x, y) in radians; 0 with a gradient of 0 where both are 0."""
    lib = xp(y, x)
    nowhere = (y == 0) & (x == 0)
    return lib.arctan2(lib.where(nowhere, 0.0, y), lib.where(nowhere, 1.0, x))


def root(x: Array) -> Array:
    """The square root; 0 with a gradient of 0 where `x` is not above 0."""
    lib = xp(x)
    above = ~(x <= 0)  # NaN stays NaN
    return lib.where(above, lib.sqrt(lib.where(above, x, 1.0)), 0.0)
