"""Latitude and longitude to UTM metres and back, and headings.

The transverse Mercator projection follows Krüger's series to the fourth order of the third flattening (Karney 2011,
"Transverse Mercator with an accuracy of a few nanometers", equations 35 and 36), on the WGS84 ellipsoid: within a zone
and its neighbours the error is far below a millimetre.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from data_pipelines.errors import DataError, option_of

Array = np.ndarray
SEMI_MAJOR = 6378137.0  # metres
FLATTENING = 1 / 298.257223563
SCALE = 0.9996
FALSE_EAST = 500_000.0
FALSE_NORTH = 10_000_000.0  # south of the equator only

_n = FLATTENING / (2 - FLATTENING)
ECCENTRICITY = 2 * np.sqrt(_n) / (1 + _n)
RADIUS = SEMI_MAJOR / (1 + _n) * (1 + _n**2 / 4 + _n**4 / 64)  # of the circle as long as the meridian
FORWARD = (
    _n / 2 - 2 / 3 * _n**2 + 5 / 16 * _n**3 + 41 / 180 * _n**4,
    13 / 48 * _n**2 - 3 / 5 * _n**3 + 557 / 1440 * _n**4,
    61 / 240 * _n**3 - 103 / 140 * _n**4,
    49561 / 161280 * _n**4,
)
BACKWARD = (
    _n / 2 - 2 / 3 * _n**2 + 37 / 96 * _n**3 - 1 / 360 * _n**4,
    1 / 48 * _n**2 + 1 / 15 * _n**3 - 437 / 1440 * _n**4,
    17 / 480 * _n**3 - 37 / 840 * _n**4,
    4397 / 161280 * _n**4,
)
LATITUDE = (  # from the conformal latitude
    2 * _n - 2 / 3 * _n**2 - 2 * _n**3 + 116 / 45 * _n**4,
    7 / 3 * _n**2 - 8 / 5 * _n**3 - 227 / 45 * _n**4,
    56 / 15 * _n**3 - 136 / 35 * _n**4,
    4279 / 630 * _n**4,
)


def zone_of(latitude: Array, longitude: Array) -> Array:
    """UTM zone (int16) as in `Places.zone`: 1..60 north of the equator, 101..160 south; with Norway's exceptions."""
    latitude, longitude = np.broadcast_arrays(np.asarray(latitude, np.float64), np.asarray(longitude, np.float64))
    east = np.mod(longitude + 180, 360) - 180
    zone = np.floor_divide(east + 180, 6).astype(np.int16) + 1
    zone = np.where((latitude >= 56) & (latitude < 64) & (east >= 3) & (east < 12), 32, zone)
    svalbard = (latitude >= 72) & (latitude < 84) & (east >= 0) & (east < 42)
    zone = np.where(svalbard, 31 + 2 * np.searchsorted([9, 21, 33], east, side="right"), zone)
    return (zone + 100 * (latitude < 0)).astype(np.int16)


def zone_name(zone: int) -> str:
    """What people call a zone of `Places.zone`: "UTM zone 23 south" for 123."""
    return f"UTM zone {zone % 100} {'south' if zone > 100 else 'north'}" if zone > 0 else "a local frame"


def zone_number(zone: int | str) -> int:
    """A zone as in `Places.zone`, of that number or of text such as "23south".

    Raises:
      DataError: for a zone that does not exist.
    """
    found = re.fullmatch(r"(\d{1,3}) ?(north|south)?", str(zone))
    number = int(found[1]) + 100 * (found[2] == "south") if found else 0
    if not (1 <= number <= 60 or 101 <= number <= 160):
        raise DataError(f"there is no UTM zone {zone!r}: expected 1 to 60 with north or south, such as 33north")
    return number


def into_one_zone(zones: Sequence[int] | Array) -> str:
    """What a user can do where images lie in several zones."""
    zone = next((int(zone) for zone in zones if zone > 0), 0)
    option = f"zone={zone_name(zone).removeprefix('UTM zone ').replace(' ', '')}"
    return f"Put them into one zone with {option_of('folder', option)}"


