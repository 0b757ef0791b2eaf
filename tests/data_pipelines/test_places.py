# ruff: noqa: PTH118 (os.path.join is the independent way to say what a whole path is)
"""The table itself: paths in a blob, columns, selection, joining, zones; and the audit of one."""

import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import answers
from data_pipelines.audit import audit, line
from data_pipelines.errors import DataError
from data_pipelines.places import Paths, Places

names = st.lists(
    st.text(st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), max_size=6), max_size=12
)


@settings(deadline=None)
@given(names=names, data=st.data())
def test_paths_are_a_sequence_of_strings(names, data):
    paths = Paths.of(names, "root")
    assert [paths.relative(i) for i in range(len(paths))] == names
    assert list(paths) == [os.path.join("root", n) for n in names]
    rows = data.draw(st.lists(st.integers(-len(names), len(names) - 1), max_size=20)) if names else []
    assert [paths.take(np.array(rows, int)).relative(i) for i in range(len(rows))] == [names[r] for r in rows]
    with pytest.raises(IndexError, match=rf"\brow {len(names)}\b.*\b{len(names)} paths"):
        paths.relative(len(names))


def test_take_crosses_its_chunks(monkeypatch):
    monkeypatch.setattr(answers, "AT_ONCE", 3)
    names = [f"{'x' * k}{k}" for k in range(11)]
    rows = np.random.default_rng(0).permutation(np.repeat(np.arange(11), 2))
    taken = Paths.of(names).take(rows)
    assert list(taken) == [names[r] for r in rows]


@settings(deadline=None)
@given(first=names, second=names)
def test_concat_keeps_whole_paths(first, second):
    a, b = Paths.of([f"a{n}" for n in first], "/data/one"), Paths.of([f"b{n}" for n in second], "/data/two/deep")
    both = Paths.concat([a, b])
    assert list(both) == list(a) + list(b)
    assert both.root == ("/data" if a.root != b.root else a.root)


def test_concat_keeps_absolute_paths_too():
    both = Paths.concat([Paths.of(["/else/where.jpg"], "/data/one"), Paths.of(["b.jpg"], "/data/two")])
    assert [os.path.normpath(p) for p in both] == ["/else/where.jpg", "/data/two/b.jpg"]


def table(n=4, **columns):
    return Places.create("some", Paths.of([f"{k}.jpg" for k in range(n)], "r"), **columns)


def test_columns_that_are_not_given_are_unknown():
    places = table(east=[1, 2, 3, 4], zone=32)
    assert places.east.dtype == np.float64 and places.zone.tolist() == [32] * 4
    assert np.isnan(places.heading).all() and np.isnat(places.time).all() and (places.place == -1).all()
    assert places.view.dtype == np.int8 and (places.view == -1).all()
    with pytest.raises(DataError, match=r"column.*\['easting'\]"):
        table(easting=1)
    with pytest.raises(DataError, match=r"\beast\b.*\(3,\).*\b4 paths"):
        table(east=[1, 2, 3])


def test_select_and_concat_join_the_conditions():
    a = table(condition=[1, 2, 0, 1], conditions=("day", "snow"), split=[0, 1, 2, -1], role=[0, 1, 0, 1], view=2)
    b = table(2, condition=[1, 2], conditions=("snow", "fog"), split=2, view=[0, -1])
    both = Places.concat([a, b], "both")
    assert both.conditions == ("day", "snow", "fog") and both.name == "both"
    assert [both.conditions_of(row) for row in range(6)] == [("day",), ("snow",), (), ("day",), ("snow",), ("fog",)]
    assert both.view.tolist() == [2, 2, 2, 2, 0, -1] and both.view.dtype == np.int8
    assert both.select(condition="snow").view.tolist() == [2, 0] and both.take(np.array([5, 0])).view.tolist() == [
        -1,
        2,
    ]
    assert both.select(condition="snow").path.relative(1) == "0.jpg"
    assert len(both.select(split="test", role="database")) == 1
    assert list(a.take(np.array([False, True, False, True])).path) == [os.path.join("r", p) for p in ("1.jpg", "3.jpg")]
    with pytest.raises(DataError, match=r"some.*condition.*'fog'.*\['day', 'snow'\]"):
        a.select(condition="fog")


def test_mixed_zones_are_refused_with_a_file_of_each():
    assert table(zone=32, east=0, north=0).single_zone() == 32 and table().single_zone() == -1
    with pytest.raises(DataError, match=r"\b2 UTM zones.*UTM zone 32 north: r/0\.jpg.*UTM zone 33 south: r/2\.jpg"):
        table(zone=[32, 32, 133, 133], east=0, north=0).single_zone()
    one = table(zone=[32, -1, 32, -1], east=[0, np.nan, 0, 1], north=[0, 1, 2, np.nan])
    assert one.single_zone() == 32 and one.unlocated() == "r/1.jpg and 1 more of 4 images have no coordinates"


def test_a_position_is_on_earth():
    with pytest.raises(DataError, match=r"r/2\.jpg: east 0, north 1e\+30\b.*±1e\+09"):
        table(east=0, north=[0, np.nan, 1e30, np.inf])


def test_audit_by_hand():
    places = table(
        5,
        east=[0, 10, np.nan, 500, 520],
        north=[0, 4, 7, 1, 1],
        zone=[33, 33, 33, 133, 133],
        heading=[0, 90, np.nan, np.nan, 1],
        place=[7, 7, 9, -1, 7],
        split=[0, 0, 2, 2, -1],
        role=[0, 0, 0, 1, -1],
        time=np.array(["2019-01-02", "NaT", "2021-05-06", "2018-01-01", "NaT"], "datetime64[s]"),
        condition=[1, 2, 2, 0, 2],
        conditions=("day", "night"),
    )
    summary = audit(places)
    assert json.loads(json.dumps(summary)) == summary
    assert summary == {
        "name": "some",
        "images": 5,
        "counts": {"-": {"-": 1}, "train": {"database": 2}, "test": {"database": 1, "query": 1}},
        "conditions": {"-": 1, "day": 1, "night": 3},
        "zones": {"33N": 3, "33S": 2},
        "extent_metres": {"33N": [10.0, 4.0], "33S": [20.0, 0.0]},
        "unknown": {"east": 1, "heading": 2, "place": 1, "time": 2, "condition": 1},
        "absent": ["sequence", "frame", "view"],
        "places": {"number": 2, "images_min_median_max": [1, 2.0, 3]},
        "time": ["2018-01-01T00:00:00", "2021-05-06T00:00:00"],
    }
    assert audit(table())["places"] == {"number": 0} and audit(table())["zones"] == {"local": 4}


def test_audit_line_names_what_is_there_and_what_lacks():
    paths = Paths.of([f"{i}.jpg" for i in range(4)])
    east, heading = [0.0, 30.0, 10.0, 5.0], [0.0, np.nan, np.nan, 90.0]
    places = Places.create(
        "town", paths, east=east, north=[0.0, 0.0, 20.0, 1.0], zone=133, heading=heading,
        condition=[1, 1, 2, 0], conditions=["day", "snow"],
    )  # fmt: skip
    assert line(places) == ("town: 4 images, 30 x 20 m in 33S, day 2, snow 1, 2 without heading, 1 without condition")
