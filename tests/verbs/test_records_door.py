"""Records through the doors: written from a recipe or a folder, then described and measured as the files are."""

import json
import re

import numpy as np
import pytest

from data_pipelines.records import shards
from jaxvpr.retrieval import metrics

pytest.importorskip("tensorflow_datasets")


@pytest.fixture(scope="module")
def written(photo_tree, tiny_recipe, tmp_path_factory):
    """The command that wrote the test images of `photo_tree` as records, and their folder."""
    out = tmp_path_factory.mktemp("written") / "records"
    images = [f"--images={photo_tree}", "--reader=at_names,split=test"]
    return ["records", f"--config={tiny_recipe}", *images, f"--out={out}", "--workers=1"], out


def flags(trained_run, tiny_recipe):
    return [f"--config={tiny_recipe},eval.baselines=false", f"--checkpoint={trained_run / 'model.safetensors'}"]


def test_a_model_sees_the_same_images(door, refused, written, trained_run, tiny_recipe, photo_tree, tmp_path):
    command, out = written
    status, printed, err = door(*command, "--shards=3")
    assert status == 0 and f"{out}: 75 images in 3 files" in printed and "verified" in printed, err
    assert "has these records already" in refused(*command, "--shards=3")
    model, files = flags(trained_run, tiny_recipe), [f"--images={photo_tree}", "--reader=at_names,split=test"]
    for name, images in (("files", files), ("records", [f"--images={out}", "--reader=records"])):
        status, _, err = door("extract", *model, *images, f"--out={tmp_path / name}.npy")
        assert status == 0, err
    assert np.array_equal(np.load(tmp_path / "files.npy"), np.load(tmp_path / "records.npy"))
    ours, theirs = (tmp_path / f"{name}.csv" for name in ("records", "files"))
    strip = re.compile(r"^.*/", re.MULTILINE)
    assert strip.sub("", ours.read_text()) == strip.sub("", theirs.read_text())


@pytest.mark.long
def test_records_are_measured_and_shown_as_files_are(door, written, trained_run, tiny_recipe, tmp_path):
    command, out = written
    if not out.exists():
        assert door(*command, "--shards=3").status == 0
    pair = [f"--database={out}", f"--queries={out}", "--reader=records", f"--out={tmp_path / 'found'}"]
    status, _, err = door("evaluate", *flags(trained_run, tiny_recipe), *pair)
    assert status == 0, err
    found, expected = (metrics.read_metrics(f / "metrics.json")["results"] for f in (tmp_path / "found", trained_run))
    assert found[0]["recall"] == expected[0]["recall"]
    assert "data:image/jpeg" in (tmp_path / "found" / "report.html").read_text()


@pytest.mark.long
def test_a_recipe_trains_on_what_it_wrote(door, refused, tiny_recipe, trained_run, tmp_path):
    out = tmp_path / "records"
    assert door("records", f"--config={tiny_recipe}", f"--out={out}", "--shards=2", "--workers=1").status == 0
    changed = f"{tiny_recipe},train_data.reader=records,train_data.root={out}"
    status, _, err = door(f"--config={changed}", f"--workdir={tmp_path / 'run'}")
    assert status == 0, err
    lines, expected = ((folder / "log.jsonl").read_text().splitlines() for folder in (tmp_path / "run", trained_run))
    losses = [[one.get("loss") for one in map(json.loads, log)] for log in (lines, expected)]
    assert losses[0] == losses[1] and any(losses[0])
    first = out / shards.file_name("train", 0, 2)
    first.write_bytes(first.read_bytes()[:-1])
    assert f"{first}: this file of records has" in refused(f"--config={changed}", f"--workdir={tmp_path / 'other'}")
    assert f"{first}: this" in refused("records", f"--config={tiny_recipe}", f"--out={out}", "--verify")
    assert door("records", f"--config={tiny_recipe}", f"--out={out}", "--shards=2").status == 0
    assert door("records", f"--config={tiny_recipe}", f"--out={out}", "--verify").status == 0
    assert "holds no records" in refused("records", f"--config={tiny_recipe}", f"--out={tmp_path / 'x'}", "--verify")
