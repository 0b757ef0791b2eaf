"""UTM against real names, against an exact integral in the complex plane, and as a round trip."""

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import geo
from data_pipelines.errors import DataError

E2 = 0.00669437999014


def exact_utm(latitude, away):
    """East and north (metres) of a northern point `away` degrees from the middle of its zone.

    Transverse Mercator is the meridian's arc length as an analytic function of isometric latitude, carried to complex
    arguments: solve for the complex latitude by Newton steps, then integrate numerically. No series involved.
    """
    e = np.sqrt(E2)

    def isometric(phi):
        return np.arctanh(np.sin(phi)) - e * np.arctanh(e * np.sin(phi))

    target = isometric(np.radians(latitude)) + 1j * np.radians(away)
    phi = np.radians(latitude) + 0j
    for _ in range(30):
        phi -= (isometric(phi) - target) / ((1 - E2) / (1 - E2 * np.sin(phi) ** 2) / np.cos(phi))
    nodes, weights = np.polynomial.legendre.leggauss(60)
    at = phi / 2 * (nodes + 1)
    arc = phi / 2 * (weights * 6378137.0 * (1 - E2) / (1 - E2 * np.sin(at) ** 2) ** 1.5).sum()
    return 500000 + 0.9996 * arc.imag, 0.9996 * arc.real


@settings(deadline=None, max_examples=60)
@given(latitude=st.floats(0, 80), away=st.floats(-5, 5), zone=st.integers(1, 60))
def test_utm_equals_the_exact_projection(latitude, away, zone):
    east, north, zones = geo.to_utm(latitude, zone * 6 - 183 + away, zone)
    assert np.hypot(*(np.array(exact_utm(latitude, away)) - (east, north))) < 1e-5
    assert zones == zone


def haversine(latitude, longitude, latitude2, longitude2):
    """Metres between points in degrees on a sphere, up to 0.5 % off the ellipsoid's."""
    phi, phi2, turn = np.radians(latitude), np.radians(latitude2), np.radians(longitude2 - longitude)
    half = np.sin((phi2 - phi) / 2) ** 2 + np.cos(phi) * np.cos(phi2) * np.sin(turn / 2) ** 2
    return 2 * 6371008.8 * np.arcsin(np.sqrt(half))


@settings(deadline=None)
@given(latitude=st.floats(-79, 83), longitude=st.floats(-180, 180))
def test_there_and_back(latitude, longitude):
    east, north, zone = geo.to_utm(np.array([latitude]), np.array([longitude]))
    back = geo.from_utm(east, north, zone)
    assert haversine(latitude, longitude, back[0], back[1])[0] < 1e-5
    assert 0 <= north[0] <= 1e7 and 1e5 < east[0] < 9e5


def coordinates_of_names(file):
    """Zone, and float [4, rows]: east, north, latitude, longitude as the names say them."""
    with gzip.open(file, "rt") as lines:
        fields = [line.split("@") for line in lines]
    return int(fields[0][3]), np.array([[f[k] for f in fields] for k in (1, 2, 5, 6)], float)


@pytest.mark.parametrize("part", ["queries", "database"])
def test_sf_xs_metres_are_those_of_its_degrees_cut_to_centimetres(real_data, part):
    zone, (east, north, latitude, longitude) = coordinates_of_names(real_data / "sf_xs_val" / f"{part}.txt.gz")
    x, y, zones = geo.to_utm(latitude, longitude)
    assert set(zones) == {zone}
    for rest in (x - east, y - north):
        assert rest.min() > -1e-4 and rest.max() < 0.0101
        assert rest.mean() == pytest.approx(0.005, abs=5e-4)


@pytest.mark.parametrize("city", ["osl", "prg"])
def test_gsv_xs_degrees_are_those_of_its_metres_cut_to_five_places(real_data, city):
    zone, (east, north, latitude, longitude) = coordinates_of_names(real_data / "gsv_xs_names" / f"{city}.txt.gz")
    back = geo.from_utm(east, north, zone)
    for rest in (back[0] - latitude, back[1] - longitude):
        assert rest.min() > -2e-7 and rest.max() < 1.01e-5  # the metres are cut too, to 1 cm (2e-7 degrees here)
        assert rest.mean() == pytest.approx(0.5e-5, abs=0.02e-5)


def test_zones():
    points = {
        (51.5, -0.1): 30, (60.4, 5.3): 32, (59.9, 10.7): 32, (78.2, 15.6): 33, (78, 8.9): 31, (78, 40): 37, (71, 8): 32,
        (-33.9, 151.2): 156, (0, 179.999): 60, (0, 180): 1, (0, -180): 1, (37.7, -122.4): 10, (37.7, 237.6): 10,
    }  # fmt: skip
    assert geo.zone_of(*np.array(list(points)).T).tolist() == list(points.values())


def test_one_zone_can_be_forced():
    latitude, longitude = np.array([50.0, 50.0]), np.array([11.999, 12.001])
    east, north, zone = geo.to_utm(latitude, longitude, 33)
    assert zone.tolist() == [33, 33]
    apart = np.hypot(np.diff(east), np.diff(north))[0]
    assert apart == pytest.approx(haversine(50, 11.999, 50, 12.001), rel=5e-3)
    assert np.abs(np.diff(geo.to_utm(latitude, longitude)[0])) > 400_000  # in their own zones: worlds apart
    south = geo.to_utm(np.array([0.001, -0.001]), np.array([15.0, 15.0]), 133)[1]
    assert south[0] > 1e7 > south[1]


def test_what_cannot_be_projected():
    with pytest.raises(DataError, match=r"latitude 122\.4.*longitude 37\.7.*row 1"):
        geo.to_utm([1, 122.4], [1, 37.7])
    with pytest.raises(DataError, match=r"latitude nan.*\brow 0\b"):
        geo.to_utm(np.array([np.nan]), np.array([0.0]))
    with pytest.raises(DataError, match=r"longitude 100\.0.*row 0.*\b91 degrees.*zone 32"):
        geo.to_utm(50.0, 100.0, 32)
    with pytest.raises(DataError, match="zone -1"):
        geo.from_utm(0.0, 0.0, -1)


def test_metres_beyond_half_the_earth_are_nowhere():
    east, north = np.array([5e5, 2e7, 3e7, 9e8, -9e8, 5e5]), np.array([0, 0, 0, 0, 0, 9e8])
    latitude, longitude = geo.from_utm(east, north, 33)
    assert np.isfinite(latitude).tolist() == np.isfinite(longitude).tolist() == [True, True] + [False] * 4
