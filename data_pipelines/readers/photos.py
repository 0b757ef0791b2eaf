"""A folder of photos whose EXIF data say where and when they were taken."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags

from data_pipelines import geo
from data_pipelines.errors import DataError
from data_pipelines.image_files import ImageError, opened
from data_pipelines.places import ROLES, Paths, Places
from data_pipelines.readers import listing

GPS = ExifTags.GPS


def read(
    root: str | os.PathLike[str],
    *,
    role: str = "database",
    zone: int | None = None,
    without_position: str = "error",
    name: str | None = None,
) -> Places:
    """Reads every photo under `root`: position (projected to UTM), heading of the camera and time, from EXIF.

    Args:
      root: folder of the photos.
      role: of all photos.
      zone: UTM zone to project to (as in `Places.zone`); None takes each photo's own.
      without_position: "error" refuses photos without GPS position, "drop" leaves them out, "keep" leaves theirs
        unknown, also of files that are not images.
      name: of the data set, for reports; the folder's name by default.

    Raises:
      DataError: a missing or empty folder, a file that is not an image, a photo without position (named).
    """
    title = name or Path(root).absolute().name
    return table(title, listing.images(root, others="skip"), role=role, zone=zone, without_position=without_position)


def table(
    name: str, paths: Paths, *, role: str = "database", zone: int | None = None, without_position: str = "error"
) -> Places:
    """As `read`, of photos that are listed already."""
    if without_position not in ("error", "drop", "keep") or role not in ROLES:
        raise DataError(f"{without_position=} is one of error, drop, keep; {role=} is one of {list(ROLES)}")
    facts = [_facts(paths[row], without_position == "keep") for row in range(len(paths))]
    latitude, longitude, heading = np.array([fact[:3] for fact in facts], np.float64).T
    time = np.array([fact[3] for fact in facts], "datetime64[s]")
    known = np.isfinite(latitude) & np.isfinite(longitude)
    if without_position == "error" and not known.all():
        raise DataError(
            f"{paths[int(np.argmin(known))]} and {np.count_nonzero(~known) - 1} more of {len(paths)} photos have no "
            "GPS position in their EXIF data. Leave them out with without_position=drop, or give positions in a CSV."
        )
    east, north, zones = np.full(len(paths), np.nan), np.full(len(paths), np.nan), np.full(len(paths), -1, np.int16)
    east[known], north[known], zones[known] = geo.to_utm(latitude[known], longitude[known], zone)
    columns: dict[str, Any] = {"heading": geo.wrapped(heading), "time": time, "role": ROLES.index(role)}
    places = Places.create(name, paths, east=east, north=north, zone=zones, **columns)
    return places.take(known) if without_position == "drop" else places


def _facts(path: str, lenient: bool) -> tuple[float, float, float, np.datetime64]:
    """Latitude, longitude and heading in degrees (NaN where unknown) and time of one photo.

    If `lenient`, a file that is not an image has no facts: decoding it later names it or skips it.
    """
    try:
        with opened(path) as image:
            exif = image.getexif()
            gps, details = exif.get_ifd(ExifTags.IFD.GPSInfo), exif.get_ifd(ExifTags.IFD.Exif)
    except ImageError:
        if lenient:
            return np.nan, np.nan, np.nan, np.datetime64("NaT", "s")
        raise
    latitude = _degrees(gps.get(GPS.GPSLatitude), gps.get(GPS.GPSLatitudeRef), "S")
    longitude = _degrees(gps.get(GPS.GPSLongitude), gps.get(GPS.GPSLongitudeRef), "W")
    heading = _number(gps.get(GPS.GPSImgDirection))
    return (
        latitude,
        longitude,
        heading,
        _time(details.get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime)),
    )


def _degrees(parts, side, negative: str) -> float:
    """Degrees of (degrees, minutes, seconds); NaN where they are missing or broken."""
    try:
        degrees, minutes, seconds = (_number(part) for part in parts)
    except (TypeError, ValueError):
        return np.nan
    value = degrees + minutes / 60 + seconds / 3600
    return -value if str(side).upper().startswith(negative) else value


def _number(value) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return np.nan


def _time(text) -> np.datetime64:
    try:
        return np.datetime64(datetime.datetime.strptime(str(text).strip("\0 "), "%Y:%m:%d %H:%M:%S"), "s")
    except ValueError:
        return np.datetime64("NaT", "s")
