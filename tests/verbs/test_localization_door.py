"""A run that localises by classification: what it measures, what it leaves, and how its class database is used."""

import csv
import json
import re
import shutil

import jax
import numpy as np
import pytest

from data_pipelines import readers
from jaxvpr import builders, families
from jaxvpr.cli.recipes import load_config
from jaxvpr.retrieval import metrics
from jaxvpr.runs import database_file, which, workdir
from jaxvpr.training.checkpoint import Checkpoints


@pytest.fixture(scope="module")
def recipe(tiny_recipe):
    """CosPlace's cells: what the shared run compiles serves here too."""
    return f"{tiny_recipe},eval.localize=true,best.measure=LR@1"


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    """The folder of a finished run."""
    from jaxvpr.main import main
    from tests.conftest import console

    folder = tmp_path_factory.mktemp("localized") / "run"
    with console(), jax.numpy_dtype_promotion("standard"):
        assert main([f"--config={recipe}", f"--workdir={folder}"]) == 0
    return folder


def localized(folder):
    return metrics.read_metrics(folder / "metrics.json")["results"][0]["localization"]


def database(folder):
    with (folder / "classes.csv").open(newline="") as stream:
        return np.load(folder / "classes.npy"), list(csv.DictReader(stream))


def test_lr_is_that_of_the_heads_of_the_best_step(recipe, run, photo_tree):
    """A slow loop over groups, classes and photos gives the LR@N that was measured and the rows that were written."""
    config = load_config(recipe)
    checkpoints = Checkpoints(run / "checkpoints", read_only=True)
    best = checkpoints.best_step()
    heads = checkpoints.extra(best)["prototypes"]
    train = readers.read("at_names", photo_tree, split="train")
    cells = {}
    for row in range(len(train)):
        cells.setdefault((train.east[row] // 10, train.north[row] // 10, train.heading[row] // 30), []).append(row)
    cells = {key: rows for key, rows in cells.items() if len(rows) >= 2}
    groups = {}  # in the order of their first images, of which the recipe trains two
    for key in sorted(cells, key=lambda key: cells[key][0]):
        groups.setdefault(tuple(np.mod(key, 2)), []).append(key)
    expected, at = [], []
    for slot, keys in enumerate(list(groups.values())[:2]):
        for label, key in enumerate(sorted(keys)):
            expected.append(heads[slot, label] / np.linalg.norm(heads[slot, label]))
            at.append([10 * key[0] + 5, 10 * key[1] + 5])
    prototypes, rows = database(run)
    np.testing.assert_allclose(prototypes, expected, atol=1e-6)
    np.testing.assert_allclose([[float(row["east"]), float(row["north"])] for row in rows], at, atol=1e-6)

    queries = readers.read("at_names", photo_tree, split="test").select(role="query")
    _, variables = which.uncompressed(config, run, str(best))
    with jax.numpy_dtype_promotion("standard"):
        shown = builders.describer(config, builders.mesh(config))(variables, queries.path).descriptors
    right = {1: 0, 5: 0, 10: 0}
    for q in range(len(queries)):
        order = sorted(range(len(expected)), key=lambda c: -float(shown[q] @ expected[c]))
        near = [np.hypot(queries.east[q] - at[c][0], queries.north[q] - at[c][1]) <= 25 for c in order]
        for n in right:
            right[n] += any(near[:n])
    measured = localized(run)
    assert measured["recall"]["25m"] == {str(n): round(100 * count / len(queries), 4) for n, count in right.items()}
    assert measured["classes"] == len(expected) and set(measured["interval95"]["25m"]) == {"1", "5", "10"}


def test_validation_measures_lr_and_lr_decides(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    looks = [line for line in lines if "epoch" in line]
    assert [set(line) for line in looks] == [
        {"step", "epoch", *(f"val/{kind}@{n}" for kind in ("R", "LR") for n in (1, 5, 10))}
    ] * 2
    best = max(looks, key=lambda line: line["val/LR@1"])  # the first, if both are as good
    assert Checkpoints(run / "checkpoints", read_only=True).best_step() == best["step"]


def test_the_report_has_a_table_of_lr(run):
    page = (run / "report.html").read_text()
    measured = localized(run)
    assert "<th>LR@1</th>" in page and f"{measured['classes']} classes | 25m" in page
    assert f"<td>{measured['recall']['25m']['10']:.1f}<small>" in page


def test_evaluate_measures_the_same(door, recipe, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "metrics.json").unlink()
    answer = door("evaluate", f"--config={recipe}", f"--workdir={copy}")
    assert answer.status == 0, answer.err
    assert localized(copy / "evaluate") == localized(run)
    assert "by classification  LR@1" in answer.out and "cosine with prototypes (exact)" in answer.out


def test_classes_of_another_model_do_not_answer(recipe, run, tmp_path, caplog):
    """They do not come from photos, so photos may be shown at another size."""
    checkpoints, config = Checkpoints(run / "checkpoints", read_only=True), load_config(recipe).unlock()
    best = checkpoints.best_step()
    (other,) = set(checkpoints.steps()) - {best}
    variables = {step: which.uncompressed(config, run, str(step))[1] for step in (best, other)}
    prototypes, rows = database(run)
    config.image.size = (40, 40)
    found = database_file.classes_in(run, config, variables[best])
    np.testing.assert_array_equal(found.prototypes, prototypes)
    assert list(found.places.path) == [row["path"] for row in rows] and set(found.places.zone) == {33}
    assert database_file.classes_in(run, config, variables[other]) is None
    assert "is of another model: nothing is localised by classification (weights differ)" in caplog.text
    config.image.mean = (0.5, 0.5, 0.5)
    assert database_file.classes_in(run, config, variables[best]) is None and "(image.mean differ)" in caplog.text
    assert database_file.classes_in(tmp_path, config, variables[best]) is None


def test_a_run_that_has_ended_is_localised_later(door, recipe, run, tmp_path):
    """The classes come from its checkpoint; that it was trained without them is no other run."""
    copy = shutil.copytree(run, tmp_path / "run")
    for name in ("classes.npy", "classes.csv", "classes.json", "metrics.json"):
        (copy / name).unlink()
    without = load_config(recipe).unlock()
    without.eval.localize = False
    workdir.refuse_other(copy, without)
    answer = door(f"--config={recipe}", f"--workdir={copy}")
    assert answer.status == 0, answer.err
    assert (copy / "classes.npy").read_bytes() == (run / "classes.npy").read_bytes()
    assert (copy / "classes.csv").read_text() == (run / "classes.csv").read_text()
    assert localized(copy) == localized(run)


def test_localize_answers_with_classes(door, recipe, run, photo_tree, tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for photo in sorted((photo_tree / "images" / "test" / "queries").iterdir())[:4]:
        shutil.copy(photo, photos)
    answer = door(
        "localize", f"--config={recipe}", f"--workdir={run}", f"--database={run / 'classes.npy'}",
        f"--images={photos}", f"--out={out}", "--top=3",
    )  # fmt: skip
    assert answer.status == 0, answer.err
    with (out / "predictions.csv").open(newline="") as stream:
        answers = list(csv.DictReader(stream))
    assert [row["rank"] for row in answers] == ["1", "2", "3"] * 4 and len(list(out.glob("*.png"))) == 4
    columns = ("path", "east", "north", "lat", "lon", "heading")
    known = [[row[column] for column in columns] for row in database(run)[1]]
    assert all([row[column] for column in columns] in known for row in answers)


@pytest.mark.parametrize("groups", [0, 3])
def test_the_square_a_photo_is_trained_as_is_the_one_that_answers(tiny_config, groups):
    """Divide & Classify's partition, through the recipe's keys, with the loss and the padding of four-fold classes."""
    config = tiny_config.copy_and_resolve_references().unlock()
    config.objective.partition.update(by="square", M=20.0, N=2, groups=groups)
    config.objective.loss, config.eval.localize = "easy_arcface", True
    recipe = families.recipe(config.lock(), builders.mesh(config), [])
    places = recipe.classes.places
    (heads,) = recipe.objective.init(jax.random.key(0), 8)[0].values()
    assert heads.shape[0] == len(set(recipe.classes.slot)) == (groups or 4) and heads.shape[1] % 8 == 0
    east, north = (np.array([float(path.split("@")[field]) for path in recipe.images]) for field in (1, 2))
    for number in range(4):
        plan, _ = recipe.objective.plan(number, np.random.default_rng(number), {}, None)
        own = np.flatnonzero(recipe.classes.slot == plan.slot)
        assert recipe.classes.label[own].tolist() == list(range(len(own)))
        drawn = own[plan.draws["source"].label.ravel()]
        rows = plan.draws["source"].rows.ravel()
        assert np.abs(places.east[drawn] - east[rows]).max() <= 10 >= np.abs(places.north[drawn] - north[rows]).max()
        assert (places.east % 20 == 10).all() and np.isnan(places.heading).all()


def test_what_cannot_localise_is_refused(refused, tiny_recipe, tmp_path):
    at = f"--workdir={tmp_path}"
    said = refused(f"--config={tiny_recipe},best.measure=LR@1", at)
    assert re.search(r"best\.measure='LR@1'.*val/R@1", said)
    assert "LR@1, val/LR@5" in refused(f"--config={tiny_recipe},best.measure=LR@2,eval.localize=true", at)
    said = refused(f"--config={tiny_recipe},eval.localize=true,pca.dim=8", at)
    assert re.search(r"eval\.localize=True.*pca\.dim=8\b", said)
    # In a city that is drawn in no time.
    city = "city.blocks=1,city.size=16,city.test_queries=8,city.val_queries=8,city.database_spacing=40"
    sets = ("train_data", "val_data.minicity_val", "test_data.minicity")
    roots = ",".join(f"{data}.root={tmp_path / 'city'}" for data in sets)
    said = refused(f"--config=configs/gsv_cities.py:tiny,eval.localize=true,{city},{roots}", at)
    assert re.search(r"objective\.name='cells'.*'places'.*eval\.localize=false", said)


def test_metrics_with_a_localisation_are_checked(run):
    document = json.loads((run / "metrics.json").read_text())
    for key, value, said in (
        ("classes", 0, r"localization\.classes.*\bnumber\b.*\b0\b"),
        ("without_class", {"30m": 1}, r"without_class.*\['25m'\]"),
        ("recall", {"25m": {"1": 50.0, "5": 40.0}}, r"localization\.recall.*\bfall\b"),
    ):
        broken = json.loads(json.dumps(document))
        broken["results"][0]["localization"][key] = value
        with pytest.raises(Exception, match=said):
            metrics.validate(broken)
