"""Folders of a command through any reader, and advice of messages, which is run as it is printed."""

import csv
import json
import re
import shutil

import numpy as np
import pytest

from data_pipelines import geo
from jaxvpr.retrieval import metrics


@pytest.fixture
def model(tiny_recipe, trained_run):
    """The flags that name the trained model."""
    return [f"--config={tiny_recipe},eval.baselines=false", f"--checkpoint={trained_run / 'model.safetensors'}"]


@pytest.fixture
def folders(photo_tree, tmp_path):
    """Two folders of plain photos, and beside the photos a table of theirs as somebody may have written it."""
    for folder in ("database", "queries"):
        (tmp_path / folder).mkdir()
        with (tmp_path / folder / "places.csv").open("w") as file:
            file.write("image, Latitude, Longitude ,spot\n")
            for k, photo in enumerate(sorted((photo_tree / "images" / "test" / folder).iterdir())):
                fields = photo.name.split("@")
                latitude, longitude = geo.from_utm(float(fields[1]), float(fields[2]), 33)
                file.write(f"{k:02d}.jpg,{latitude:.9f},{longitude:.9f},corner {fields[7]:.2}\n")
                shutil.copy(photo, tmp_path / folder / f"{k:02d}.jpg")
    return tmp_path / "database", tmp_path / "queries"


