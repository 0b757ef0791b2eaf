"""Boxes of latitude and longitude, and directions of view."""

import numpy as np
import pytest

from data_pipelines import geo, parts, readers
from data_pipelines.errors import DataError
from data_pipelines.places import Paths, Places


def at(latitude, longitude, heading=np.nan) -> Places:
    east, north, zone = geo.to_utm(np.array(latitude, float), np.array(longitude, float))
    names = [f"{number}.jpg" for number in range(len(east))]
    return Places.create("world", Paths.of(names), east=east, north=north, zone=zone, heading=heading)


def left(images: Places) -> list[str]:
    return [images.path[row] for row in range(len(images))]


def test_images_of_a_box_in_degrees():
    images = at([37.7, 37.76, 37.76, 37.8], [-122.45, -122.45, -122.40, -122.45])
    assert left(parts.in_box(images, (37.75, -122.5, 37.79, -122.42))) == ["1.jpg"]
    assert left(parts.in_box(images, (37.75, -122.5, 37.79, -122.3))) == ["1.jpg", "2.jpg"]


def test_a_box_across_the_180th_meridian():
    images = at([-17, -17, -17], [179, -179, 100])
    for box in ((-20, 178, -10, -178), (-20, 178, -10, 182)):
        assert left(parts.in_box(images, box)) == ["0.jpg", "1.jpg"]
    assert len(parts.in_box(images, (-20, -180, -10, 180))) == 3, "all the way round"


@pytest.mark.parametrize("box", [(1, 2, 3), (3, 0, 1, 9), (-91, 0, 1, 9), (0, "a", 1, 9), (0, 5, 9, 5), "home", 4])
def test_what_is_no_box(box):
    with pytest.raises(DataError, match=r"world: box=.* must be \(south, west, north, east\) in degrees"):
        parts.in_box(at([1], [2]), box)


def test_a_box_without_images_tells_where_they_are():
    with pytest.raises(DataError, match=r"none of 2 images lies in box=\(10, 0, 20, 9\).*1\.00000 to 2\.00000 and"):
        parts.in_box(at([1, 2], [3, 4]), (10, 0, 20, 9))
    local = Places.create("mall", Paths.of(["a.jpg"]), east=1.0, north=2.0)
    with pytest.raises(DataError, match=r"mall: box=\(0, 0, 1, 1\) is in degrees, and no image has any.*within="):
        parts.in_box(local, (0, 0, 1, 1))


def test_images_of_one_heading():
    images = at(np.zeros(6), np.zeros(6), [0, 345, 344.9, 15, 15.1, np.nan])
    assert left(parts.looking(images, 0)) == ["0.jpg", "1.jpg", "3.jpg"]
    assert left(parts.looking(images, 360, 16)) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"]
    assert left(parts.looking(images, 345, 0)) == ["1.jpg"]
    assert len(parts.looking(images, -15, 180)) == 5, "what has no heading looks nowhere"


def test_nobody_looks_there():
    with pytest.raises(DataError, match=r"none of 3 images looks at heading=180, 15 deg.* 0 to 30: 2, 90 to 120: 1"):
        parts.looking(at(np.zeros(3), np.zeros(3), [0, 29, 90]), 180)
    with pytest.raises(DataError, match="none has a heading"):
        parts.looking(at([0], [0]), 180)
    for heading, turn in ((float("nan"), 15), ("east", 15), (0, -1), (0, 181)):
        with pytest.raises(DataError, match="clockwise from north"):
            parts.looking(at([0], [0]), heading, turn)


def test_every_reader_has_them(tmp_path):
    (tmp_path / "poses.csv").write_text("path,lat,lon,heading\na.jpg,1,2,90\nb.jpg,1,2,270\nc.jpg,5,2,90\n")
    for name in "abc":
        (tmp_path / f"{name}.jpg").write_bytes(b"")
    images = readers.read("csv", tmp_path, box=(0, 0, 3, 3), heading=90, turn=5)
    assert len(images) == 1 and images.heading.tolist() == [90]
    readers.check_options("csv", {"box": (0, 0, 1, 1), "heading": 90.0, "turn": 5.0})
