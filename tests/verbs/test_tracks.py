"""Where a drive went: localize of a video, and of a folder of frames."""

import csv
import json
import re
import shutil
import sys
from html.parser import HTMLParser

import cv2
import jax
import numpy as np
import pytest

from jaxvpr.main import main
from jaxvpr.reports import geojson
from tests.conftest import console
from tests.data_pipelines.videos import write_video


def table(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def model(tiny_recipe, trained_run):
    return [f"--config={tiny_recipe}", f"--workdir={trained_run}"]


@pytest.fixture(scope="module")
def known(model, photo_tree, tmp_path_factory):
    """The flags that name the model and a database of the places of the tree."""
    file = tmp_path_factory.mktemp("database") / "db.npy"
    with console(), jax.numpy_dtype_promotion("standard"):
        images = photo_tree / "images" / "test" / "database"
        assert main(["extract", *model, f"--images={images}", f"--out={file}"]) == 0
    return ["localize", *model, f"--database={file}"]


@pytest.fixture(scope="module")
def drive(photo_tree):
    """25 photos in the order of a drive through the grid, row after row, and where each was taken, metres [25, 2]."""
    found = {}
    for photo in (photo_tree / "images" / "test" / "queries").iterdir():
        east, north = map(float, photo.name.split("@")[1:3])
        found[int(east - 300_000) // 30, int(north - 5_000_000) // 30] = photo, (east, north)
    order = [(x if y % 2 == 0 else 4 - x, y) for y in range(5) for x in range(5)]
    photos, metres = zip(*(found[at] for at in order), strict=True)
    return photos, np.array(metres)


@pytest.fixture(scope="module")
def film(drive, tmp_path_factory):
    """The drive as a video of two frames a second, each photo for a second."""
    images = [image for photo in drive[0] for image in [cv2.imread(str(photo))] * 2]
    return write_video(tmp_path_factory.mktemp("film") / "my drive.avi", images)


def away(rows, metres, columns=("east", "north")):
    """Metres from each answer to where its frame was taken."""
    return np.hypot(*(np.array([[float(row[name]) for name in columns] for row in rows]) - metres).T)


def test_a_video_gives_a_track(door, refused, known, drive, film, tmp_path):
    out = tmp_path / "found"
    status, said, err = door(*known, f"--images={film}", "--speed=35", f"--out={out}")
    assert status == 0, err
    rows = table(out / "track.csv")
    assert [int(row["frame"]) for row in rows] == list(range(0, 50, 2))
    assert {row["query"] for row in rows} == {str(film)}
    assert [float(row["seconds"]) for row in rows] == list(range(25)) and {row["error"] for row in rows} == {""}
    path, nearest = away(rows, drive[1]), away(rows, drive[1], ("nearest_east", "nearest_north"))
    assert (path <= 25).sum() >= (nearest <= 25).sum() >= 15
    for row, one, other in zip(rows, path, nearest, strict=True):
        assert (row["rank"] == "1") == (row["path"] == row["nearest_path"]), (one, other)
        assert float(row["distance"]) >= float(row["nearest_distance"])
    changed = sum(row["rank"] != "1" for row in rows)
    assert re.search(rf"25 frames, a path of \d+ m; {changed} of them are on the path with another place", said)

    found = json.loads((out / "track.geojson").read_text())
    line, *points = found["features"]
    assert found["type"] == "FeatureCollection" and line["geometry"]["type"] == "LineString" and len(points) == 25
    assert line["geometry"]["coordinates"] == [point["geometry"]["coordinates"] for point in points]
    for row, point in zip(rows, points, strict=True):
        longitude, latitude = point["geometry"]["coordinates"]
        assert 12.45 < longitude < 12.47 and 45.11 < latitude < 45.13
        assert (longitude, latitude) == (float(row["lon"]), float(row["lat"]))
        assert point["properties"]["path"] == row["path"] and point["properties"]["seconds"] == float(row["seconds"])

    page = Page((out / "track.html").read_text())
    assert page.pictures >= 50 and len(page.ids) == len(set(page.ids)) and set(page.links) <= set(page.ids)
    assert f"Track of {film.name}" in page.text and "25 of 25 frames" in page.text

    again = refused(*known, f"--images={film}", f"--out={out}")
    assert "track.csv exists; --overwrite replaces it" in again


class Page(HTMLParser):
    """Ids, links within the page, the number of pictures and the text of a page whose elements are all closed."""

    def __init__(self, page):
        super().__init__()
        self.ids, self.links, self.pictures, self.text, self._open = [], [], 0, "", []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self._open += [tag] if tag not in ("meta", "img", "input") else []
        self.pictures += tag == "img"
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value[1:] for name, value in attrs if name == "href"]

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_a_folder_of_frames_gives_the_same_track_and_names_what_cannot_be_read(door, known, drive, film, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, photo in enumerate(drive[0]):  # frame10 comes after frame9
        cv2.imwrite(str(folder / f"frame{number}.png"), cv2.imread(str(photo)))
    (folder / "frame25.png").write_bytes(b"no image")
    status, said, err = door(*known, f"--images={folder}", "--track", "--speed=35", f"--out={tmp_path / 'frames.out'}")
    assert status == 0 and "1 of 26 frames could not be read; their rows say why" in said, err
    assert "26 frames in the order of their names" in err
    rows = table(tmp_path / "frames.out" / "track.csv")
    assert [row["query"] for row in rows] == [str(folder / f"frame{number}.png") for number in range(26)]
    assert {row["seconds"] for row in rows} == {""} and rows[-1]["path"] == "" and "frame25.png" in rows[-1]["error"]
    assert (away(rows[:-1], drive[1]) <= 25).sum() >= 20

    status, _, err = door(*known, f"--images={film}", "--every=4", f"--out={tmp_path / 'some'}", "--top=1")
    assert status == 0, err
    some = table(tmp_path / "some" / "track.csv")
    assert [int(row["frame"]) for row in some] == list(range(0, 50, 4)) and {row["rank"] for row in some} == {"1"}


def test_a_database_of_local_metres_has_no_place_on_earth(door, model, photo_tree, drive, tmp_path):
    listed = tmp_path / "places.csv"
    photos = sorted((photo_tree / "images" / "test" / "database").iterdir())
    at = [photo.name.split("@")[1:3] for photo in photos]
    lines = ["image,east,north", *(f"{photo},{east},{north}" for photo, (east, north) in zip(photos, at, strict=True))]
    listed.write_text("\n".join(lines) + "\n")
    extract = ["extract", *model, f"--images={listed}", f"--out={tmp_path / 'db.npy'}"]
    status, _, err = door(*extract, "--reader=csv,columns.path=image")
    assert status == 0, err
    folder, out = tmp_path / "frames", tmp_path / "found"
    folder.mkdir()
    out.mkdir()
    (out / "track.geojson").write_text("of before")
    for photo in drive[0][:3]:
        shutil.copy(photo, folder)
    found = ["localize", *model, f"--database={tmp_path / 'db.npy'}", f"--images={folder}", "--track", f"--out={out}"]
    status, said, err = door(*found)
    assert status == 0 and "no track.geojson: no place of the database has latitude and longitude" in said, err
    assert not (out / "track.geojson").exists() and len(table(out / "track.csv")) == 3
    assert {(row["lat"], row["lon"]) for row in table(out / "track.csv")} == {("", "")}
    assert "<svg" in (out / "track.html").read_text()
    assert "--reader=folder,zone=33north, or csv,zone=33north of a table" in said  # which helps
    assert door(*extract, "--reader=csv,columns.path=image,zone=33north", "--overwrite").status == 0
    assert door(*found, "--overwrite").status == 0
    assert len(json.loads((out / "track.geojson").read_text())["features"]) == 4


def test_mistakes_are_told(refused, known, film, tmp_path):
    text, folder = tmp_path / "text.mp4", tmp_path / "photos"
    text.write_text("no film")
    folder.mkdir()
    shutil.copy(film, folder)
    cv2.imwrite(str(folder / "a.png"), np.zeros((8, 8, 3), np.uint8))
    for flags, said in (
        ([f"--images={text}"], r"text\.mp4: cannot be read as a video\. .*ffmpeg -i"),
        ([f"--images={tmp_path / 'absent.mp4'}"], r"--images=.*absent\.mp4: no such file or folder"),
        ([f"--images={film}", f"--images={folder}"], "--images was given 2 times, and a track is of one drive"),
        ([f"--images={folder}", "--every=1s"], "--every is for the frames of a drive: give --track with it"),
        ([f"--images={folder}", "--speed=3"], "--speed is for the frames of a drive: give --track with it"),
        ([f"--images={folder}", "--track", "--every=1s"], "every 1 seconds, but not all say when they were taken"),
        ([f"--images={film}", "--reader=frames"], "a video, which --reader=frames does not read: leave --reader out"),
        ([f"--images={film}", "--every=often"], "--every: 'often' is neither seconds between frames, such as"),
        ([f"--images={film}", "--speed=-1"], "--speed: '-1' is not a number above 0"),
        ([f"--images={film}", "--top=0"], "--top=0 must be at least 1"),
    ):
        assert re.search(said, refused(*known, *flags, f"--out={tmp_path / 'out'}")), flags
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_a_database_of_places_without_coordinates_gives_the_nearest(door, model, drive, film, tmp_path):
    for number, photo in enumerate(drive[0]):
        (tmp_path / "places" / f"place {number}").mkdir(parents=True)
        shutil.copy(photo, tmp_path / "places" / f"place {number}" / "a.jpg")
    known = f"{tmp_path / 'db.npy'}"
    status, _, err = door("extract", *model, f"--images={tmp_path / 'places'}", "--reader=classes", f"--out={known}")
    assert status == 0, err
    found = ["localize", *model, f"--database={known}", f"--images={film}", f"--out={tmp_path / 'found'}"]
    status, said, err = door(*found)
    assert status == 0 and "25 frames, each with its nearest place: without coordinates there is no path" in said, err
    rows = table(tmp_path / "found" / "track.csv")
    assert {row["rank"] for row in rows} == {"1"} and not (tmp_path / "found" / "track.geojson").exists()
    assert sum(row["place"] == f"place {number}" for number, row in enumerate(rows)) >= 20
    page = (tmp_path / "found" / "track.html").read_text()
    assert "Where it went" not in page and "place 7" in page


@pytest.mark.skipif(sys.platform == "darwin", reason="names of files are text there")
def test_names_of_files_that_are_no_text_stay_out_of_json():
    points = [{"path": "caf\udce9.jpg", "frame": 1}, {"path": "b.jpg", "frame": 2}, {"path": "c.jpg", "frame": 3}]
    text = geojson.track(points, [1.0, float("nan"), 2.123456789], [-179.5, 5.0, 3.0])
    text.encode()  # what others read
    line, one, other = json.loads(text)["features"]
    assert line["geometry"] == {"type": "LineString", "coordinates": [[-179.5, 1.0], [3.0, 2.1234568]]}
    assert one["properties"] == {"path": "caf\ufffd.jpg", "frame": 1} and other["properties"]["frame"] == 3
    alone = json.loads(geojson.track(points[:1], [1.0], [2.0]))["features"]
    assert [feature["geometry"]["type"] for feature in alone] == ["Point"]
    assert json.loads(geojson.track([], [], [])) == {"type": "FeatureCollection", "features": []}


@pytest.fixture(scope="module")
def passes(photo_tree, drive, tmp_path_factory):
    """A table of two drives along the same places as `drive`, of the photos of the database."""
    file = tmp_path_factory.mktemp("passes") / "passes.csv"
    found = {}
    for photo in sorted((photo_tree / "images" / "test" / "database").iterdir()):
        found.setdefault(photo.name.split("@")[7][:2], []).append(photo)
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "east", "north", "zone", "sequence", "frame"])
        for number, query in enumerate(drive[0]):
            for sequence, photo in enumerate(found[query.name.split("@")[7][:2]]):
                writer.writerow([photo, *photo.name.split("@")[1:3], 33, f"pass {sequence}", 10 + number])
    return file


