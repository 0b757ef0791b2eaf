"""Clusters that the VLAD family starts from, through the door: of which images, and when a file has them already."""

import json
import re
import shutil

import jax
import numpy as np
import pytest

import jaxvpr
from data_pipelines.images import decode, resize
from jaxvpr import builders, families, weights
from jaxvpr.cli.recipes import load_config
from jaxvpr.errors import UserError

# Small enough for all cells of all images to be clustered: what came out can then be checked against all of them.
RECIPE = """
import runpy
from ml_collections import ConfigDict


def get_config(preset=""):
    config = runpy.run_path({tiny!r})["get_config"]().unlock()
    config.name = "clusters"
    config.model.aggregator, config.model.aggregator_options = "netvlad", ConfigDict({{"clusters": 4}})
    config.clusters.images, config.clusters.per_image = 100, 4
    config.image.size, config.image.resize = {size}, "pil_bilinear"
    config.optimizer.warmup = config.optimizer_extra.warmup = 0
    config.eval.baselines = False
    if preset in ("untrained", "bare"):
        config.train_data = ConfigDict({{}})
    if preset == "bare":
        config.test_data = ConfigDict({{}})
    if preset == "pooled":
        config.model.aggregator, config.model.aggregator_options = "gem", ConfigDict({{}})
    return config.lock()
"""
SIZE = (8, 8)  # the backbone makes 2 x 2 cells of it
MADE = "local features of"
NETVLAD = "^(backbone|aggregator/(conv|centroids))"


@pytest.fixture(scope="module")
def recipe(tiny_recipe, tmp_path_factory):
    """`tiny` with a NetVLAD of four clusters that start from all images; and presets without training data, without
    any data, and with an aggregator that has no clusters."""
    file = tmp_path_factory.mktemp("clusters") / "clusters.py"
    file.write_text(RECIPE.format(tiny=str(tiny_recipe), size=SIZE))
    return file


@pytest.fixture(scope="module")
def backbone(trained_run):
    """FILE:PATTERN of a backbone whose head is another one."""
    return f"{trained_run / 'model.safetensors'}:^backbone"


@pytest.fixture(scope="module")
def netvlad(recipe, backbone, tmp_path_factory):
    """A file of the whole model, with clusters that no k-means would make."""
    file = tmp_path_factory.mktemp("netvlad") / "netvlad.safetensors"
    config = load_config(f"{recipe},init={backbone},clusters.images=0")
    variables = builders.initial_variables(config)
    head = variables["params"]["aggregator"]
    head["centroids"] = np.arange(64, dtype=np.float32).reshape(4, 16)
    weights.write(file, weights.to_torch("jaxvpr", variables), {"jaxvpr_config": config.to_json()})
    return file


def local_features(recipe, variables, folder):
    """Unit features [n, 16] of all cells of all images of a folder, by the backbone alone."""
    module = builders.model(load_config(str(recipe)))
    images = np.stack([resize(decode(file), SIZE, "pil_bilinear") for file in sorted(folder.iterdir())])
    seen = (images / 255 - np.array(module.mean)) / np.array(module.std)
    own = {kind: tree["backbone"] for kind, tree in variables.items() if "backbone" in tree}
    with jax.numpy_dtype_promotion("standard"):
        found = module.backbone.apply(own, seen.astype(np.float32)).map
    found = np.asarray(found, np.float32).reshape(-1, found.shape[-1])
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)


def are_clusters_of(centroids, features):
    """Whether each centroid is the mean of the features nearest to it, which ends Lloyd's iterations."""
    nearest = np.linalg.norm(features[:, None] - centroids[None], axis=-1).argmin(1)
    if len(set(nearest)) < len(centroids):
        return False
    means = np.stack([features[nearest == k].mean(0) for k in range(len(centroids))])
    return bool(np.abs(means - centroids).max() < 2e-3)


def exported(door, recipe, out, *changes):
    """The variables that a recipe starts from, as `export` writes them without a checkpoint; and what was said."""
    status, _, err = door("export", f"--config={recipe}", *changes, f"--out={out}", f"--workdir={out.parent / 'none'}")
    assert status == 0, err
    config = load_config(str(recipe))
    return weights.init_from(builders.shapes(config), out), err