def table(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def advised(message, flag):
    """The value of a flag that a message advises."""
    return re.search(rf"(--{flag}=[^\s,)]+(?:,[^\s,)]+)*)", message)[1]


def recall(folder):
    (entry,) = metrics.read_metrics(folder / "metrics.json")["results"]
    return entry["recall"]


def test_coordinates_from_a_table(door, refused, model, folders, trained_run, tmp_path):
    """With the names of its columns as they are; the recalls are those of the same photos under '@' names."""
    database, queries = folders
    pair = [f"--database={database}", f"--queries={queries}", f"--workdir={tmp_path / 'run'}"]
    said = refused("evaluate", *model, *pair)
    assert f"{database / '00.jpg'} and 49 more of 50 images have no coordinates" in said
    assert "zone" not in said and "without_position" not in said
    said = refused("evaluate", *model, *pair, advised(said, "reader"))
    assert "has no column path; its header is ['image', 'Latitude', 'Longitude', 'spot']" in said
    reader = advised(said, "reader")
    assert reader == "--reader=csv,columns.path=image"
    status, _, err = door("evaluate", *model, *pair, reader, f"--out={tmp_path / 'found'}")
    assert status == 0, err
    assert recall(tmp_path / "found") == recall(trained_run)

    out = tmp_path / "db.npy"
    plain = ["extract", *model, f"--images={database}", f"--images={queries}", f"--out={tmp_path / 'plain.npy'}"]
    answer = door(*plain)
    assert answer.status == 0 and f"{database / '00.jpg'} and 74 more of 75 images have no coordinates" in answer.out
    status, printed, err = door(
        "extract", *model, f"--images={database}", f"--images={queries}", reader, f"--out={out}"
    )
    assert status == 0 and "no coordinates" not in printed, err
    rows = table(out.with_suffix(".csv"))
    assert [row["path"] for row in rows] == [row["path"] for row in table(tmp_path / "plain.csv")]
    assert len(rows) == 75 and all(row["zone"] == "33" and 45.11 < float(row["lat"]) < 45.13 for row in rows)
    np.testing.assert_array_equal(np.load(out), np.load(tmp_path / "plain.npy"))

    one = [
        f"--images={queries / 'places.csv'}",
        reader,
        f"--database={out}",
        f"--out={tmp_path / 'answers'}",
        "--top=2",
    ]
    status, printed, err = door("localize", *model, *one)
    assert status == 0 and "45.1" in printed, err
    answers = table(tmp_path / "answers" / "predictions.csv")
    assert len(answers) == 50 and answers[0]["query"] == answers[0]["path"] == str(queries / "00.jpg")


def test_places_without_coordinates_answer_by_their_names(door, refused, model, folders, tmp_path):
    database, queries = folders
    for folder in folders:
        lines = [line.split(",") for line in (folder / "places.csv").read_text().splitlines()]
        (folder / "places.csv").write_text("".join(f"{line[0]},{line[3]}\n" for line in lines))
    # The queries' table begins elsewhere: names are compared, not numbers that each table gives them.
    head, *lines = (queries / "places.csv").read_text().splitlines()
    (queries / "places.csv").write_text("\n".join([head, *lines[5:]]))
    reader = "--reader=csv,columns.path=image,columns.place=spot"
    out = tmp_path / "db.npy"
    assert door("extract", *model, f"--images={database}", reader, f"--out={out}").status == 0
    spots = [row["spot"] for row in table(database / "places.csv")]
    assert [row["place"] for row in table(out.with_suffix(".csv"))] == spots and len(set(spots)) == 25
    status, printed, _ = door(
        "localize", *model, f"--images={database / '00.jpg'}", f"--database={out}", f"--out={tmp_path / 'answers'}"
    )
    assert status == 0 and printed.splitlines()[1].split()[:4] == ["1", "place", *spots[0].split()]
    assert table(tmp_path / "answers" / "predictions.csv")[0]["place"] == spots[0]

    pair = ["evaluate", *model, f"--database={database}", f"--queries={queries}", reader, f"--out={tmp_path / 'found'}"]
    said = refused(*pair)
    threshold = advised(said, "threshold")
    assert "no coordinates" in said and threshold == "--threshold=label"
    assert door(*pair, threshold).status == 0
    (entry,) = json.loads((tmp_path / "found" / "metrics.json").read_text())["results"]
    # Chance finds 4 of 100: were the numbers of the two tables compared, the right place would be another.
    assert entry["protocol"]["queries"] == 20 and entry["recall"]["label"]["1"] > 80


def test_one_data_set_with_roles_serves_both_flags(door, model, photo_tree, tmp_path):
    root = tmp_path / "pairs"
    for folder, name in (("database", "ref"), ("queries", "query")):
        shutil.copytree(photo_tree / "images" / "test" / folder, root / name)
    (root / "ground_truth.csv").write_text(
        "query,references\n" + "".join(f"{k},{2 * k} {2 * k + 1}\n" for k in range(24))
    )
    both = [
        f"--database={root}",
        f"--queries={root}",
        "--reader=pairs",
        "--threshold=list",
        f"--out={tmp_path / 'found'}",
    ]
    status, printed, err = door("evaluate", *model, *both)
    assert status == 0 and "25 queries (1 without positive) | 50 database images | list" in printed, err
    tree = [f"--database={photo_tree}", f"--queries={photo_tree}", "--reader=at_names,split=test"]
    status, printed, err = door("evaluate", *model, *tree, f"--out={tmp_path / 'tree'}")
    assert status == 0 and "25 queries (0 without positive) | 50 database images | 25m" in printed, err


def test_images_of_two_zones_are_put_into_one(door, refused, model, photo_tree, tmp_path):
    root = tmp_path / "images" / "test"
    for folder, longitude, zone in (("database", -0.0001, 30), ("queries", 0.0001, 31)):  # either side of Greenwich
        (root / folder).mkdir(parents=True)
        for k, photo in enumerate(sorted((photo_tree / "images" / "test" / folder).iterdir())):
            east, north, _ = geo.to_utm(51 + k // (2 if folder == "database" else 1) / 100, longitude)
            shutil.copy(photo, root / folder / f"@{east:.2f}@{north:.2f}@{zone}@U@@@{k}@@@@@@@@.jpg")
    pair = [f"--database={root / 'database'}", f"--queries={root / 'queries'}", f"--out={tmp_path / 'found'}"]
    said = refused("evaluate", *model, *pair)
    assert "the database lies in UTM zone 30 north, the queries in UTM zone 31 north" in said
    status, printed, err = door("evaluate", *model, *pair, advised(said, "reader"))
    assert status == 0 and "25 queries (0 without positive)" in printed, err
    one = [f"--config.test_data.test.root={tmp_path}", f"--workdir={tmp_path / 'run'}"]
    said = refused("evaluate", *model, *one)
    assert "the database lies in UTM zone 30 north, the queries in UTM zone 31 north" in said
    option = re.search(r"(options\.zone=\w+) of the data set", said)[1]
    status, printed, err = door("evaluate", *model, *one, f"--config.test_data.test.{option}")
    assert status == 0 and "25 queries (0 without positive)" in printed, err


def test_photos_without_a_position_are_left_out_as_advised(door, refused, model, photo_tree, tmp_path):
    database = shutil.copytree(photo_tree / "images" / "test" / "database", tmp_path / "database")
    shutil.copy(sorted(database.iterdir())[0], database / "IMG_0001.jpg")
    pair = [f"--database={database}", f"--queries={photo_tree / 'images' / 'test' / 'queries'}"]
    said = refused("evaluate", *model, *pair)
    assert f"{database / 'IMG_0001.jpg'} has no coordinates" in said
    status, printed, err = door("evaluate", *model, *pair, advised(said, "reader"), f"--out={tmp_path / 'found'}")
    assert status == 0 and "50 database images" in printed, err