def test_clips_of_a_table_answer_clips_of_a_drive(door, refused, model, passes, drive, film, tmp_path):
    clips = [*model, "--config.model.sequence=mean"]
    extract = ["extract", *clips, f"--images={passes}", "--reader=csv", f"--out={tmp_path / 'db.npy'}"]
    status, said, err = door(*extract, "--clips=5,stride=2")
    assert status == 0 and "(22, 32)" in said, err  # 0 ... 20 of each pass of 25 frames
    rows = table(tmp_path / "db.csv")
    images = {row["path"]: row for row in table(passes)}
    assert sorted((images[row["path"]]["sequence"], row["first_frame"], row["last_frame"]) for row in rows) == [
        (f"pass {sequence}", str(10 + first), str(14 + first)) for sequence in (0, 1) for first in range(0, 21, 2)
    ]
    assert len({(row["sequence"], images[row["path"]]["sequence"]) for row in rows}) == 2
    for row in rows:  # each lies where its middle frame does
        middle = images[row["path"]]
        assert int(middle["frame"]) == int(row["first_frame"]) + 2
        assert (float(row["east"]), float(row["north"])) == (float(middle["east"]), float(middle["north"]))
    about = json.loads((tmp_path / "db.json").read_text())["clips"]
    assert (about["length"], about["stride"], about["match"]) == (5, 2, "any")

    localize = ["localize", *clips, f"--database={tmp_path / 'db.npy'}", f"--out={tmp_path / 'found'}"]
    status, said, err = door(*localize, f"--images={film}", "--speed=35", "--top=4")
    assert status == 0, err
    found = table(tmp_path / "found" / "track.csv")
    assert [int(row["frame"]) for row in found] == list(range(0, 50, 2))
    # The clip of the middle frames has the frames of the clip that it finds; at both ends the outermost clip answers.
    assert {row["path"] for row in found[:3]} == {found[2]["path"]} and len({row["path"] for row in found[-3:]}) == 1
    assert (away(found[2:-2], drive[1][2:-2]) <= 62).sum() >= 15

    for flags, why in (
        ([f"--images={passes.parent}"], r"db\.npy is of clips of 5 frames, and a photo is no clip: .*--track"),
        ([f"--images={film}", "--every=20"], r"gives 3 frames, but the database is of clips of 5: .*\(--every\)"),
    ):
        assert re.search(why, refused(*localize, *flags, "--overwrite")), flags
    extract.append("--overwrite")
    for flags, why in (
        (["--clips=30"], r"no clip of clips\.length=30 frames .* has 25 frames"),
        (["--clips=five"], "--clips: the length of clips: 'five' is not an integer"),
        (["--clips=5,strides=2"], "--clips: no key 'strides' of clips: did you mean stride"),
        (["--clips=0"], r"--clips: clips\.length=0: length, stride and every are at least 1"),
        (
            ["--clips=5", "--config.model.sequence="],
            "--clips=5: a clip of 5 frames, but this model describes images",
        ),
        (["--clips=3", "--config.model.sequence=cat", "--config.model.sequence_options.frames=5"], "takes 5 frames"),
    ):
        assert re.search(why, refused(*extract, *flags)), flags
    assert len(np.load(tmp_path / "db.npy")) == 22


