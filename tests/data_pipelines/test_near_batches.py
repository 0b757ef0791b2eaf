"""Places by nearness: partners within radius and angle, distance between places, passes, data sets, and errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from place_sets import rng

from data_pipelines import geo
from data_pipelines.errors import DataError
from data_pipelines.near_batches import near_batches, near_table
from data_pipelines.places import Paths, Places


def town(east, north=0.0, heading=0.0, *, zone=32, name="town", **columns):
    paths = Paths.of([f"{name}{k}.jpg" for k in range(len(east))])
    return Places.create(name, paths, east=east, north=north, heading=heading, zone=zone, **columns)


def scattered(n, side, seed, name="town"):
    draw = rng(seed)
    east, north = draw.uniform(0, side, (2, n)).round()  # many at the very same spot, or exactly a radius apart
    return town(4e5 + east, 5e6 + north, draw.integers(0, 24, n) * 15.0, zone=draw.choice([31, 33], n), name=name)


def partners(one, radius, angle):
    """bool [n, n], by brute force over all pairs."""
    apart = np.hypot(one.east[:, None] - one.east, one.north[:, None] - one.north)
    turn = np.abs((one.heading[:, None] - one.heading + 180) % 360 - 180)
    return (apart <= radius) & (turn <= angle) & (one.zone[:, None] == one.zone) & ~np.eye(len(one), dtype=bool)


def check_batches(batches, one, table, distance):
    """The promises of every batch, by brute force; the anchors of each batch that are there."""
    may, K = partners(one, table.radius, table.angle), table.K
    apart = np.hypot(one.east[:, None] - one.east, one.north[:, None] - one.north)
    close = (apart < distance) & (one.zone[:, None] == one.zone)
    assert (batches.mask == (batches.rows >= 0)).all() and (batches.mask == (batches.labels >= 0)).all()
    anchors = []
    for rows, labels in zip(batches.rows, batches.labels, strict=True):
        rows, labels = rows[rows >= 0], labels[labels >= 0]
        assert labels.tolist() == np.repeat(np.arange(len(rows) // K), K).tolist() and len(set(rows)) == len(rows)
        assert not close[rows[:, None], rows][labels[:, None] != labels].any()
        groups = rows.reshape(-1, K)
        assert may[groups[:, :1], groups[:, 1:]].all()
        anchors.append(groups[:, 0].tolist())
    return anchors


def test_a_street_worked_out_by_hand():
    """Seven images along a street, the fourth looking back; the last is 20 m from its neighbour and has no partner."""
    street = town([0, 5, 12, 13, 60, 64, 84], heading=[0, 355, 12, 180, 90, 98, 90])
    table = near_table([street], K=2, radius=12.0, angle=10.0)
    # 0-1 turn by 5 degrees, 0-2 by 12, 1-2 by 17; 3 looks back; 4-5 are 4 m apart and turn by 8.
    assert table.anchors.rows.tolist() == [0, 1, 4, 5] and (table.lonely, table.lost) == (3, 0)
    assert near_table([street], K=2, radius=12.0, angle=12.0).anchors.rows.tolist() == [0, 1, 2, 4, 5]
    assert near_table([street], K=3, radius=12.0, angle=180.0).anchors.rows.tolist() == [0, 1, 2, 3]
    batches = near_batches(table, P=2, steps=4, rng=rng(), min_distance=25.0)
    for rows, labels in zip(batches.rows, batches.labels, strict=True):
        assert labels.tolist() == [0, 0, 1, 1] and {frozenset(rows[:2]), frozenset(rows[2:])} == {
            frozenset({0, 1}), frozenset({4, 5}),
        }  # fmt: skip
    # 60 - 5 = 55 m lie between the two places: at 56 m no batch has both.
    with pytest.raises(DataError, match=r"no batch of 2 places.*\b4 places"):
        near_batches(table, P=2, steps=4, rng=rng(), min_distance=56.0)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(10, 80), st.sampled_from([40, 150, 400]), st.integers(2, 4), st.integers(2, 6),
    st.sampled_from([15.0, 45.0, 180.0]), st.sampled_from([10.0, 13.0, 30.0]), st.integers(0, 99),
)  # fmt: skip
def test_batches_keep_their_promises(n, side, K, P, angle, distance, seed):
    one = scattered(n, side, seed)
    enough = partners(one, 10.0, angle).sum(1) >= K - 1
    if not enough.any():
        with pytest.raises(DataError, match=rf"no image of town has {K - 1} others"):
            near_table([one], K=K, radius=10.0, angle=angle)
        return
    table = near_table([one], K=K, radius=10.0, angle=angle)
    assert table.anchors.rows.tolist() == np.flatnonzero(enough).tolist() and table.lonely == (~enough).sum()
    steps = 3 * n
    try:
        batches = near_batches(table, P=P, steps=steps, rng=rng(seed), min_distance=distance)
    except DataError as error:
        assert "no batch of 2 places" in str(error)
        return
    anchors = check_batches(batches, one, table, distance)
    # Nobody waits for ever: whoever was passed over is among the first of the next batch.
    uses = np.bincount(np.concatenate(anchors).astype(int), minlength=n)[enough]
    assert uses.min() >= 1
    again = near_batches(table, P=P, steps=steps, rng=rng(seed), min_distance=distance)
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))


def test_passes_use_every_image_as_often_and_all_partners():
    """40 spots of five images, 100 m apart, where nothing is in the way of anything else but its own spot."""
    one = town(np.repeat(100.0 * np.arange(40), 5))
    table = near_table([one], K=3, radius=1.0, angle=10.0)
    batches = near_batches(table, P=8, steps=200, rng=rng(3), min_distance=25.0)
    anchors = check_batches(batches, one, table, 25.0)
    assert all(len(step) == 8 for step in anchors)
    uses = np.bincount(np.concatenate(anchors).astype(int), minlength=200)
    assert uses.sum() == 1600 and uses.min() >= 7 and uses.max() <= 9
    seen = {(a, b) for rows in batches.rows.reshape(-1, 3).tolist() for a in rows[:1] for b in rows[1:]}
    assert len(seen) == 200 * 4  # every image with every other of its spot
    other = near_batches(table, P=8, steps=200, rng=rng(4), min_distance=25.0)
    assert (other.rows != batches.rows).any()


def test_data_sets_share_batches_by_weight_and_local_metres_are_their_own():
    # The two towns' metres are equal numbers of two frames: nobody has a partner in the other, nobody is in the way.
    sets = [town(np.repeat(100.0 * np.arange(n), 2), zone=-1, name=name) for n, name in ((30, "a"), (12, "b"))]
    table = near_table(sets, K=2, radius=5.0)
    batches = near_batches(table, P=8, steps=40, rng=rng(), min_distance=25.0, weights=(3, 1))
    of_b = batches.rows.reshape(40, 8, 2) >= 60
    assert (of_b[..., 0] == of_b[..., 1]).all() and (of_b[..., 0].sum(1) == 2).all()
    alone = near_batches(table, P=8, steps=40, rng=rng(), min_distance=25.0, by_city=True).rows.reshape(40, -1) >= 60
    assert (alone.all(1) | ~alone.any(1)).all() and 0 < alone.any(1).sum() < 40
    with pytest.raises(DataError, match=r"weights.*\['a', 'b'\].*\(1,\)"):
        near_batches(table, P=8, steps=1, rng=rng(), min_distance=25.0, weights=(1,))
    with pytest.raises(DataError, match=r"\['c'\] has 2 images.*weight"):
        lonely = near_table([sets[0], town([0.0, 99.0], zone=-1, name="c")], K=2, radius=5.0)
        near_batches(lonely, P=2, steps=1, rng=rng(), min_distance=25.0, weights=(1, 1))


def test_a_town_on_the_border_of_two_zones_is_one():
    east, north, zone = geo.to_utm(np.full(4, 51.5), np.array([-0.0003, -0.0001, 0.00001, 0.01]))
    assert zone.tolist() == [30, 30, 31, 31]
    table = near_table([town(east, north, zone=zone)], K=2, radius=12.0, angle=180.0)
    assert table.anchors.rows.tolist() == [1, 2]  # 7.6 m apart, in two zones


def test_images_without_a_position_are_left_out_and_counted():
    one = town([0, 1, np.nan, 50, 51])
    table = near_table([one], K=2, radius=5.0)
    assert table.lost == 1 and table.anchors.rows.tolist() == [0, 1, 3, 4]
    batches = near_batches(table, P=2, steps=5, rng=rng(), min_distance=25.0)
    assert not (batches.rows == 2).any() and batches.mask.all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"K": 1}, "K=1"),
        ({"radius": 0.0}, r"radius=0\.0"),
        ({"angle": 0.0}, r"angle=0\.0"),
        ({"angle": 181.0}, r"angle=181\.0"),
        ({"radius": 0.5}, r"no image of town has 1 others within 0\.5 m and 90 degrees"),
        ({"heading": np.nan}, r"3 of 3 images of town have no heading.*row 0.*angle=90.*angle=180"),
        ({"east": [np.nan] * 3}, r"none of the 3 images of town has a position.*by=place"),
        ({"min_distance": 4.0}, r"min_distance=4\b.*radius=5\b"),
        ({"min_distance": np.nan}, r"min_distance=nan"),
        ({"P": 0}, "P=0"),
    ],
)
def test_what_makes_no_sense_is_named(change, message):
    options = {"east": [0.0, 1.0, 2.0], "heading": 0.0, "K": 2, "radius": 5.0, "angle": 90.0, "P": 2, **change}
    with pytest.raises(DataError, match=message):
        one = town(options["east"], heading=options["heading"])
        table = near_table([one], K=options["K"], radius=options["radius"], angle=options["angle"])
        near_batches(table, P=options["P"], steps=1, rng=rng(), min_distance=options.get("min_distance", 25.0))


def test_headings_are_not_asked_for_without_an_angle():
    one = town([0.0, 1.0, 50.0, 51.0], heading=np.nan)
    assert len(near_table([one], K=2, radius=5.0, angle=180.0)) == 4
