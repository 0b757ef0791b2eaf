"""A part of a data set kept apart: the gap, the share, visits as queries, whole places, seeds, and errors."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from place_sets import make, rng

from data_pipelines.errors import DataError
from data_pipelines.holdout import hold_out
from data_pipelines.places import ROLES, Places


def drives(visits, length, seed=0, *, spacing=5.0, **columns):
    """A street driven several times, an image every `spacing` metres, a few metres off each time."""
    n = int(length / spacing)
    east = np.tile(spacing * np.arange(n), visits) + rng(seed).normal(0, 1, visits * n)
    sequence = np.repeat(np.arange(visits), n)
    one = make(np.full(visits * n, -1), 4e5 + east, 5e6 + rng(seed, 1).normal(0, 2, visits * n))
    return dataclasses.replace(one, sequence=sequence, frame=np.tile(np.arange(n), visits), **columns)


def of_role(held, role):
    return held.select(role=role)


def distances(one, other):
    return np.hypot(one.east[:, None] - other.east, one.north[:, None] - other.north)


def rows(part):
    return [int(part.path.relative(row).removesuffix(".jpg")) for row in range(len(part))]


@settings(deadline=None, max_examples=40)
@given(st.integers(20, 300), st.sampled_from([0.1, 0.2, 0.5]), st.sampled_from([0.0, 5.0, 40.0]), st.integers(0, 99))
def test_no_training_image_is_near_the_part_kept_apart(n, share, gap, seed):
    east, north = rng(seed).uniform(0, 400, (2, n)).round()
    one = make(np.arange(n), 4e5 + east, 5e6 + north, zone=rng(seed, 1).choice([31, 33], n))
    found = hold_out(one, share, gap=gap, seed=seed)
    same = found.train.zone[:, None] == found.apart.zone
    assert (distances(found.train, found.apart)[same] >= gap).all()
    kept, apart = rows(found.train), rows(found.apart)
    assert not set(kept) & set(apart) and len(kept) + len(apart) + found.between == n
    assert kept == sorted(kept) and apart == sorted(apart)
    assert share * n / 2 <= len(apart) <= 1.5 * share * n + 4
    if not gap:  # only what lies on the line itself
        assert found.between == 0


def test_a_street_worked_out_by_hand():
    """Ten spots 100 m apart along a street, two images each: the last fifth, or the first, is two spots."""
    one = make(np.full(20, -1), 4e5 + 100.0 * np.repeat(np.arange(10), 2), 5e6)
    ends = set()
    for seed in range(8):
        found = hold_out(one, 0.2, gap=150.0, seed=seed)
        spots = sorted(set(np.unique((found.apart.east - 4e5) / 100).astype(int).tolist()))
        ends.add(tuple(spots))
        # The spot beside the part is 100 m away from it and goes to neither; the next one, at 200 m, trains.
        assert len(found.apart) == 4 and found.between == 2 and len(found.train) == 14
        assert (
            found.by == "image" and of_role(found.apart, "query").east.tolist() == np.unique(found.apart.east).tolist()
        )
    assert ends == {(0, 1), (8, 9)}


def test_queries_are_of_other_drives_and_find_an_image_of_the_street():
    one = drives(4, 1000.0)
    found = hold_out(one, 0.2, gap=50.0)
    asked, known = of_role(found.apart, "query"), of_role(found.apart, "database")
    assert found.by == "sequence" and len(asked) + len(known) == len(found.apart)
    assert not set(asked.sequence) & set(known.sequence) and len(set(asked.sequence)) in (1, 2)
    assert (distances(asked, known).min(axis=1) <= 25).all()
    # The same without sequences but with a day for each drive.
    day = np.datetime64("2024-05-01", "s") + one.sequence * np.timedelta64(1, "D")
    dated = dataclasses.replace(one, time=day, sequence=np.full(len(one), -1))
    again = hold_out(dated, 0.2, gap=50.0)
    assert again.by == "day" and rows(of_role(again.apart, "query")) == rows(asked)


def test_a_drive_that_nobody_repeats_does_not_ask():
    """Two drives of one half of the street and one of the other, all of it held out but for an island far away."""
    left, alone = drives(2, 500.0), drives(1, 500.0, seed=7)
    alone = dataclasses.replace(alone, east=alone.east + 600, sequence=np.full(len(alone), 9))
    island = dataclasses.replace(drives(1, 300.0, seed=3), sequence=np.full(60, 5))
    island = dataclasses.replace(island, east=island.east + 90_000)
    found = hold_out(Places.concat([left, alone, island]), 300 / 360, gap=50.0)
    kinds = {tuple(np.unique(of_role(found.apart, role).sequence).tolist()) for role in ("query",)}
    assert found.by == "sequence" and kinds <= {(0,), (1,)} and 9 in of_role(found.apart, "database").sequence


def test_one_drive_alone_alternates_and_a_data_sets_own_roles_stay():
    found = hold_out(drives(1, 1000.0), 0.2, gap=20.0)
    asked, known = of_role(found.apart, "query"), of_role(found.apart, "database")
    assert found.by == "image" and 0.3 < len(asked) / len(found.apart) <= 0.5
    assert (distances(asked, known).min(axis=1) <= 25).all()
    own = drives(2, 1000.0)
    own = dataclasses.replace(own, role=own.sequence.astype(np.int8))
    found = hold_out(own, 0.2)
    assert found.by == "role" and (found.apart.role == found.apart.sequence).all()


def test_places_without_metres_are_held_out_whole():
    place = np.repeat(np.arange(12), 5)
    place[:3] = -1  # which place these show is not known: they could show one that is held out
    found = hold_out(make(place, np.nan, np.nan), 0.25, seed=4)
    train, apart = set(found.train.place), set(found.apart.place)
    assert not train & apart and len(apart) in (3, 4) and train | apart == set(range(12)) and found.between == 3
    asked, known = of_role(found.apart, "query"), of_role(found.apart, "database")
    assert set(asked.place) <= set(known.place) and len(asked) == sum(n // 2 for n in np.bincount(found.apart.place))


def test_images_without_a_position_go_to_neither_part():
    one = drives(2, 500.0)
    lost = np.arange(len(one)) % 10 == 0
    found = hold_out(dataclasses.replace(one, east=np.where(lost, np.nan, one.east)), 0.3, gap=0.0)
    assert found.between == lost.sum() and not np.isnan(np.append(found.train.east, found.apart.east)).any()


def test_equal_seeds_give_equal_parts_and_others_others():
    one = make(np.arange(400), *rng(1).uniform(0, 900, (2, 400)))
    parts = [rows(hold_out(one, 0.2, seed=seed).apart) for seed in (3, 3, 4)]
    assert parts[0] == parts[1] != parts[2]
    assert ROLES[:2] == ("database", "query")


@pytest.mark.parametrize(
    ("share", "gap", "east", "place", "message"),
    [
        (0.0, 5.0, 0.0, 0, r"hold_out=0\.0"),
        (1.0, 5.0, 0.0, 0, r"hold_out=1\.0"),
        (0.2, -1.0, 0.0, 0, r"gap=-1"),
        (0.2, np.nan, 0.0, 0, r"gap=nan"),
        (0.2, 5.0, np.nan, -1, r"none of the 9 images of set has a position or a place.*val_data"),
        (0.2, 5.0, np.nan, 3, r"leaves 9 of the 9 images of set to train on and 0"),
        (0.2, 50.0, np.arange(9.0), -1, r"hold_out=0\.2 with gap=50 leaves 0 of the 9 images.*Lower the gap"),
    ],
)
def test_what_cannot_be_divided_is_named(share, gap, east, place, message):
    with pytest.raises(DataError, match=message):
        hold_out(make(np.full(9, place), east, 0.0), share, gap=gap)
