"""Conditions as sets: an image may be taken at night and in winter."""

import numpy as np
import pytest

from data_pipelines.audit import audit, line
from data_pipelines.conditions import condition_bits
from data_pipelines.errors import DataError
from data_pipelines.places import Paths, Places

# Bits by hand: day 1, night 2, winter 4.
SETS = [1, 2, 6, 0, 5, 4]


def table(bits=SETS, conditions=("day", "night", "winter"), **columns):
    return Places.create(
        "some", Paths.of(str(k) for k in range(len(bits))), condition=bits, conditions=conditions, **columns
    )


def test_an_image_has_every_condition_of_its_set():
    places = table()
    assert places.condition.dtype == np.int64
    assert places.having("night").tolist() == [False, True, True, False, False, False]
    assert places.having("winter").tolist() == [False, False, True, False, True, True]
    assert places.having("day", "night").tolist() == [True, True, True, False, True, False], "any of them"
    assert not places.having().any()
    assert [places.conditions_of(row) for row in (0, 2, 3)] == [("day",), ("night", "winter"), ()]


def test_images_of_any_of_some_conditions_are_kept():
    places = table(role=[0, 1, 1, 1, 1, 0])
    assert list(places.only(conditions=("night", "winter")).path) == ["1", "2", "4", "5"]
    assert list(places.only(conditions=("night", "winter"), role="query").path) == ["1", "2", "4"]
    assert list(places.select(condition="winter", role="query").path) == ["2", "4"]
    with pytest.raises(DataError, match=r"some.*none of 6 images.*'database'.*\['night'\].*has 2.*'winter': 1"):
        places.only(conditions=("night",), role="database")
    with pytest.raises(DataError, match=r"some.*condition.*'fog'.*\['day', 'night', 'winter'\]"):
        places.having("day", "fog")


def test_joined_tables_keep_every_set():
    """By hand: of (day, night, winter, rain) the sets of the second, (rain, night), are 8 and 2."""
    both = Places.concat([table([6, 1]), table([3, 1, 0], ("rain", "night"))])
    assert both.conditions == ("day", "night", "winter", "rain") and both.condition.tolist() == [6, 1, 10, 8, 0]
    assert both.take(np.array([2, 0])).condition.tolist() == [10, 6]


def test_an_image_counts_for_each_of_its_conditions():
    assert audit(table())["conditions"] == {"-": 1, "day": 2, "night": 2, "winter": 3}
    assert audit(table())["unknown"] == {"condition": 1}
    assert line(table([1, 6])).endswith("day 1, night 1, winter 1")
    assert "condition" in audit(table([0, 0]))["absent"]


def test_there_are_at_most_63_conditions():
    names = [f"c{k}" for k in range(64)]
    places = table([1 << 62, (1 << 63) - 1], names[:63])
    assert places.having("c62").tolist() == [True, True] and places.having("c0").tolist() == [False, True]
    with pytest.raises(DataError, match=r"some.*\b63\b.*\b64\b.*'c0'"):
        table([1], names)
    with pytest.raises(DataError, match=r"joined.*\b63\b.*\b64\b"):
        Places.concat([places, table([1], names[63:])], "joined")
    with pytest.raises(DataError, match=r"some.*\['day'\] twice"):
        table([1], ("day", "night", "day"))


def test_indices_are_not_taken_for_sets():
    assert condition_bits([0, -1, 2, 62]).tolist() == [1, 0, 4, 1 << 62]
    for wrong in ([-1, 0], [8, 0]):
        with pytest.raises(DataError, match=r"some.*condition holds.*\b0 to 7\b.*condition_bits"):
            table([*wrong])
