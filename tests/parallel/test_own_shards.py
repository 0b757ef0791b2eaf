"""Hosts that each have some of the shards of a data set on a disk of their own."""

import json
import shutil

import pytest
from host_processes import records, train

from data_pipelines.records import shards
from jaxvpr import builders
from jaxvpr.errors import UserError

pytest.importorskip("tensorflow_datasets")
OWN = "loader.own_shards=true,train_data.reader=records,eval.baselines=false"
OWN += ",objective.partition.M=60,objective.partition.min_images=6"


@pytest.fixture
def halves(door, tiny_recipe, tmp_path):
    """Two folders of the training images as records, the first with shards 0 and 2, the second with 1 and 3."""
    whole = tmp_path / "whole"
    assert door("records", f"--config={tiny_recipe}", f"--out={whole}", "--shards=4", "--workers=1").status == 0
    for host in (0, 1):
        shutil.copytree(whole, tmp_path / str(host))
        for shard in range(1 - host, 4, 2):
            (tmp_path / str(host) / shards.file_name("train", shard, 4)).unlink()
    return whole, tmp_path / "0", tmp_path / "1"


@pytest.mark.long
def test_two_hosts_train_on_half_of_the_shards_each(halves, tiny_recipe, tmp_path, environment):
    whole, first, second = halves
    recipe = f"--config={tiny_recipe},{OWN}"
    last = [f"--config.train_data.root={second}"]
    arguments = [recipe, f"--config.train_data.root={first}", f"--workdir={tmp_path / 'run'}"]
    train(environment, 2, 1, arguments, last=last)
    train(environment, 2, 1, [recipe, f"--config.train_data.root={whole}", f"--workdir={tmp_path / 'both'}"])
    ours, theirs = ((tmp_path / run / "metrics.json").read_text() for run in ("run", "both"))
    assert json.loads(ours)["results"] == json.loads(theirs)["results"]
    losses = [[line["loss"] for line in records(tmp_path / run) if "loss" in line] for run in ("run", "both")]
    assert losses[0] == losses[1] and len(losses[0]) == 12
    shared = [f"{recipe},loader.own_shards=false", arguments[1], f"--workdir={tmp_path / 'shared'}"]
    said = train(environment, 2, 1, shared, last=last, status=2)
    assert "this file of records is not there" in said[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (f"{OWN},train_data.reader=at_names", "train_data.reader is not 'records'"),
        (f"{OWN},pca.dim=8", "pca.dim=8 is fitted on any image on any host"),
        (f"{OWN},domain.method=grl", "domain.method='grl' draws any image on any host"),
    ],
)
def test_what_needs_any_image_on_any_host_is_refused(refused, tiny_recipe, photo_tree, tmp_path, changes, said):
    root = f"--config.train_data.root={photo_tree}"
    assert said in refused(f"--config={tiny_recipe},{changes}", root, f"--workdir={tmp_path / 'run'}")


def test_objectives_that_pair_images_are_refused(tiny_config):
    tiny_config.objective.name, tiny_config.loader.own_shards = "places", True
    with pytest.raises(UserError, match=r"own_shards=True: objective.name='places' draws any image on any host"):
        builders.training_sets(tiny_config)
