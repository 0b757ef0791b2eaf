"""The PCA of a recipe through the door: trained, measured again in every way there is, and of a model alone."""

import json
import re
import shutil

import jax
import numpy as np
import pytest

import jaxvpr
from data_pipelines.readers.folder import paths
from jaxvpr import weights
from jaxvpr.cli.recipes import load_config
from jaxvpr.errors import UserError
from jaxvpr.retrieval import metrics
from jaxvpr.runs import compressed
from jaxvpr.verbs import train

FITTING, KEPT = "fitting one", "with the PCA of"


def measured(folder):
    (entry,) = metrics.read_metrics(folder / "metrics.json")["results"]
    return entry


def principal(fitted_on, x, dim):
    """The leading principal components of `x` by NumPy alone, as unit vectors; signs are any."""
    mean = fitted_on.mean(0, dtype=np.float64)
    _, vectors = np.linalg.eigh(np.cov(fitted_on.T.astype(np.float64)))
    y = (x - mean) @ vectors[:, ::-1][:, :dim]
    return y / np.linalg.norm(y, axis=1, keepdims=True)


def describe(model, folder):
    return jaxvpr.load(model).describe(list(paths(str(folder))))


@pytest.fixture(scope="module")
def recipe(tiny_recipe):
    """The flag of the recipe with a PCA to 8 of 32 numbers."""
    return f"--config={tiny_recipe},pca.dim=8"


@pytest.fixture(scope="module")
def finished(recipe, trained_run, tmp_path_factory):
    """The folder of a finished run without a PCA, after the same command with one: nothing is trained again."""
    folder = shutil.copytree(trained_run, tmp_path_factory.mktemp("compressed") / "run")
    with jax.numpy_dtype_promotion("standard"):
        train.run(load_config(recipe.removeprefix("--config=")), folder)
    return folder


@pytest.fixture
def small(finished, tmp_path):
    """A copy of that folder, to be changed."""
    return shutil.copytree(finished, tmp_path / "run")


def test_a_run_ends_compressed_and_is_measured_so(small, trained_run, photo_tree):
    entry, before = measured(small), measured(trained_run)
    assert entry["protocol"]["dimension"] == 8 and before["protocol"]["dimension"] == 32
    assert sorted(entry["baselines"]) == ["thumbnail", "uncompressed", "untrained"]
    assert entry["baselines"]["uncompressed"] == before["recall"] != entry["baselines"]["untrained"]
    notes = json.loads(weights.read_metadata(small / "model.safetensors")["jaxvpr_config"])
    assert notes["model"]["aggregator"] == "fc" and notes["pca"]["dim"] == 0
    assert notes["model"]["aggregator_options"]["inner"]["aggregator"] == "cosplace"
    images = photo_tree / "images"
    train, test = (describe(trained_run, images / part) for part in ("train", "test/database"))
    expected, found = principal(train, test, 8), describe(small, images / "test" / "database")
    signs = np.sign(np.sum(expected * found, 0))
    np.testing.assert_allclose(found, expected * signs, atol=1e-4)
    assert "uncompressed" in (small / "report.html").read_text()


def test_evaluate_finds_what_the_training_found(door, recipe, small, tmp_path):
    expected, file = measured(small)["recall"], small / "model.safetensors"
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(file, alone)
    for folder, more, said in (
        (small, [], KEPT),
        (alone, [], f"measuring {alone / 'model.safetensors'}"),
        (tmp_path / "new", [f"--checkpoint={file}"], f"measuring {file}"),
    ):
        status, _, err = door("evaluate", recipe, f"--workdir={folder}", "--config.eval.baselines=false", *more)
        assert status == 0 and said in err and FITTING not in err, err
        (out,) = folder.glob("evaluate*")
        assert measured(out)["recall"] == expected
    file.unlink()
    status, _, err = door("evaluate", recipe, f"--workdir={small}")
    assert status == 0 and FITTING in err, err
    found = measured(small / "evaluate")
    assert found["recall"] == expected and "uncompressed" in found["baselines"]


