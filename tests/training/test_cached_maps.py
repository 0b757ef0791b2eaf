"""Heads on cached feature maps: the same training as behind a frozen backbone, without running it again."""

import json
import shutil

import jax
import numpy as np
import pytest

from jaxvpr import builders, weights
from jaxvpr.cli.recipes import load_config
from jaxvpr.parallel.mesh import make_mesh

RECIPE = """
import runpy
from ml_collections import ConfigDict
from configs import common



def get_config(preset=""):
    config = runpy.run_path({tiny!r})["get_config"]().unlock()
    config.name = "maps"
    config.augment = common.base().augment
    config.init = {init!r}
    config.model.backbone_options.frozen_bn = "all"
    config.model.aggregator = "project"
    inner = {{"aggregator": "netvlad", "aggregator_options": ConfigDict({{"clusters": 4}})}}
    config.model.aggregator_options = ConfigDict({{"inner": ConfigDict(inner)}})
    config.clusters.images, config.clusters.per_image = 100, 4
    config.frozen = ("^backbone/",)
    config.optimizer = common.optimizer("sgd", 1e-2)
    config.eval.baselines = False
    if preset == "triplets":
        config.objective = common.mined_triplets(negatives=2, refresh=24, pool=30)
        config.batch = 4
    return config.lock()
"""


@pytest.fixture(scope="module")
def recipe(tiny_recipe, trained_run, tmp_path_factory):
    """`tiny`, its trained backbone frozen, and a projection before a NetVLAD of 4 clusters."""
    file = tmp_path_factory.mktemp("maps") / "maps.py"
    init = f"{trained_run / 'model.safetensors'}:^backbone"
    file.write_text(RECIPE.format(tiny=str(tiny_recipe), init=init))
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("features")


@pytest.fixture
def cached(folder):
    return ["--config.maps.cached=true", f"--config.maps.folder={folder}"]


def trained(door, recipe, run, *changes):
    status, _, err = door("train", f"--config={recipe}", *changes, f"--workdir={run}")
    assert status == 0, err
    return weights.read(run / "model.safetensors"), json.loads((run / "metrics.json").read_text()), err


@pytest.mark.long
@pytest.mark.parametrize("preset", ["", ":triplets"])
def test_a_head_learns_what_it_does_behind_the_frozen_backbone(door, recipe, cached, tmp_path, preset):
    """float16 keeps three digits; all else is the same training."""
    start = tmp_path / "start.safetensors"  # clusters of cached features are those of other cells of the images
    assert not door("export", f"--config={recipe}", *cached, f"--out={start}", f"--workdir={tmp_path / 'none'}").status
    init = f"--config.init={start}"
    ours, found, _ = trained(door, f"{recipe}{preset}", tmp_path / "ours", init, *cached)
    theirs, expected, _ = trained(door, f"{recipe}{preset}", tmp_path / "theirs", init)
    assert set(ours) == set(theirs), "what is saved is one whole model"
    moved = 0
    for name in ours:
        if name.startswith("backbone"):
            np.testing.assert_array_equal(ours[name], theirs[name])
        else:
            np.testing.assert_allclose(ours[name], theirs[name], atol=1e-3)
            if "project" in name and ours[name].ndim == 2:
                moved += float(np.abs(theirs[name] - np.eye(len(theirs[name]))).max())
    assert moved > 2e-3, "the projection has left the identity"
    losses = [[line["loss"] for line in lines(tmp_path / run) if "loss" in line] for run in ("ours", "theirs")]
    np.testing.assert_allclose(*losses, rtol=0.02, atol=1e-4)
    assert len(set(losses[0])) > 1
    ours, theirs = ([one["R@5"] for one in lines(tmp_path / run) if "R@5" in one] for run in ("ours", "theirs"))
    assert ours == theirs
    assert [set(result) for result in found["results"]] == [set(result) for result in expected["results"]]


def lines(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.long
def test_what_is_kept_is_computed_once_and_a_resumed_run_ends_as_the_whole_one(door, recipe, cached, tmp_path):
    whole, part, crop = tmp_path / "whole", tmp_path / "part", "--config.maps.crop=0.75"
    trained(door, recipe, whole, *cached, crop)
    shutil.copytree(whole, part)
    shutil.rmtree(part / "checkpoints" / "12")
    (part / "model.safetensors").unlink()
    _, _, err = trained(door, recipe, part, *cached, crop)
    assert "resumed at step 6 of 12" in err and "describing" not in err.split("resumed")[0]
    assert (part / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_features_are_those_of_the_backbone_and_give_its_descriptors(recipe, folder, photo_tree):
    config = load_config(f"{recipe},maps.cached=true,maps.folder={folder}")
    with jax.numpy_dtype_promotion("standard"):
        over = make_mesh()
        variables = builders.filled(config, builders.initial_variables(config))
        paths = builders.training_sets(config)[0].path
        kept = builders.maps_kept(config, variables, paths, over)
        whole = builders.describer(config, over)(variables, paths).descriptors
        head = builders.kept_describer(config, over, kept)(variables, paths).descriptors
    np.testing.assert_allclose(head, whole, atol=2e-3)
    assert np.ptp(whole, axis=0).max() > 0.05


def test_other_weights_or_another_size_share_nothing(recipe, folder):
    config = load_config(f"{recipe},maps.cached=true,maps.folder={folder}")
    with jax.numpy_dtype_promotion("standard"):
        variables = builders.filled(config, builders.initial_variables(config))
        none = builders.training_sets(config)[0].path.take(np.zeros(0, np.int64))
        before = {path.name for path in folder.iterdir()}
        builders.maps_kept(config, variables, none, make_mesh())
        same = {path.name for path in folder.iterdir()} - before
        variables["params"]["backbone"]["conv1"]["kernel"] += 1
        builders.maps_kept(config, variables, none, make_mesh())
        others = {path.name for path in folder.iterdir()} - before - same
    assert len(others) == 1 and len(same) <= 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ("augment.brightness=0.3", "nothing of config.augment would happen"),
        ("maps.crop=1.5", "config.maps.crop=1.5"),
        ("image.size=(),image.multiple=8", "needs images of one size"),
        ("domain.method=mmd,target_data.root={root}", "domain.method='mmd' looks at the images themselves"),
        ("init=", "frozen parameters start from random numbers"),
    ],
)
def test_what_features_cannot_stand_in_for_is_refused(refused, recipe, folder, photo_tree, tmp_path, changes, words):
    changes = changes.format(root=photo_tree / "images" / "train")
    said = refused(
        "train", f"--config={recipe},maps.cached=true,maps.folder={folder},{changes}", f"--workdir={tmp_path}"
    )
    assert words in said


def test_dry_run_computes_nothing_and_shows_the_images(door, recipe, tmp_path):
    changes = f"maps.cached=true,maps.folder={tmp_path / 'features'}"
    status, out, err = door("train", f"--config={recipe},{changes}", f"--workdir={tmp_path / 'run'}", "--dry-run")
    assert status == 0 and "of which" in out + err
    assert (tmp_path / "run" / "first_batch.png").stat().st_size > 2000
    assert not (tmp_path / "features").exists()
