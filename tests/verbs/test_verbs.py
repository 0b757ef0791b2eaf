"""What a run leaves in its folder, and that measuring it again, in every way there is, gives the same."""

import json
import logging
import os
import re
import shutil

import jax
import numpy as np
import pytest

from jaxvpr import builders, weights
from jaxvpr.parallel import hosts
from jaxvpr.retrieval import metrics
from jaxvpr.runs import model_file, which
from jaxvpr.training import logs
from jaxvpr.verbs import evaluate


def recalls(folder):
    return [entry["recall"] for entry in metrics.read_metrics(folder / "metrics.json")["results"]]


def test_the_folder_of_a_run(trained_run):
    document = metrics.read_metrics(trained_run / "metrics.json")
    (entry,) = document["results"]
    assert sorted(entry["baselines"]) == ["thumbnail", "untrained"] and list(entry["recall"]["25m"]) == ["1", "5", "10"]
    assert (entry["protocol"]["queries"], entry["protocol"]["database"]) == (25, 50)
    assert 0 < document["costs"]["planning_seconds"] < document["costs"]["training_seconds"]
    records = logs.read(trained_run)
    assert [record["step"] for record in records if "loss" in record] == list(range(12))
    assert [(record["step"], record["epoch"]) for record in records if "epoch" in record] == [(6, 1), (12, 2)]
    assert "jaxvpr_config" in weights.read_metadata(trained_run / "model.safetensors")
    assert list((trained_run / "tensorboard").glob("events.out.tfevents.*"))
    report = (trained_run / "report.html").read_text()
    assert "cosplace-tiny" in report and "https://" not in report.replace("https://www.w3.org", "")
    assert json.loads((trained_run / "config.json").read_text())["name"] == "cosplace-tiny"


def test_a_run_that_is_told_to_stop_asks_to_be_started_again(door, tiny_recipe, tmp_path):
    with hosts.stop_on_sigterm() as leave:
        leave.set()
        status, _, err = door(f"--config={tiny_recipe}", f"--workdir={tmp_path}")
    assert status == 75 and "stopped before the end; the same command resumes" in err
    assert any((tmp_path / "checkpoints").iterdir()) and not (tmp_path / "metrics.json").exists()


@pytest.mark.parametrize("which", ["best", "last", "6", "12", "FILE"])
def test_evaluate_finds_what_the_training_found(door, tiny_recipe, trained_run, tmp_path, which):
    run = shutil.copytree(trained_run, tmp_path / "run")
    (run / "metrics.json").unlink()
    checkpoint = str(trained_run / "model.safetensors") if which == "FILE" else which
    status, _, err = door("evaluate", f"--config={tiny_recipe}", f"--workdir={run}", f"--checkpoint={checkpoint}",
                          "--config.eval.baselines=false", "--config.eval.batch=24")  # fmt: skip
    assert status == 0, err
    validated = {record["step"]: record["val/R@1"] for record in logs.read(trained_run) if "val/R@1" in record}
    best = min(validated, key=lambda step: (-validated[step], step))
    step = {"best": best, "last": 12, "6": 6, "12": 12, "FILE": best}[which]
    assert "measuring " + (checkpoint if which == "FILE" else f"step {step} of") in err
    (out,) = run.glob("evaluate*")
    named = {"best": "", "FILE": r"-model-[0-9a-f]{8}"}.get(which, rf"-{which}-[0-9a-f]{{8}}")
    assert re.fullmatch(f"evaluate{named}", out.name)
    if step == best:
        assert recalls(out) == recalls(trained_run)
    assert not (run / "metrics.json").exists(), "the folder of a run is the training's"
    assert (run / "report.html").read_bytes() == (trained_run / "report.html").read_bytes()
    charts = re.findall("(?s)<svg.*?</svg>", (trained_run / "report.html").read_text())
    report = (out / "report.html").read_text()
    assert len(charts) > 1 and sum(chart in report for chart in charts) >= 1, "with the curves of its training"


def test_a_good_run_warns_of_nothing(door, tiny_recipe, trained_run, tmp_path, caplog):
    """No library does: the end of a training reads the best checkpoint and its heads, evaluation a checkpoint."""
    run = shutil.copytree(trained_run, tmp_path / "run")
    for verb in ("train", "evaluate"):
        answer = door(verb, f"--config={tiny_recipe}", f"--workdir={run}", "--config.eval.localize=true")
        assert answer.status == 0, answer.err
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_evaluate_two_folders(door, tiny_recipe, trained_run, photo_tree, tmp_path):
    images = photo_tree / "images" / "test"
    folders = [f"--database={images / 'database'}", f"--queries={images / 'queries'}"]
    model = f"--checkpoint={trained_run / 'model.safetensors'}"
    command = ["evaluate", f"--config={tiny_recipe},eval.baselines=false", model, *folders, f"--workdir={tmp_path}"]
    status, _, err = door(*command)
    assert status == 0, err
    (made,) = tmp_path.iterdir()
    assert re.fullmatch("evaluate-test-model-[0-9a-f]{8}", made.name) and (made / "report.html").is_file()
    assert recalls(made) == recalls(trained_run)
    document = metrics.read_metrics(made / "metrics.json")
    assert not {"planning_seconds", "training_seconds"} & set(document["costs"])
    assert document["results"][0]["protocol"]["split"] == "test"
    out = tmp_path / "elsewhere"
    thresholds = ["--threshold=10m", "--threshold=1km", "--threshold=10m"]
    assert re.search("unknown threshold '1km'.*25m", door(*command, *thresholds, f"--out={out}").err)
    assert door(*command, "--threshold=1000m", "--threshold=25m", f"--out={out}").status == 0
    (found,) = recalls(out)
    assert list(found) == ["1000m", "25m"] and found["25m"] == recalls(trained_run)[0]["25m"]
    assert found["1000m"] == {"1": 100.0, "5": 100.0, "10": 100.0}, "no place is so far away"
    assert re.search(r"elsewhere/metrics\.json exists; --overwrite", door(*command, f"--out={out}").err)
    assert recalls(out) == [found]
    said = door(*command).err
    assert f"{made} has the results of an earlier evaluation: they are replaced" in said
    assert set(tmp_path.iterdir()) == {made, out}


