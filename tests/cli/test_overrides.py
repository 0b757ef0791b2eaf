"""Changes behind a comma and in flags: how they are split, and what they do to a recipe's data sets."""

import pytest

from configs import common
from jaxvpr.cli.arguments import parse
from jaxvpr.cli.overrides import data_sets, override, override_all, split_changes
from jaxvpr.cli.recipes import load_config
from jaxvpr.errors import UserError

FRESH = {"reader": "at_names", "root": "", "split": "", "thresholds": ("25m",), "conditions": (), "role": "",
         "hold_out": 0.0, "gap": 50.0,
         "partition": {"by": "", "M": 0.0, "alpha": 0.0}, "clips": common.CLIPS, "options": {}}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("x.py", ["x.py"]),
        ("x.py:p,a=1,b=2", ["x.py:p", "a=1", "b=2"]),
        ("x.py,image.size=(32,32),seed=1", ["x.py", "image.size=(32,32)", "seed=1"]),
        ("x.py,a={'b': [1,2], 'c': (3,)},d=", ["x.py", "a={'b': [1,2], 'c': (3,)}", "d="]),
        ("x.py,a=',',b=\"(\",c=1", ["x.py", "a=','", 'b="("', "c=1"]),
        ("x.py,a=('it\\',s',),b=1", ["x.py", "a=('it\\',s',)", "b=1"]),
        ("x.py,root=/it's/here,b=1", ["x.py", "root=/it's/here", "b=1"]),
        ("x.py,init=f:^(b|a/(c|d)),s=1", ["x.py", "init=f:^(b|a/(c|d))", "s=1"]),
        (r"x.py,init=f:a\(b,s=1", ["x.py", r"init=f:a\(b", "s=1"]),
        ("x.py,root=a),b=1", ["x.py", "root=a)", "b=1"]),
    ],
)
def test_commas_within_brackets_and_quotes_belong_to_a_value(text, parts):
    assert split_changes(text) == parts


@pytest.mark.parametrize("text", ["x.py,a=(1,b=2", "x.py,a={1]", "x.py,a='1,b=2"])
def test_what_is_never_closed_is_refused(text):
    with pytest.raises(UserError, match=r"closing . is missing in a=.*--config\.KEY=VALUE"):
        split_changes(text)


def test_a_comma_and_a_flag_mean_the_same(tiny_recipe):
    changes = [
        "image.size=(48,64)",
        "val_data={}",
        "model.aggregator_options={'dim': 16, 'fc_norm': True}",
        "optimizer.factors=(('backbone/', 0.1), ('conv,', 2.0))",
        "test_data.test.thresholds=('10m','25m')",
    ]
    behind = parse([f"--config={','.join([str(tiny_recipe), *changes])}"]).config
    flags = parse([f"--config={tiny_recipe}", *(f"--config.{change}" for change in changes)]).config
    assert behind == flags and behind.image.size == (48, 64) and not behind.val_data
    assert behind.model.aggregator_options.to_dict() == {"dim": 16, "fc_norm": True}
    assert behind.optimizer.factors == (("backbone/", 0.1), ("conv,", 2.0))
    assert behind.test_data.test.thresholds == ("10m", "25m")


def test_data_sets_are_dropped_and_put_in_place(tiny_recipe):
    def data(*changes):
        return load_config(",".join([str(tiny_recipe), *changes]))

    assert not data("val_data={}").val_data and not data("test_data.test={}").test_data
    assert not data("train_data={}").train_data
    assert list(data("test_data.test={}", "test_data.b.root=/b").test_data) == ["b"]
    alone = data("val_data={'b': {'root': '/b', 'reader': 'csv', 'options': {'file': 'a.csv'}}}").val_data
    clips = data("val_data={'b': {'root': '/b', 'clips': {'length': 5}, 'partition': {'by': 'cell'}}}").val_data.b
    assert clips.clips.to_dict() == {**common.CLIPS, "length": 5} and clips.partition.M == 0
    assert alone.to_dict() == {"b": FRESH | {"root": "/b", "reader": "csv", "options": {"file": "a.csv"}}}
    other = data("val_data.val={'root': '/b', 'thresholds': ('5m', '10m')}", "val_data.val.split=val").val_data
    assert other.to_dict() == {"val": FRESH | {"root": "/b", "thresholds": ("5m", "10m"), "split": "val"}}


def test_a_recipe_without_training_data_takes_some():
    config = common.base()
    override_all(config, [("train_data.root", "/a"), ("target_data.root", "/b"), ("more_train_data.c.root", "/c")])
    assert config.train_data.to_dict() == FRESH | {"root": "/a"}
    assert config.target_data.to_dict() == FRESH | {"root": "/b", "reader": "folder"}
    assert config.more_train_data.c.to_dict() == FRESH | {"root": "/c"}


def moved(*changes):
    config = load_config(f"configs/salad.py:salad,{','.join(changes)}")
    return {key: spec.root for key, spec in data_sets(config)}


def test_data_moves_all_sets_but_those_that_are_named():
    sets = ("train_data", "val_data.pitts30k_val", "test_data.pitts30k")
    assert moved("data=/data") == dict(zip(sets, ("/data/gsv_cities", "/data/pitts30k", "/data/pitts30k"), strict=True))
    roots = ("/gsv", "/x/data/pitts30k", "/x/data/pitts30k")
    assert tuple(moved("train_data.root=/gsv", "data=/x/data").values()) == roots
    added = moved("test_data.mine.root=data/mine", "data=/d")
    assert (added["test_data.mine"], added["test_data.pitts30k"]) == ("data/mine", "/d/pitts30k")


def test_data_moves_again_and_the_city_with_it():
    config = load_config("configs/cosplace.py,data=a")
    override(config, "data", "b/c")
    assert config.data == "b/c" and config.train_data.root == "b/c/minicity"


def test_data_that_moves_nothing_is_refused():
    config = common.base()
    with pytest.raises(UserError, match=r"in data, where none lies\. Leave it out"):
        override(config, "data", "/data")
    override(config, "test_data.a.root", "database/a")
    with pytest.raises(UserError, match=r"none lies: test_data\.a\.root=database/a\. Change these keys"):
        override(config, "data", "/data")


def test_a_key_within_an_option_of_a_reader_begins_it():
    """As the csv reader advises: options.columns.path=NAME."""
    config = common.base()
    changes = [
        ("test_data.x.root", "/a"),
        ("test_data.x.reader", "csv"),
        ("test_data.x.options.columns.path", "image_path"),
    ]
    override_all(
        config, [*changes, ("test_data.x.options.columns.place", "label"), ("test_data.x.options.file", "a.csv")]
    )
    options = config.test_data.x.options.to_dict()
    assert options == {"columns": {"path": "image_path", "place": "label"}, "file": "a.csv"}
    with pytest.raises(UserError, match=r"no key config\.test_data\.x\.optins"):
        override_all(config, [("test_data.x.optins.columns.path", "a")])
