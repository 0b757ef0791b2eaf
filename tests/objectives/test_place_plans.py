"""What a period draws: data sets by weight, and cliques of hard places beside other places."""

import dataclasses

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import common
from data_pipelines.errors import DataError
from data_pipelines.place_table import place_table
from data_pipelines.places import Paths, Places
from jaxvpr import families
from jaxvpr.builders.training_images import with_places
from jaxvpr.errors import UserError
from jaxvpr.objectives.objective import Embed
from jaxvpr.objectives.place_heads import Choice
from jaxvpr.objectives.place_plans import Cliques, places_plan
from jaxvpr.objectives.places import places_objective

TURN = np.array([0.0, 90.0, 180.0, 270.0])


def town(name, places, *, images=3, east=0.0, zone=33, side=40.0, headings=1):
    """Places `side` metres apart along a street, each with `images` images within 4 m to each of `headings` sides."""
    count = places * images * headings
    place = np.arange(count) // images
    offset = np.random.default_rng(len(name)).uniform(0, 4, (count, 2))
    return Places.create(
        name, Paths.of([f"{name}{i}.jpg" for i in range(count)]), place=place,
        east=east + side * (place // headings) + offset[:, 0], north=5e6 + offset[:, 1], zone=zone,
        heading=TURN[place % headings],
    )  # fmt: skip


def positions(sets):
    return np.stack([np.concatenate([getattr(one, axis) for one in sets]) for axis in ("east", "north")], 1)


def looks(sets, seed=0):
    """An `Embed` that gives each image a vector of its own, and the rows it was asked for."""
    asked = []
    vectors = np.random.default_rng(seed).normal(size=(sum(map(len, sets)), 4)).astype(np.float32)

    def rows(rows):
        asked.append(np.asarray(rows))
        return vectors[rows]

    return Embed(rows, on_mesh=None), asked


def drawn(plan, index=0, memory=None, embed=None):
    made, kept = plan(index, np.random.default_rng([7, index]), {} if memory is None else memory, embed)
    return made.draws["source"].rows, made.draws["source"].label, kept


def check_batches(rows, labels, sets, K, distance):
    """Full batches; K images of a label, and no image of another within the distance."""
    where = positions(sets)
    for row, label in zip(rows, labels, strict=True):
        assert (row >= 0).all() and (label >= 0).all() and len(set(row)) == len(row)
        assert (np.unique(label, return_counts=True)[1] == K).all()
        apart = np.linalg.norm(where[row][:, None] - where[row], axis=-1)
        assert (apart[label[:, None] != label] >= distance).all()


def test_data_sets_are_drawn_by_weight():
    sets = [town("a", 30), town("b", 10, east=9e3), town("c", 20, east=18e3)]
    table = place_table(sets, K=3)
    rows, labels, kept = drawn(places_plan(table, P=8, steps=40, weights=(1, 2, 5)))
    assert kept == {} and rows.shape == (40, 24)
    of = np.bincount(table.source[labels[:, ::3]].reshape(-1), minlength=3)
    assert of.tolist() == [40, 80, 200]
    assert (np.searchsorted(np.cumsum([len(one) for one in sets]), rows, side="right") == table.source[labels]).all()


def mixed(sets, of, others, *, P=8, C=4, steps=20, refresh=1, **options):
    table = place_table(sets, K=3, of=others)
    return places_plan(table, P=P, steps=steps, cliques=Cliques(place_table(sets, K=1, of=of), C, refresh, **options))


@pytest.mark.parametrize("east", [0.0, 9e3], ids=["one town", "two towns"])
def test_half_places_of_one_set_and_half_cliques_of_the_other(east):
    """As CliqueMining trains on GSV-Cities and MSLS; where both show one town, no spot stands in a batch twice."""
    sets = [town("places", 48), town("cliques", 48, east=east)]
    rows, labels, _ = drawn(mixed(sets, [1], [0]), embed=looks(sets)[0])
    check_batches(rows, labels, sets, 3, 25)
    assert (rows[:, :12] < 144).all() and (rows[:, 12:] >= 144).all()
    assert (labels[:, :12] == rows[:, :12] // 3).all() and labels[:, 12:].min() >= 48


def test_places_and_cliques_of_one_set_are_never_one_spot_under_two_labels():
    sets = [town("only", 40)]
    rows, labels, _ = drawn(mixed(sets, [0], [0]), embed=looks(sets)[0])
    check_batches(rows, labels, sets, 3, 25)
    seen = rows // 3
    assert all(len(set(step)) == 8 for step in seen)
    # Either half may draw any place.
    assert len(set(seen[:, :12].ravel())) == 40 and len(set(seen[:, 12:].ravel())) > 25


def test_views_to_all_sides_are_not_one_place_where_an_angle_is_asked_for():
    sets = [town("round", 40, headings=4)]
    side = sets[0].heading.astype(int)
    for angle, one_side in ((30.0, True), (180.0, False)):
        rows, labels, _ = drawn(mixed(sets, [0], [0], angle=angle), embed=looks(sets)[0])
        check_batches(rows[:, 12:], labels[:, 12:], sets, 3, 25)
        turned = np.ptp(side[rows[:, 12:]].reshape(20, 4, 3), axis=-1)
        assert (turned == 0).all() == one_side


def test_a_batch_may_hold_nothing_but_cliques():
    sets = [town("only", 40)]
    rows, labels, _ = drawn(mixed(sets, [0], [0], C=8), embed=looks(sets)[0])
    assert rows.shape == (20, 24)
    check_batches(rows, labels, sets, 3, 25)


def test_a_plan_is_a_function_of_its_number_the_memory_and_the_model():
    """Six periods, refreshed every third; then the same from the memory that stood in a checkpoint after each."""
    sets = [town("places", 30), town("cliques", 30, east=9e3)]
    plan, (embed, asked) = mixed(sets, [1], [0], steps=4, refresh=3), looks(sets)
    plans, memories = [], [{}]
    for index in range(6):
        rows, labels, memory = drawn(plan, index, memories[-1], embed)
        plans.append((rows, labels))
        memories.append(memory)
    assert len(asked) == 2 and all(((rows >= 90) & (rows < 180)).all() and len(rows) == 30 for rows in asked)
    assert [sorted(memory) for memory in memories] == [[], ["cliques"], ["cliques"], [], ["cliques"], ["cliques"], []]
    for index in range(6):
        saved = {name: np.array(values) for name, values in memories[index].items()}
        rows, labels, memory = drawn(plan, index, saved, embed if index % 3 == 0 else None)
        assert (rows == plans[index][0]).all() and (labels == plans[index][1]).all()
        assert sorted(memory) == sorted(memories[index + 1])
    other = drawn(plan, 0, {}, looks(sets, seed=1)[0])[0]
    assert (other[:, :12] == plans[0][0][:, :12]).all() and (other[:, 12:] != plans[0][0][:, 12:]).any()


def test_weights_that_do_not_fit_name_their_key():
    sets = [town("a", 30), town("b", 10)]
    for weights in ((1.0,), (1, 0), (1, 1, 1)):
        with pytest.raises(UserError, match=r"objective\.weights.*\['a', 'b'\]"):
            places_objective(place_table(sets, K=3), Choice("triplet"), P=4, steps=1, weights=weights)


def test_cliques_of_images_without_position_are_refused_before_anything_runs():
    there, lost = town("there", 9), Places.create("lost", Paths.of(["a", "b"]), place=[0, 1], east=[0, np.nan], north=0)
    sets = [there, lost]
    cliques = Cliques(place_table(sets, K=1, of=[1]), 2)
    with pytest.raises(DataError, match=r"1 of 2.*lost.*position"):
        places_objective(place_table(sets, K=3, of=[0]), Choice("triplet"), P=4, steps=1, cliques=cliques)


def test_a_data_set_without_place_numbers_gives_cliques_of_its_cells(tiny_config):
    """As MSLS beside GSV-Cities: a partition of its own."""
    config = tiny_config.copy_and_resolve_references().unlock()
    config.objective = common.places(P=4, K=3, by="place")
    config.objective.cliques.update(share=0.5, sets=(1,))
    config.batch, config.steps_per_epoch = 12, 3
    bare = common.data("at_names", "", partition={"by": "cell", "M": 10.0, "alpha": 30.0})
    config.more_train_data = ConfigDict({"bare": bare})
    named, bare = town("named", 20), town("bare", 20, east=9e3)
    sets = [named, dataclasses.replace(bare, place=np.full(len(bare), -1))]
    make = families.FAMILIES["places"]
    embed, asked = looks(sets)
    rows, labels, _ = drawn(make(config, sets).objective.plan, embed=embed)
    check_batches(rows, labels, sets, 3, 25)
    assert (rows[:, :6] < 60).all() and (rows[:, 6:] >= 60).all() and (np.concatenate(asked) >= 60).all()
    config.more_train_data.bare.partition.by = ""
    with pytest.raises(DataError, match=r"\bbare\b.*\b1 images"):
        make(config, sets)
    config.objective.cliques.sets = (0,)
    with pytest.raises(DataError, match=r"\bbare\b.*\b3 images"):
        make(config, sets)


def test_cells_of_two_zones_are_two_places():
    partition = ConfigDict({"by": "cell", "M": 10.0, "alpha": 360.0})
    images = Places.create(
        "two", Paths.of("abcd"), east=[1.0, 2.0, 1.0, 300.0], north=0.0, heading=0.0, zone=[32, 32, 50, 50]
    )
    place = with_places(partition, images).place
    assert place[0] == place[1] and len(set(place.tolist())) == 3
    table = place_table(with_places(partition, images), K=1)
    assert table.city.tolist() == [0, 1, 1] and table.frame.tolist() == [32, 50, 50]
