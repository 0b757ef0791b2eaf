"""The table of places: rows, frames of cities, and which places are near each other."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from place_sets import grid, make, rng

from data_pipelines import geo
from data_pipelines.errors import DataError
from data_pipelines.place_batches import place_batches
from data_pipelines.place_table import near_pairs, place_table


def test_a_table_of_some_data_sets_keeps_the_rows_and_frames_of_all():
    sets = [grid([3] * 4, name="a"), make([0, 0, 0, 1], zone=-1, name="b"), grid([1, 3, 3], name="c")]
    whole, some = place_table(sets, K=3), place_table(sets, K=3, of=[2, 1])
    kept = whole.source > 0
    assert some.names == ("b", "c") and some.source.tolist() == [0, 1, 1] and some.left_out == (2, 2)
    assert some.rows.tolist() == whole.rows[12:].tolist() and some.frame.tolist() == whole.frame[kept].tolist()
    assert some.frame.tolist() == [-2, 32, 32]
    batches = place_batches(some, P=2, steps=20, rng=rng(), weights=(1, 1))
    assert (batches.rows >= 12).all() and (some.source[batches.labels[:, ::3]].sum(1) == 1).all()
    assert some.images(np.array([2, 0])).tolist() == [6, 7, 8, 0, 1, 2] and some.images([]).tolist() == []
    with pytest.raises(DataError, match=r"\ba\b.*\b4 images.*\b4 places.*\b12 images.*\b3\b"):
        place_table(sets, K=4, of=[0])


def test_the_frame_of_a_city_does_not_depend_on_K():
    lon = np.array([-0.0003, -0.0001, 0.0001, 0.0101, 0.0102])
    east, north, zone = geo.to_utm(np.full(5, 51.5), lon)
    places = make([5, 5, 6, 7, 8], east, north, zone=zone)  # more images east of the border, but single ones
    assert place_table(places, K=2).frame.tolist() == [31] and set(place_table(places, K=1).frame) == {31}


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 60), st.floats(0.01, 300), st.integers(0, 99), st.booleans())
@example(n=40, distance=1e-12, seed=0, far=True)
def test_near_pairs_are_all_the_near_pairs(n, distance, seed, far):
    draw = rng(seed)
    east, north = draw.uniform(0, 500, (2, n)) * (1e6 if far else 1.0)
    zone = draw.integers(31, 33, n)
    table = place_table(make(np.arange(n), east, north, zone=zone), K=1, city=np.arange(n))
    one, other = near_pairs(table, distance)
    apart = np.hypot(east[:, None] - east, north[:, None] - north)
    wanted = np.argwhere(np.triu((apart < distance) & (zone[:, None] == zone), 1)).tolist()
    assert sorted(sorted(pair) for pair in zip(one.tolist(), other.tolist(), strict=True)) == wanted
