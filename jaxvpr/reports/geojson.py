"""A track as GeoJSON (RFC 7946), which every program of maps shows."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any


def track(points: Sequence[Mapping[str, Any]], latitude: Sequence[float], longitude: Sequence[float]) -> str:
    """A FeatureCollection: the line through all points that have a place, and each of these points.

    Args:
      points: properties of each point. Bytes of a file's name that are no text become question marks.
      latitude, longitude: of each, degrees (WGS84); NaN where unknown: the point is left out. Two make a line.
    """
    known = [row for row in range(len(points)) if math.isfinite(latitude[row]) and math.isfinite(longitude[row])]
    places = [[round(longitude[row], 7), round(latitude[row], 7)] for row in known]  # a centimetre
    line = [_feature("LineString", places, {"frames": len(places)})] if len(places) > 1 else []
    dots = [_feature("Point", at, points[row]) for at, row in zip(places, known, strict=True)]
    return json.dumps({"type": "FeatureCollection", "features": line + dots}, allow_nan=False, indent=1)


def points(answers: Sequence[Mapping[str, Any]], latitude: Sequence[float], longitude: Sequence[float]) -> str:
    """A FeatureCollection of points alone; arguments as of `track`."""
    known = [row for row in range(len(answers)) if math.isfinite(latitude[row]) and math.isfinite(longitude[row])]
    found = [_feature("Point", [round(longitude[row], 7), round(latitude[row], 7)], answers[row]) for row in known]
    return json.dumps({"type": "FeatureCollection", "features": found}, allow_nan=False, indent=1)


def _feature(kind: str, coordinates: Any, properties: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: _text(value) if isinstance(value, str) else value for name, value in properties.items()}
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": shown}


def _text(name: str) -> str:
    return os.fsencode(name).decode(errors="replace")