def to_utm(
    latitude: Array, longitude: Array, zone: Array | int | None = None, names: Sequence[str] | None = None
) -> tuple[Array, Array, Array]:
    """Projects degrees (WGS84) to UTM.

    Args:
      latitude, longitude: degrees, [rows].
      zone: one zone (or one per row) to project to, as in `Places.zone`; None takes each row's own.
      names: what an error calls the rows; by default their numbers.

    Returns:
      east, north float64 [rows] in metres, zone int16 [rows].

    Raises:
      DataError: a latitude outside ±84 or a longitude outside ±360, or one more than 30 degrees from the zone's middle.
    """
    latitude, longitude = np.broadcast_arrays(np.asarray(latitude, np.float64), np.asarray(longitude, np.float64))
    wrong = np.flatnonzero(~((np.abs(latitude) <= 84) & (np.abs(longitude) <= 360)))
    if len(wrong):
        row = int(wrong[0])
        raise DataError(
            f"latitude {latitude.flat[row]}, longitude {longitude.flat[row]} ({_name(row, names)}) cannot be projected "
            "to UTM: expected degrees within ±84 and ±360. Are the two exchanged?"
        )
    zone = zone_of(latitude, longitude) if zone is None else np.broadcast_to(np.int16(zone), latitude.shape)
    away = np.mod(longitude - _middle(zone) + 180, 360) - 180
    if (np.abs(away) > 30).any():
        row = int(np.argmax(np.abs(away)))
        raise DataError(
            f"longitude {longitude.flat[row]} ({_name(row, names)}) is {away.flat[row]:.0f} degrees off "
            f"{zone_name(int(zone.flat[row]))}; leave the zone open, or give the one that the data lie in"
        )
    phi, lam = np.radians(latitude), np.radians(away)
    sine = np.sin(phi)
    conformal = np.sinh(np.arctanh(sine) - ECCENTRICITY * np.arctanh(ECCENTRICITY * sine))
    xi, eta = np.arctan2(conformal, np.cos(lam)), np.arctanh(np.sin(lam) / np.hypot(1, conformal))
    up, right = xi.copy(), eta.copy()
    for j, a in enumerate(FORWARD, 1):
        up += a * np.sin(2 * j * xi) * np.cosh(2 * j * eta)
        right += a * np.cos(2 * j * xi) * np.sinh(2 * j * eta)
    north = SCALE * RADIUS * up + np.where(zone > 100, FALSE_NORTH, 0.0)
    return FALSE_EAST + SCALE * RADIUS * right, north, zone.astype(np.int16)


def _name(row: int, names: Sequence[str] | None) -> str:
    return f"row {row}" if names is None else names[row]


def from_utm(east: Array, north: Array, zone: Array | int) -> tuple[Array, Array]:
    """Latitude and longitude in degrees (WGS84) of UTM metres; `zone` as in `Places.zone`, one or one per row.

    Metres beyond half the Earth's circumference are nowhere: NaN.

    Raises:
      DataError: for rows in a local frame (zone -1), which have no place on Earth.
    """
    zone = np.asarray(zone, np.int16)
    if (zone < 1).any():
        raise DataError("rows of a local frame (zone -1) have no latitude and longitude; only UTM positions do")
    xi = (np.asarray(north, np.float64) - np.where(zone > 100, FALSE_NORTH, 0.0)) / (SCALE * RADIUS)
    eta = (np.asarray(east, np.float64) - FALSE_EAST) / (SCALE * RADIUS)
    beyond = (np.abs(eta) > np.pi) | (np.abs(xi) > np.pi)  # half around the Earth, where the series ends
    xi, eta = np.where(beyond, np.nan, xi), np.where(beyond, np.nan, eta)
    up, right = xi.copy(), eta.copy()
    for j, b in enumerate(BACKWARD, 1):
        up -= b * np.sin(2 * j * xi) * np.cosh(2 * j * eta)
        right -= b * np.cos(2 * j * xi) * np.sinh(2 * j * eta)
    chi = np.arcsin(np.sin(up) / np.cosh(right))
    phi = chi + sum(d * np.sin(2 * j * chi) for j, d in enumerate(LATITUDE, 1))
    longitude = _middle(zone) + np.degrees(np.arctan2(np.sinh(right), np.cos(up)))
    return np.degrees(phi), np.mod(longitude + 180, 360) - 180


def wrapped(degrees: Array) -> Array:
    """Headings (float32) in [0, 360); what float32 rounds up to 360 is 0."""
    reduced = np.mod(degrees, 360).astype(np.float32)
    return np.where(reduced == 360, np.float32(0), reduced)


def turn(heading: Array, other: Array) -> Array:
    """Degrees in [0, 180] between two headings: 359 and 1 differ by 2."""
    degrees = np.abs(heading - other) % 360
    return np.minimum(degrees, 360 - degrees)


def _middle(zone: Array) -> Array:
    """Longitude in degrees of a zone's central meridian."""
    return 6.0 * np.mod(zone, 100) - 183