@pytest.mark.long
def test_a_frame_of_a_clip_that_cannot_be_read_is_named(door, model, passes, drive, tmp_path):
    clips = [*model, "--config.model.sequence=mean"]
    extract = ["extract", *clips, f"--images={passes}", "--reader=csv", f"--out={tmp_path / 'db.npy'}"]
    status, said, err = door(*extract, "--clips=5,match=last,metres=100", "--dry-run")
    assert status == 0 and "42 of 5 frames" in said, err
    status, _, err = door(*extract, "--clips=3,match=last")
    assert status == 0, err
    first = {table(passes)[row]["path"] for row in (4, 5)}  # the third frame of either pass
    assert table(tmp_path / "db.csv")[0]["path"] in first
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, photo in enumerate(drive[0][:8]):
        shutil.copy(photo, folder / f"{number}.jpg")
    (folder / "3.jpg").write_bytes(b"no image")
    status, said, err = door(
        "localize", *clips, f"--database={tmp_path / 'db.npy'}", f"--images={folder}", "--track",
        f"--out={tmp_path / 'found'}",
    )  # fmt: skip
    assert status == 0 and "3 of 8 frames could not be read" in said, err
    rows = table(tmp_path / "found" / "track.csv")
    # A clip ends at the frame that it answers; the first two frames are answered by the first clip.
    assert [bool(row["error"]) for row in rows] == [False] * 3 + [True] * 3 + [False] * 2
    assert all(str(folder / "3.jpg") in row["error"] for row in rows[3:6])
    assert len({row["path"] for row in rows[:3]}) == 1