def test_training_starts_from_clusters_of_its_images(recipe, backbone, photo_tree):
    config = load_config(f"{recipe},init={backbone}")
    with jax.numpy_dtype_promotion("standard"):
        started = families.recipe(config, builders.mesh(config), []).start(None)
    centroids = started["params"]["aggregator"]["centroids"]
    train, database = (
        local_features(recipe, started, photo_tree / "images" / part) for part in ("train", "test/database")
    )
    assert train.shape == (300, 16)
    assert are_clusters_of(centroids, train) and not are_clusters_of(centroids, database)
    # The second nearest cluster weighs a hundredth of the nearest, on average over the features.
    kernel = started["params"]["aggregator"]["conv"]["kernel"].reshape(16, 4)
    logits = np.sort(train @ kernel, axis=1)
    assert np.mean(logits[:, -1] - logits[:, -2]) == pytest.approx(np.log(100), rel=1e-3)


@pytest.mark.long
def test_a_resumed_run_ends_as_the_whole_one(door, recipe, tmp_path):
    """Clusters are part of where the run started, and made again to the bit."""
    whole, part = tmp_path / "whole", tmp_path / "part"
    command = ["train", f"--config={recipe}", "--config.steps_per_epoch=3"]
    status, _, err = door(*command, f"--workdir={whole}")
    assert status == 0 and f"clusters of 300 {MADE} 75 images" in err, err
    steps = sorted(int(path.name) for path in (whole / "checkpoints").iterdir())
    assert steps == [3, 6]
    shutil.copytree(whole, part)
    shutil.rmtree(part / "checkpoints" / "6")
    for name in ("model.safetensors", "metrics.json"):
        (part / name).unlink()
    status, _, err = door(*command, f"--workdir={part}")
    assert status == 0 and "resumed at step 3 of 6" in err, err
    assert (part / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    ours, theirs = (json.loads((folder / "metrics.json").read_text())["results"] for folder in (part, whole))
    assert ours == theirs


def test_without_training_data_the_database_is_clustered(door, recipe, backbone, photo_tree, tmp_path):
    """Of `evaluate` and of any verb that starts from the recipe's own weights."""
    untrained, init = f"{recipe}:untrained", f"--config.init={backbone}"
    status, out, err = door("evaluate", f"--config={untrained}", init, f"--workdir={tmp_path / 'run'}")
    assert status == 0 and f"clusters of 200 {MADE} 50 images" in err and "64-D" in out, err
    started, _ = exported(door, untrained, tmp_path / "first.safetensors", init)
    features = local_features(recipe, started, photo_tree / "images" / "test" / "database")
    assert are_clusters_of(started["params"]["aggregator"]["centroids"], features)


def test_the_seed_decides(door, recipe, backbone, tmp_path):
    """Where the backbone comes from a file, only the draw of images and cells and k-means itself are random."""
    few = [f"--config.init={backbone}", "--config.clusters.images=9", "--config.clusters.per_image=3"]
    found = []
    for number, seed in enumerate((0, 0, 1)):
        out = tmp_path / f"{number}.safetensors"
        started, err = exported(door, recipe, out, *few, f"--config.seed={seed}")
        assert f"clusters of 27 {MADE} 9 images" in err
        found.append(started["params"]["aggregator"])
    for leaf, again, other in zip(*map(jax.tree.leaves, found), strict=True):
        assert np.array_equal(leaf, again) and not np.allclose(leaf, other, atol=1e-3)


def test_clusters_of_a_file_stay(door, recipe, netvlad, tmp_path):
    status, _, err = door("evaluate", f"--config={recipe},weights={netvlad}", f"--workdir={tmp_path / 'a'}")
    assert status == 0 and MADE not in err, err
    status, _, err = door("evaluate", f"--config={recipe}", f"--checkpoint={netvlad}", f"--workdir={tmp_path / 'b'}")
    assert status == 0 and MADE not in err, err


def test_a_crn_keeps_the_clusters_of_the_netvlad_it_starts_from(door, recipe, netvlad, backbone, tmp_path):
    changes = ["--config.model.aggregator=crn", f"--config.init={netvlad}:{NETVLAD}"]
    out = tmp_path / "crn.safetensors"
    status, _, err = door("export", f"--config={recipe}", *changes, f"--out={out}", "--family=jaxvpr",
                          f"--workdir={tmp_path}")  # fmt: skip
    assert status == 0 and MADE not in err, err
    ours, theirs = weights.read(out), weights.read(netvlad)
    kept = {name for name in ours if "crn" not in name}
    assert kept == set(theirs) and kept < set(ours)
    for name in kept:
        assert np.array_equal(ours[name], theirs[name]), name
    # Its own clusters are made where only the backbone came from a file.
    config = load_config(f"{recipe},init={backbone},model.aggregator=crn,clusters.images=3")
    with jax.numpy_dtype_promotion("standard"):
        made = builders.initial_variables(config)["params"]["aggregator"]
    assert np.abs(made["centroids"]).max() <= 1 < np.abs(ours["aggregator.centroids"]).max()


def test_half_of_the_clusters_from_a_file_is_refused(refused, recipe, netvlad, tmp_path):
    said = refused("export", f"--config={recipe}", f"--config.init={netvlad}:^(backbone|aggregator/conv)",
                   f"--out={tmp_path / 'out.pth'}", f"--workdir={tmp_path}")  # fmt: skip
    assert re.search(r"\['conv/kernel'\].*\['centroids'\].*init=FILE", said)


def test_an_aggregator_without_clusters_is_refused(refused, recipe, tmp_path):
    said = refused("export", f"--config={recipe}:pooled", f"--out={tmp_path / 'out.pth'}", f"--workdir={tmp_path}")
    assert re.search(r"clusters.*\['p'\].*netvlad, crn, vlad.*supervlad", said)


def test_what_no_file_gives_is_drawn_as_if_everything_were(tiny_config, backbone):
    config = tiny_config.copy_and_resolve_references().unlock()
    config.init = backbone
    every = jax.device_get(jax.jit(lambda: builders.fresh_variables(config))())["params"]
    started = builders.initial_variables(config.lock())["params"]
    assert {"fc", "gem"} <= set(started["aggregator"])
    for leaf, drawn in zip(*map(jax.tree.leaves, (started["aggregator"], every["aggregator"])), strict=True):
        np.testing.assert_array_equal(leaf, drawn)
    assert not np.array_equal(started["backbone"]["conv1"]["kernel"], every["backbone"]["conv1"]["kernel"])


def test_no_images_to_cluster_is_refused(refused, recipe, backbone, tmp_path):
    said = refused("export", f"--config={recipe}:bare", f"--config.init={backbone}",
                   f"--out={tmp_path / 'out.pth'}", f"--workdir={tmp_path / 'run'}")  # fmt: skip
    assert re.search(r"clusters\.images.*train_data.*test_data", said)


def test_clusters_of_a_database_lie_beside_it_and_localize_finds_them(
    door, refused, recipe, backbone, photo_tree, tmp_path
):
    """With a recipe that trains on nothing and has no data of its own."""
    bare, out = f"{recipe}:bare,init={backbone}", tmp_path / "places.npy"
    database, queries = (photo_tree / "images" / "test" / part for part in ("database", "queries"))
    extract = ["extract", f"--config={bare}", f"--images={database}", f"--out={out}", f"--workdir={tmp_path / 'run'}"]
    status, _, err = door(*extract, "--dry-run")
    assert status == 0 and MADE not in err and not out.exists(), err
    status, said, err = door(*extract)
    assert status == 0 and f"clusters of 200 {MADE} 50 images" in err and "places.safetensors" in said, err
    started = weights.init_from(builders.shapes(load_config(bare)), out.with_suffix(".safetensors"))
    features = local_features(recipe, started, database)
    assert are_clusters_of(started["params"]["aggregator"]["centroids"], features)

    with jax.numpy_dtype_promotion("standard"):
        for model in (jaxvpr.load(bare, images=database), jaxvpr.load(out.with_suffix(".safetensors"))):
            np.testing.assert_allclose(model.describe(sorted(database.iterdir())), np.load(out), atol=1e-5)
    with pytest.raises(UserError, match=r"clusters\.images=100.*jaxvpr\.load\(NAME, images=FOLDER\)"):
        jaxvpr.load(bare)

    localize = ["localize", f"--images={queries}", f"--database={out}", f"--workdir={tmp_path / 'run'}"]
    elsewhere = f"{recipe}:bare,init={tmp_path / 'not_on_this_machine.pth'}"  # the model beside the database is whole
    status, said, err = door(*localize, f"--config={elsewhere}", f"--out={tmp_path / 'found'}")
    assert status == 0 and MADE not in err and "places.safetensors" in err, err
    assert "(4, 16) for aggregator/centroids (5, 16)" in refused(
        *localize, f"--config={bare},model.aggregator_options.clusters=5", f"--out={tmp_path / 'others'}"
    )
    out.with_suffix(".safetensors").unlink()
    assert "localize finds them beside the database (.safetensors)" in refused(
        *localize, f"--config={bare}", f"--out={tmp_path / 'others'}"
    )
    pair = [f"--database={database}", f"--queries={queries}", f"--out={tmp_path / 'measured'}"]
    status, _, err = door("evaluate", f"--config={bare}", *pair)
    assert status == 0 and f"clusters of 200 {MADE} 50 images" in err, err
