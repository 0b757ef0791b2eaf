"""Digests name what they should, and impossible settings are told to the user."""

from dataclasses import fields, replace

import pytest

from data_pipelines.errors import DataError
from data_pipelines.minicity import CityConfig

OTHER = {
    "seed": 1, "name": "elsewhere", "style": "modern", "blocks": 3, "size": 96, "fov": 75.0, "conditions": ("day",),
    "train_years": (2015,), "database_year": 2015, "query_years": (2018,), "val_database_year": 2014,
    "val_query_years": (2016,), "train_spacing": 6.0, "database_spacing": 8.0, "val_spacing": 12.0, "headings": 8,
    "test_queries": 10, "val_queries": 10, "query_shift": 1.0, "query_turn": 5.0, "quality": 70, "panoramas": True,
}  # fmt: skip
TRAIN_ONLY = {
    "train_years", "train_spacing", "val_database_year", "val_query_years", "val_spacing", "val_queries", "panoramas",
}  # fmt: skip


def test_every_field_moves_the_digest_and_only_the_tests_own_fields_move_the_test_digest():
    base = CityConfig()
    assert {f.name for f in fields(CityConfig)} == set(OTHER)
    for field, value in OTHER.items():
        changed = replace(base, **{field: value})
        assert changed.digest() != base.digest(), field
        assert (changed.test_digest() == base.test_digest()) == (field in TRAIN_ONLY), field


def test_digest_does_not_depend_on_lists_or_tuples():
    assert CityConfig(query_years=[2018, 2019]).digest() == CityConfig().digest()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"style": "baroque"}, "old_town"),
        ({"blocks": 0}, "blocks"),
        ({"conditions": ("day", "hail")}, "snow"),
        ({"headings": 0}, "headings"),
        ({"query_years": ()}, "years"),
        ({"name": "a@b"}, "name"),
        ({"train_spacing": 0.0}, "spacing"),
    ],
)
def test_impossible_settings_are_named(settings, message):
    with pytest.raises(DataError, match=message):
        CityConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"block": 3}, r"no setting \['block'\]; it has \['seed'"),
        ({"blocks": "3"}, "blocks='3' must be of type int"),
        ({"blocks": True}, "blocks=True must be of type int"),
        ({"query_shift": None}, "query_shift=None must be of type float"),
        ({"conditions": "day"}, "conditions='day' must be of type tuple"),
        ({"seed": -1}, "seed must not be negative"),
    ],
)
def test_settings_that_are_none(settings, said):
    with pytest.raises(DataError, match=said):
        CityConfig.of(settings)


def test_settings_of_a_recipe():
    assert CityConfig.of({"query_shift": 2, "conditions": ["day"]}) == CityConfig(query_shift=2, conditions=("day",))