def test_folders_are_measured_as_clips(door, refused, model, passes, tmp_path):
    measure = ["evaluate", *model, "--config.model.sequence=mean"]
    folders = [f"--database={passes}", f"--queries={passes}", "--reader=csv", f"--out={tmp_path / 'out'}"]
    assert door(*measure, *folders, "--clips=5,stride=2,task=im2seq").status == 0
    (result,) = json.loads((tmp_path / "out" / "metrics.json").read_text())["results"]
    protocol = result["protocol"]
    assert protocol["clips"]["task"] == "im2seq" and protocol["queries"] > protocol["database"]
    assert re.search(
        r"--clips=5 goes with --database.*test_data\.NAME\.clips\.length=5", refused(*measure, "--clips=5")
    )
    fixed = ["--config.model.sequence=cat", "--config.model.sequence_options.frames=5"]
    said = refused(*measure, *fixed, *folders, "--overwrite", "--clips=5,task=im2seq")
    assert "--clips=5, clips.task='im2seq': a clip of 1 frames, but Cat takes 5 frames" in said
    of_images = ["--config.model.sequence=", "--config.eval.sequence.score=average"]
    status, said, err = door(*measure, *of_images, *folders, "--overwrite", "--clips=5,stride=9")
    assert status == 0 and "mean distance of aligned frames" in said, err