def test_a_pca_of_other_weights_or_keys_is_fitted_anew(door, recipe, small):
    quiet = [f"--workdir={small}", "--config.eval.baselines=false"]
    for more in (["--config.pca.whiten=true"], ["--config.pca.images=60", "--config.pca.dim=4"]):
        status, _, err = door("evaluate", recipe, *quiet, *more)
        assert status == 0 and FITTING in err, err
    assert measured(small / "evaluate")["protocol"]["dimension"] == 4
    said = [door("evaluate", recipe, *quiet, f"--checkpoint={step}").err for step in (6, 12)]
    assert sum(KEPT in err for err in said) == sum(FITTING in err for err in said) == 1, "the best has the PCA"


def test_extract_and_export_have_it_too(door, recipe, small, photo_tree, tmp_path):
    images = photo_tree / "images" / "test" / "queries"
    out = tmp_path / "db.npy"
    status, said, err = door("extract", recipe, f"--workdir={small}", f"--images={images}", f"--out={out}")
    assert status == 0 and "(25, 8)" in said and KEPT in err, err
    np.testing.assert_allclose(np.load(out), describe(small, images), atol=1e-5)
    file = tmp_path / "exported.safetensors"
    status, _, err = door("export", recipe, f"--workdir={small}", f"--out={file}")
    assert status == 0, err
    np.testing.assert_allclose(np.load(out), describe(file, images), atol=1e-5)


def test_compress_a_model_alone(door, tiny_recipe, trained_run, photo_tree, tmp_path):
    """Of the recipe's training images, or of a folder; the file serves as a checkpoint and by itself."""
    model, images = f"--checkpoint={trained_run / 'model.safetensors'}", photo_tree / "images"
    plain = describe(trained_run, images / "test" / "queries")
    for name, more, fitted_on in (
        ("a", [], images / "train"),
        ("b", [f"--images={images / 'test' / 'database'}"], images / "test" / "database"),
    ):
        out = tmp_path / name / "small.safetensors"
        command = ["compress", f"--config={tiny_recipe},pca.dim=5", model, f"--out={out}", f"--workdir={tmp_path}"]
        status, said, err = door(*command, *more)
        assert status == 0 and f"wrote {out}: 5 numbers a descriptor" in said, err
        found = describe(out, images / "test" / "queries")
        expected = principal(describe(trained_run, fitted_on), plain, 5)
        np.testing.assert_allclose(found, expected * np.sign(np.sum(expected * found, 0)), atol=1e-4)


def test_what_cannot_be_compressed_is_told(refused, recipe, tiny_recipe, trained_run, photo_tree, tmp_path):
    model, out = f"--checkpoint={trained_run / 'model.safetensors'}", f"--out={tmp_path / 'small.safetensors'}"
    compress = ["compress", model, f"--workdir={tmp_path / 'run'}"]
    assert "--config=RECIPE,pca.dim=512" in refused(*compress, f"--config={tiny_recipe}", out)
    assert re.search(r"--out=small\.pth.*\.safetensors", refused(*compress, recipe, "--out=small.pth"))
    assert re.search(r"pca\.dim=33\b.*\b32 numbers", refused(*compress, recipe, "--config.pca.dim=33", out))
    assert re.search(r"pca\.images=8\b.*\b8\b", refused(*compress, recipe, "--config.pca.images=8", out))
    few = tmp_path / "few"
    few.mkdir()
    for photo in sorted((photo_tree / "images" / "train").iterdir())[:7]:
        shutil.copy(photo, few)
    assert "7 training images" in refused(*compress, recipe, f"--images={few}", out)
    # Before anything is trained.
    said = refused(recipe, "--config.pca.dim=40", f"--workdir={tmp_path / 'run'}")
    assert re.search(r"pca\.dim=40\b.*\b32 numbers.*\b32\b", said)
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert re.search(r"pca\.memory_mib=0\b.*\b1\b", refused(*compress, recipe, "--config.pca.memory_mib=0", out))


def test_a_recipe_without_training_images_says_how():
    config = load_config("configs/zoo.py:cosplace-resnet18-32,pca.dim=4")
    with pytest.raises(UserError, match=r"train_data.*--images=FOLDER"):
        compressed.fitted(config, {})


def test_a_file_that_was_compressed_otherwise_is_refused(door, refused, recipe, small, tmp_path):
    file = f"--checkpoint={small / 'model.safetensors'}"
    said = refused("evaluate", recipe, file, "--config.pca.dim=6", "--config.pca.whiten=true", f"--workdir={tmp_path}")
    assert re.search(r"pca\.dim=8, pca\.whiten=False.*pca\.dim=6, pca\.whiten=True", said)
