"""A folder of photos whose EXIF data say where and when they were taken."""

from __future__ import annotations

import datetime
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image

from data_pipelines import geo
from data_pipelines.errors import DataError, option_of
from data_pipelines.image_files import ImageError, opened
from data_pipelines.places import ROLES, Paths, Places, index_of
from data_pipelines.readers import listing

GPS = ExifTags.GPS
LAST_OF_UTM = 84.0  # degrees of latitude
MOST_HEADING = 720.0  # degrees; what lies beyond is no heading


def read(
    root: str | os.PathLike[str],
    *,
    role: str = "database",
    without_position: str = "error",
    name: str | None = None,
) -> Places:
    """Reads every photo under `root`: position (projected to its UTM zone), heading of the camera and time, from EXIF.

    What EXIF does not say is unknown. So is a latitude without N or S or a longitude without E or W, unless it is
    negative; one whose sign contradicts its letter; degrees, minutes or seconds that do not exist; 0, 0 (of cameras
    without a fix); a latitude beyond ±84, where UTM ends; and a heading that does not refer to true north.

    Args:
      root: folder of the photos.
      role: of all photos.
      without_position: "error" refuses photos without GPS position, "drop" leaves them out, "keep" leaves theirs
        unknown, also of files that are not images.
      name: of the data set, for reports; the folder's name by default.

    Raises:
      DataError: a missing or empty folder, a file that is not an image, a photo without position (named).
    """
    title = name or Path(root).absolute().name
    return table(title, listing.images(root, others="skip"), role=role, without_position=without_position)


def table(name: str, paths: Paths, *, role: str = "database", without_position: str = "error") -> Places:
    """As `read`, of photos that are listed already."""
    listing.check_choice("without_position", without_position, listing.WITHOUT_POSITION)
    index_of("role", role, ROLES)
    found = [_facts(paths[row], without_position == "keep") for row in range(len(paths))]
    latitude, longitude, heading = np.array([fact[:3] for fact in found], np.float64).reshape(-1, 3).T
    known = np.isfinite(latitude)
    east, north, zones = np.full(len(paths), np.nan), np.full(len(paths), np.nan), np.full(len(paths), -1, np.int16)
    east[known], north[known], zones[known] = geo.to_utm(latitude[known], longitude[known])
    time = np.array([fact.time for fact in found], "datetime64[s]")
    columns: dict[str, Any] = {"heading": geo.wrapped(heading), "time": time, "role": ROLES.index(role)}
    places = Places.create(name, paths, east=east, north=north, zone=zones, **columns)
    if without_position == "error" and not known.all():
        raise DataError(
            f"{places.unlocated()} in EXIF ({found[int(np.argmin(known))].why}). Leave such photos out with "
            f"{option_of('photos', 'without_position=drop')}, or give positions in a CSV"
        )
    return places.take(known) if without_position == "drop" else places


class Facts(NamedTuple):
    """What EXIF says of one photo: degrees, NaN where unknown, and why the position is unknown."""

    latitude: float = np.nan
    longitude: float = np.nan
    heading: float = np.nan
    time: np.datetime64 = np.datetime64("NaT", "s")
    why: str = "not an image"


def _facts(path: str, lenient: bool) -> Facts:
    """What EXIF says of one photo.

    If `lenient`, a file that is not an image has no facts: decoding it later names it or skips it.
    """
    try:
        with warnings.catch_warnings(action="ignore"), opened(path) as image:  # opening reads EXIF, too
            blocks = _exif(image)
    except ImageError:
        if lenient:
            return Facts()
        raise
    return facts(*blocks)


def _exif(image: Image.Image) -> tuple[Mapping, Mapping, Mapping]:
    """The main block of EXIF, that of GPS and that of the exposure; empty where they are damaged."""
    try:
        main = image.getexif()
        return main, main.get_ifd(ExifTags.IFD.GPSInfo), main.get_ifd(ExifTags.IFD.Exif)
    except Exception:  # Pillow raises whatever its parser meets in damaged bytes: struct.error, KeyError, SyntaxError
        return {}, {}, {}


def facts(main: Mapping, gps: Mapping, details: Mapping) -> Facts:
    """What the blocks of EXIF say, by number of tag; see `read` for what is unknown."""
    latitude, why = _degrees(gps, GPS.GPSLatitude, GPS.GPSLatitudeRef, "NS", LAST_OF_UTM)
    longitude, of_longitude = _degrees(gps, GPS.GPSLongitude, GPS.GPSLongitudeRef, "EW", 180)
    why = why or of_longitude or "0, 0 is that of a camera without a fix" * (latitude == longitude == 0)
    if why:
        latitude = longitude = np.nan
    heading = _number(gps.get(GPS.GPSImgDirection))
    true_north = _letter(gps.get(GPS.GPSImgDirectionRef)) == "T" and abs(heading) <= MOST_HEADING
    time = _time(details.get(ExifTags.Base.DateTimeOriginal) or main.get(ExifTags.Base.DateTime))
    return Facts(latitude, longitude, heading if true_north else np.nan, time, why)


def _degrees(gps: Mapping, tag: ExifTags.GPS, ref: ExifTags.GPS, letters: str, most: float) -> tuple[float, str]:
    """Degrees, negative for the second of `letters`, and why they are unknown: "" where they are known."""
    what = tag.name
    try:
        parts = [_number(part) for part in gps[tag]]
        degrees, minutes, seconds = map(abs, parts)
    except (KeyError, TypeError, ValueError):
        return np.nan, f"there is no {what}" if tag not in gps else f"{what} is no degrees, minutes, seconds"
    negative, letter = any(part < 0 for part in parts), _letter(gps.get(ref))
    value = degrees + minutes / 60 + seconds / 3600
    if not (value <= most and minutes <= 60 and seconds <= 60):
        return np.nan, f"{what} is {value:g}, expected degrees within ±{most:g} and minutes and seconds within 60"
    if letter not in list(letters) and not (negative and not letter):
        return np.nan, f"{what} has no {' or '.join(letters)} beside it"
    if negative and letter == letters[0]:
        return np.nan, f"{what} is negative, and {letter} beside it"
    return (-value if negative or letter == letters[1] else value), ""


def _letter(text: Any) -> str:
    """The first letter of a reference such as "N", in capitals; "" where there is none."""
    return (text if isinstance(text, str) else "").strip("\0 ")[:1].upper()


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
