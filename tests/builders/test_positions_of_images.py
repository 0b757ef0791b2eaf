"""Positions of images, the area around them, and what of them a head learns."""

import logging

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import common
from data_pipelines import geo
from data_pipelines.errors import DataError
from data_pipelines.places import Paths, Places
from jaxvpr import builders
from jaxvpr.errors import UserError
from jaxvpr.models.positions import Area


def local(north, east, heading=np.nan) -> Places:
    """Images in a frame of their own."""
    names = [f"{number}.jpg" for number in range(len(north))]
    return Places.create("mall", Paths.of(names), north=north, east=east, heading=heading)


def recipe(position="direct", **options) -> ConfigDict:
    config = common.base().unlock()
    config.model.backbone, config.image.size = "resnet_small", (32, 32)
    config.model.position, config.model.position_options = position, ConfigDict(options)
    return config


def test_degrees_of_images_in_several_zones():
    latitude, longitude = np.array([37.76, -33.9, 45.1]), np.array([-122.43, 18.4, 6.0])
    east, north, zone = geo.to_utm(latitude, longitude)
    images = Places.create("world", Paths.of("abc"), east=east, north=north, zone=zone, heading=[0, 359.5, np.nan])
    at = builders.positions(images)
    assert len(np.unique(zone)) == 3 and not at.metres
    np.testing.assert_allclose([at.north, at.east], [latitude, longitude], atol=1e-9)
    np.testing.assert_array_equal(at.bearing, [0, 359.5, np.nan])


def test_metres_of_a_frame_of_its_own():
    at = builders.positions(local([5.0, 6.0], [7.0, 9.0]))
    assert at.metres and at.north.tolist() == [5, 6] and at.east.tolist() == [7, 9]


def test_positions_that_are_none_or_of_two_kinds():
    with pytest.raises(DataError, match=r"mall: 1 of 2 images have no position \(first: 1\.jpg\).*Leave these"):
        builders.positions(local([5.0, np.nan], [7.0, 9.0]))
    mixed = Places.create("both", Paths.of("ab"), east=[3e5, 1.0], north=[5e6, 1.0], zone=[33, -1])
    with pytest.raises(DataError, match=r"both: a has a UTM zone and b has none"):
        builders.positions(mixed)


def test_the_area_around_images_has_a_margin():
    """A hundredth of 100 m and of 200 m; of a line a hundredth of its length, so that it has a width."""
    assert builders.area_around(builders.positions(local([0.0, 100], [50.0, 250]))) == (-1.0, 48.0, 101.0, 252.0)
    assert builders.area_around(builders.positions(local([0.0, 0], [50.0, 250]))) == (-2.0, 48.0, 2.0, 252.0)
    with pytest.raises(DataError, match="all images lie at one point"):
        builders.area_around(builders.positions(local([1.0, 1], [2.0, 2])))


def test_an_area_across_the_180th_meridian():
    east, north, zone = geo.to_utm(np.array([-17.0, -17.0]), np.array([179.0, -179.0]))
    images = Places.create("fiji", Paths.of("ab"), east=east, north=north, zone=zone)
    south, west, north, east = builders.area_around(builders.positions(images))
    np.testing.assert_allclose([west, east], [178.98, 181.02], atol=1e-6)
    at = builders.normalised(Area(south, west, north, east), builders.positions(images))
    np.testing.assert_allclose(at[:, 1], [0.02 / 2.04, 2.02 / 2.04], atol=1e-5)


def test_images_outside_a_given_area_are_counted_and_not_learned(caplog):
    images = local([10.0, 50, 500], [10.0, 90, 10], [0.0, 90, 180])
    config = recipe(area=(0.0, 0.0, 100.0, 100.0), metres=True)
    with caplog.at_level(logging.WARNING):
        rows, at = builders.to_learn(config, images)
    assert "mall: 1 of 3 images lie outside model.position_options.area" in caplog.text
    assert rows.tolist() == [0, 1] and at.dtype == np.float32
    np.testing.assert_allclose(at, [[0.1, 0.1, 0], [0.5, 0.9, 0.25]], rtol=1e-6)


def test_what_cannot_be_learned():
    images = local([10.0, 50], [10.0, 90])
    with pytest.raises(UserError, match=r"area is not chosen.* \(9\.6, 9\.2, 50\.4, 90\.8\)"):
        builders.to_learn(recipe(metres=True), images)
    with pytest.raises(DataError, match=r"none of 2 images lies in .*area=\(0\.0, 0\.0, 9\.0, 9\.0\)"):
        builders.to_learn(recipe(area=(0.0, 0.0, 9.0, 9.0), metres=True, bearing=False), images)
    with pytest.raises(DataError, match="positions in metres, and the area that the head answers in has degrees"):
        builders.to_learn(recipe(area=(0.0, 0.0, 9.0, 9.0)), images)
    with pytest.raises(UserError, match=r"config\.model\.position='' is a model of descriptors alone"):
        builders.to_learn(recipe(""), images)


def test_bearings_that_nobody_knows(caplog):
    area = {"area": (0.0, 0.0, 100.0, 100.0), "metres": True}
    blind = local([10.0, 50], [10.0, 90])
    with pytest.raises(DataError, match=r"no image has a heading.*position_options\.bearing=false"):
        builders.to_learn(recipe(**area), blind)
    assert len(builders.to_learn(recipe(bearing=False, **area), blind)[0]) == 2
    with caplog.at_level(logging.WARNING):
        _, at = builders.to_learn(recipe(**area), local([10.0, 50], [10.0, 90], [np.nan, 90]))
    assert "1 images have no heading" in caplog.text and np.isnan(at[0, 2]) and at[1, 2] == 0.25
