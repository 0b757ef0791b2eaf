"""The verb smoothness: what it measures and writes, of a folder and of a recipe's data sets, and what it refuses."""

import csv
import json
import re

import numpy as np
import pytest


def table(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def model(tiny_recipe, trained_run):
    return [f"--config={tiny_recipe}", f"--workdir={trained_run}"]


def test_a_folder_of_drives(door, refused, model, drive_tree, tmp_path):
    images = [f"--images={drive_tree}", "--reader=csv,file=drives.csv"]
    ask, out = ["smoothness", *model, *images], tmp_path / "found"
    status, said, err = door(*ask, "--dry-run", f"--out={tmp_path / 'dry'}")
    assert status == 0 and "168 of 32 numbers" in said, err
    assert [file.name for file in (tmp_path / "dry").iterdir()] == ["first_batch.png"]
    status, said, err = door(*ask, f"--out={out}")
    assert status == 0 and re.search(r"along the street (longer than )?\d+", said), err

    assert door("extract", *model, *images, f"--out={tmp_path / 'db.npy'}").status == 0
    rows, descriptors = table(tmp_path / "db.csv"), np.load(tmp_path / "db.npy")
    at = {row["path"]: (float(row["east"]), descriptors[k]) for k, row in enumerate(rows)}
    result = json.loads((out / "smoothness.json").read_text())
    paths = [image["path"] for image in result["row"]]
    east = np.array([at[path][0] for path in paths])
    assert len(paths) == 28 and np.ptp(east) <= 30 and (np.diff(east) >= 0).all()  # 4 stops of 7 drives
    np.testing.assert_allclose([image["metres"] for image in result["row"]], east - east[0], atol=0.2)
    np.testing.assert_allclose(result["matrix"], [[at[a][1] @ at[b][1] for b in paths] for a in paths], atol=1e-4)
    assert {image["heading"] for image in result["row"]} == {90.0}
    curve = result["metres"]["bins"]
    assert curve[0]["mean"] > curve[3]["mean"] + 0.1 and curve[0]["found"] == curve[0]["compared"] > 100
    assert result["metres"]["correlation_length"] < 10 and result["degrees"]["correlation_length"] is None

    written = table(out / "smoothness.csv")
    assert [float(row["mean"]) for row in written if row["by"] == "metres"] == [row["mean"] for row in curve]
    assert [row["path"] for row in table(out / "matrix.csv")] == paths
    page = (out / "smoothness.html").read_text()
    assert page.count("<rect") == 28**2 and page.count("data:image/jpeg") == 28

    assert re.search(r"smoothness\.json exists; --overwrite", refused(*ask, f"--out={out}"))
    both = [*ask, f"--out={tmp_path / 'both'}", f"--compare={out / 'smoothness.json'}"]
    assert door(*both).status == 0
    page = (tmp_path / "both" / "smoothness.html").read_text()
    assert page.count("<rect") == 2 * 28**2 and f"{result['name']} #2" in page
    for flags, why in (
        (["--span=40"], "was measured with --span=30, this with --span=40"),
        (["--most=20"], "was measured on other images than these 20"),
        ([f"--compare={out / 'smoothness.json'}"] * 3, "--compare was given 4 times; 3 fit into a chart"),
        (["--most=1"], "--most=1 must be at least 2"),
        ([f"--compare={tmp_path / 'db.json'}"], r"db\.json is no smoothness\.json: it lacks name, digest"),
        ([f"--compare={tmp_path / 'none.json'}"], r"--compare=.*none\.json: no such file"),
    ):
        assert re.search(why, refused(*both, *flags, "--overwrite")), flags


def test_a_data_set_of_the_recipe(door, refused, model, photo_tree, tmp_path):
    status, _, err = door("smoothness", *model, "--span=90", f"--out={tmp_path / 'found'}")
    assert status == 0, err
    result = json.loads((tmp_path / "found" / "smoothness.json").read_text())
    assert (result["images"], result["of"], result["span"]) == (75, 75, 90.0)  # database and queries of the test
    assert "--data-set=test_data.other: the recipe has train_data, " in refused(
        "smoothness", *model, "--data-set=test_data.other", f"--out={tmp_path}"
    )
    plain = tmp_path / "plain.csv"
    photos = sorted((photo_tree / "images" / "test" / "queries").iterdir())
    plain.write_text("path\n" + "".join(f"{photo}\n" for photo in photos))
    said = refused("smoothness", *model, f"--images={plain}", "--reader=csv", f"--out={tmp_path}")
    assert "0 of 25 images have a position" in said
    of_clips = ["--config.model.sequence=cat", "--config.model.sequence_options.frames=5"]
    assert "describes clips of 5 frames" in refused("smoothness", *model, *of_clips, f"--out={tmp_path}")
    missing = refused("smoothness", *model, "--config.test_data.test.root=gone", f"--out={tmp_path}")
    assert "config.test_data.test.root=gone: no such folder" in missing
