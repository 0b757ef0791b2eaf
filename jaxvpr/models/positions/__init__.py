"""Positions from descriptors: areas and distances, codings of positions as numbers, and the heads that say them.

Direct regression, hypersphere, cells and soft cells are those of F. Gaza's thesis ("Implicit Neural Representation in
Visual Place Recognition", Politecnico di Torino, 2025), called Gaza in the modules.
"""

from jaxvpr.models.positions.cells import Cells, CellTarget, HeadBytes, head_bytes
from jaxvpr.models.positions.codings import Coding, Direct, Hypersphere, Located, answers, located
from jaxvpr.models.positions.coordinates import EARTH, Area, area, haversine, metres_apart, metres_between
from jaxvpr.models.positions.gallery import Filled, Gallery, equal_earth
from jaxvpr.models.positions.geoclip import GeoCLIP, coding_with, with_gallery
from jaxvpr.models.positions.heads import CODINGS, OWN_HEADS, POSITIONS, PositionHead
from jaxvpr.models.positions.mixture import Hypotheses, Mixture

__all__ = [
    "CODINGS",
    "EARTH",
    "OWN_HEADS",
    "POSITIONS",
    "Area",
    "CellTarget",
    "Cells",
    "Coding",
    "Direct",
    "Filled",
    "Gallery",
    "GeoCLIP",
    "HeadBytes",
    "Hypersphere",
    "Hypotheses",
    "Located",
    "Mixture",
    "PositionHead",
    "answers",
    "area",
    "coding_with",
    "equal_earth",
    "haversine",
    "head_bytes",
    "located",
    "metres_apart",
    "metres_between",
    "with_gallery",
]