def test_results_of_other_data_lie_in_other_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = evaluate._name("best", ["a/test/database"], ["a/test/queries"])
    assert here == evaluate._name("best", [str(tmp_path / "a/test/database")], ["a/test/../test/queries"])
    d, q = ["a/test/database"], ["a/test/queries"]
    pairs = ((["b/test/database"], q), (d, ["a/val/q"]), ([*d, "b"], q), ([], []))
    others = {evaluate._name(which, *pair) for pair in pairs for which in ("best", "last", "6", "a.pth", "b/a.pth")}
    assert len({here, *others}) == 21 and all(name.startswith("evaluate") for name in others)
    long = evaluate._name("é" * 127, ["d" * 250], [f"{'q' * 255}/x"])
    assert len(os.fsencode(long)) <= 255


@pytest.mark.parametrize("verb", ["compress", "export", "export .json", "import", "extract", "localize", "evaluate"])
def test_no_verb_replaces_a_file_that_is_there(refused, tiny_recipe, trained_run, tmp_path, verb):
    """Before any work; a link that leads nowhere is there too. A sweep leaves such models without checkpoints."""
    mine = {
        "compress": "m.safetensors", "export": "m.pth", "export .json": "m.pth.json", "import": "model.safetensors",
        "extract": "m.npy", "localize": "predictions.csv", "evaluate": "metrics.json",
    }[verb]  # fmt: skip
    out = {"export .json": tmp_path / "m.pth", "localize": tmp_path, "evaluate": tmp_path}.get(verb, tmp_path / mine)
    needs = [f"--out={out}"] if verb != "import" else [f"--checkpoint={trained_run / 'model.safetensors'}"]
    needs += [f"--images={trained_run}"] if verb in ("extract", "localize") else []
    needs += [f"--database={trained_run / 'config.json'}"] if verb == "localize" else []
    change = ",pca.dim=4" if verb == "compress" else ""
    (tmp_path / mine).symlink_to(tmp_path / "none")
    said = refused(verb.split()[0], f"--config={tiny_recipe}{change}", f"--workdir={tmp_path}", *needs)
    assert f"{tmp_path / mine} exists; --overwrite replaces it" in said
    assert [path.name for path in tmp_path.iterdir()] == [mine]


def test_evaluate_says_what_it_lacks(refused, tiny_recipe, trained_run, photo_tree, tmp_path):
    recipe = f"--config={tiny_recipe}"
    said = refused("evaluate", recipe, f"--workdir={tmp_path}")
    assert re.search(r"no checkpoint.*--workdir=FOLDER.*--checkpoint=FILE", said)
    run = f"--workdir={trained_run}"
    assert re.search(r"\bstep 7\b.*\[6, 12\]", refused("evaluate", recipe, run, "--checkpoint=7"))
    (tmp_path / "log.jsonl").write_text("junk\n")
    assert re.search(r"log\.jsonl, line 1\b", refused("evaluate", recipe, f"--workdir={tmp_path}")), "before the work"
    (tmp_path / "log.jsonl").unlink()
    said = refused("evaluate", recipe, run, f"--out={trained_run}")
    assert re.search(rf"--out={re.escape(str(trained_run))} is the folder of a run.*another folder", said)
    said = refused("evaluate", recipe, run, "--checkpoint=none.pth")
    assert re.search(r"--checkpoint=none\.pth.*no such file", said)
    assert re.search("--database.*--queries.*together", refused("evaluate", recipe, run, f"--database={photo_tree}"))
    other = f"--config={tiny_recipe},model.aggregator_options.dim=16"
    model = f"--checkpoint={trained_run / 'model.safetensors'}"
    said = refused("evaluate", other, model, f"--workdir={tmp_path}")
    assert re.search(r"\d+ families.*docs/models\.md", said)


def test_what_a_run_left_comes_before_what_it_began_from(tiny_config, tmp_path):
    """A sweep keeps no checkpoints: its runs leave a model, and their recipes may name weights to start from."""
    config, drawn = tiny_config.copy_and_resolve_references().unlock(), builders.initial_variables(tiny_config)
    begun, folder = tmp_path / "begun.safetensors", tmp_path / "run"
    folder.mkdir()
    model_file.write_model(begun, config, drawn)
    config.init = str(begun)
    model_file.save_model(folder, config, jax.tree.map(lambda leaf: leaf + 1, drawn))
    what, found = which.uncompressed(config, folder, "best")
    assert what == str(folder / model_file.MODEL_FILE)
    jax.tree.map(lambda got, leaf: np.testing.assert_array_equal(got, leaf + 1), found, drawn)
    config.init = f"{begun}:"
    assert which.uncompressed(config, folder, "best")[0] == config.init, "another start than the run's"
