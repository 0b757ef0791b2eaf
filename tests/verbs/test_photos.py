"""A user's own photos: descriptors of a folder, and where a photo was taken."""

import csv
import json
import re
import shutil
import zipfile

import jax
import numpy as np
import pytest

import jaxvpr
from data_pipelines.images import decode
from jaxvpr.errors import UserError
from jaxvpr.runs.database_file import PARTS


def table(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def model(tiny_recipe, trained_run):
    """The flags that name the trained model."""
    return [f"--config={tiny_recipe}", f"--workdir={trained_run}"]


@pytest.fixture
def database(photo_tree):
    return photo_tree / "images" / "test" / "database"


def test_extract_localize_and_the_python_door_agree(door, model, database, trained_run, tmp_path):
    status, out, err = door("extract", *model, f"--images={database}", f"--out={tmp_path / 'deep' / 'db.npy'}")
    assert status == 0 and "(50, 32)" in out, err
    descriptors = np.load(tmp_path / "deep" / "db.npy")
    rows = table(tmp_path / "deep" / "db.csv")
    photos = sorted(database.iterdir())
    assert descriptors.dtype == np.float32 and [row["path"] for row in rows] == [str(photo) for photo in photos]
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, atol=1e-5)
    for row, photo in zip(rows, photos, strict=True):
        east, north, heading = (photo.name.split("@")[field] for field in (1, 2, 9))
        assert (float(row["east"]), float(row["north"])) == (float(east), float(north)) and row["zone"] == "33"
        assert float(row["heading"]) == float(heading)
        assert 45.11 < float(row["lat"]) < 45.13 and 12.45 < float(row["lon"]) < 12.47
    about = json.loads((tmp_path / "deep" / "db.json").read_text())
    assert about["recipe"] == "cosplace-tiny" and about["image"]["size"] == [32, 32]

    loaded = jaxvpr.load(trained_run)
    np.testing.assert_allclose(loaded.describe(photos), descriptors, atol=1e-5)
    np.testing.assert_allclose(loaded.describe(str(photos[3])), descriptors[3:4], atol=1e-5)

    found = ["localize", *model, f"--database={tmp_path / 'deep' / 'db.npy'}", f"--images={database}", "--top=3"]
    status, out, err = door(*found, f"--out={tmp_path / 'found'}")
    assert status == 0, err
    answers = table(tmp_path / "found" / "predictions.csv")
    assert [answer["rank"] for answer in answers[:4]] == ["1", "2", "3", "1"] and len(answers) == 150
    for answer in answers[::3]:
        assert answer["path"] == answer["query"] and float(answer["distance"]) < 1e-5
    distances = np.array([float(answer["distance"]) for answer in answers]).reshape(50, 3)
    assert (np.diff(distances, axis=1) >= 0).all()
    assert len(list((tmp_path / "found").glob("*.png"))) == 50 and photos[0].name in out


def test_descriptors_without_l2_are_ranked_and_exported_as_they_are(
    door, refused, model, database, trained_run, tmp_path
):
    raw, file, program = [*model, "--config.model.l2_after=false"], tmp_path / "db.npy", tmp_path / "a.stablehlo"
    assert door("extract", *raw, f"--images={database}", f"--out={file}").status == 0
    photos, found = sorted(database.iterdir()), np.load(file)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    assert np.abs(lengths - 1).min() > 1e-3
    np.testing.assert_allclose(found / lengths, jaxvpr.load(trained_run).describe(photos), atol=1e-5)

    localize = ["localize", f"--database={file}", f"--images={database}", f"--out={tmp_path / 'found'}", "--top=2"]
    assert re.search(
        r"another model.*\n  model\.l2_after: False there, True here\nGive the recipe", refused(*localize, *model)
    )
    assert door(*localize, *raw).status == 0
    about = json.loads(file.with_suffix(".json").read_text())
    del about["model"]["l2_after"]  # of before there was such a key
    file.with_suffix(".json").write_text(json.dumps(about))
    assert re.search(
        r"another model.*\n  model\.l2_after: True there, False here\n", refused(*localize, "--overwrite", *raw)
    )
    second = [float(answer["distance"]) for answer in table(tmp_path / "found" / "predictions.csv")][1::2]
    between = np.square(found[:, None] - found[None]).sum(2) + np.diag(np.full(len(found), np.inf))
    np.testing.assert_allclose(second, between.min(1), rtol=1e-4, atol=1e-5)

    status, said, err = door("export", *raw, f"--out={program}")
    assert status == 0 and json.loads(said)["l2_after"] is False, err
    describe = jax.export.deserialize(bytearray(program.read_bytes())).call
    shown = np.stack([decode(photo) for photo in photos[:3]])
    np.testing.assert_allclose(describe(shown), found[:3], rtol=1e-4, atol=1e-5)


def test_a_database_of_other_weights_is_refused(door, refused, model, database, tmp_path):
    file = tmp_path / "db.npy"
    assert door("extract", *model, "--checkpoint=6", f"--images={database}", f"--out={file}").status == 0
    localize = ["localize", *model, f"--database={file}", f"--images={database}", f"--out={tmp_path / 'found'}"]
    said = refused(*localize, "--checkpoint=12")
    assert re.search(r"db\.npy.*\n  weights: '\w+' there, '\w+' here", said)
    assert door(*localize, "--checkpoint=6", "--top=1").status == 0
    assert re.search(r"--top=0\b.*\b1\b", refused(*localize, "--top=0"))
    assert re.search(r"found/predictions\.csv exists; --overwrite", refused(*localize, "--checkpoint=6"))
    assert door(*localize, "--checkpoint=6", "--top=2", "--overwrite").status == 0
    assert len(table(tmp_path / "found" / "predictions.csv")) == 100
    file.with_suffix(".json").unlink()
    assert re.search(r"db\.json.*jaxvpr extract", refused(*localize, "--overwrite"))


def test_a_database_is_replaced_only_where_that_is_said_and_whole(door, refused, model, database, tmp_path):
    file = tmp_path / "db.npy"
    extract = ["extract", *model, f"--images={database}", f"--out={file}"]
    assert door(*extract).status == 0
    before = {part: file.with_suffix(part).read_bytes() for part in PARTS}
    for part in PARTS:  # each of them alone would be lost
        for file_of in map(file.with_suffix, PARTS):
            file_of.unlink(missing_ok=True)
        file.with_suffix(part).write_bytes(b"mine")
        assert f"{file.with_suffix(part)} exists; --overwrite replaces it" in refused(*extract)
        assert file.with_suffix(part).read_bytes() == b"mine"
    queries = database.parent / "queries"
    other = ["extract", *model, f"--images={queries}", f"--out={file}", "--overwrite"]
    assert door(*other).status == 0 and len(table(file.with_suffix(".csv"))) == len(np.load(file)) == 25
    # As a crash between its files would leave it.
    file.write_bytes(before[".npy"])
    localize = ["localize", *model, f"--database={file}", f"--images={queries}", f"--out={tmp_path / 'found'}"]
    assert re.search(r"db\.npy is not the one that was written with .*db\.json.*--overwrite", refused(*localize))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["db.csv", "db.json", "db.npy"], "and nothing is left"


def test_what_extract_and_localize_need(refused, model, database, tmp_path):
    assert "needs --images" in refused("extract", *model)
    assert "needs --out" in refused("extract", *model, f"--images={database}")
    said = refused("extract", *model, f"--images={database}", "--out=db.txt")
    assert re.search(r"--out=db\.txt.*\.npy", said)
    assert "needs --database" in refused("localize", *model, f"--images={database}")
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    said = refused("extract", *model, f"--images={nothing}", "--out=db.npy")
    assert re.search(rf"no image.*{re.escape(str(nothing))}", said)
    text = tmp_path / "letter.jpg"
    text.write_text("Dear Sir")
    only = ["extract", *model, f"--images={text}", f"--out={tmp_path / 'x.npy'}"]
    assert re.search(rf"{re.escape(str(text))}.*not an image", refused(*only))


def test_photos_that_cannot_be_read_are_passed_over_where_asked_and_never_found(
    door, refused, model, database, tmp_path
):
    """Their zero vectors would be nearer to a query than a stranger is."""
    photos = shutil.copytree(database, tmp_path / "photos")
    first, second = sorted(photos.iterdir())[:2]
    first.write_bytes(first.read_bytes()[:300])
    extract = ["extract", *model, f"--images={photos}", f"--out={tmp_path / 'db.npy'}"]
    named = rf"{re.escape(str(first))}.*(truncated|damaged)"
    assert re.search(named, refused(*extract))
    status, out, err = door(*extract, "--config.loader.on_error=skip")
    assert status == 0 and "1 of 50 images could not be read; their rows are zeros" in out
    assert re.search(f"left out.*{named}", err)
    only = ["extract", *model, f"--images={first}", f"--out={tmp_path / 'none.npy'}", "--config.loader.on_error=skip"]
    assert re.search(r"none of the 1 images .* could be read", refused(*only))
    descriptors = np.load(tmp_path / "db.npy")
    assert np.flatnonzero(~descriptors.any(axis=1)).tolist() == [0]

    queries = tmp_path / "queries"
    queries.mkdir()
    shutil.copy(first, queries / "a.jpg")
    shutil.copy(second, queries / "b.jpg")
    localize = ["localize", *model, f"--database={tmp_path / 'db.npy'}", f"--images={queries}", "--top=99"]
    status, out, _ = door(*localize, f"--out={tmp_path / 'found'}")
    unread, *answers = table(tmp_path / "found" / "predictions.csv")
    assert status == 0 and "1 of 2 photos could not be read; their rows say why" in out
    assert unread["query"] == str(queries / "a.jpg") and re.search(r"a\.jpg: (truncated|damaged)", unread["error"])
    assert not any(text for column, text in unread.items() if column not in ("query", "error"))
    assert not any(answer["error"] for answer in answers)
    assert len(answers) == 49 and str(first) not in [answer["path"] for answer in answers]
    assert {answer["query"] for answer in answers} == {str(queries / "b.jpg")}
    assert [picture.name for picture in (tmp_path / "found").glob("*.png")] == ["0001_b.png"]
    (queries / "b.jpg").unlink()
    assert re.search(r"no photo of .*queries can be read; the first: .*a\.jpg: (truncated|damaged)", refused(*localize))


def test_what_a_phone_leaves_beside_its_photos_is_counted_and_passed_over(door, refused, model, database, tmp_path):
    photos = tmp_path / "photos"
    (photos / "day").mkdir(parents=True)
    first = sorted(database.iterdir())[0]
    shutil.copy(first, photos / "day" / first.name)
    for name in ("IMG_1.HEIC", "day/IMG_3.heic", "IMG_2.MOV", "IMG_2.AAE", "a.gif", "notes"):
        (photos / name).write_bytes(b"of a phone")
    extract = ["extract", *model, f"--images={photos}"]
    status, out, err = door(*extract, f"--out={tmp_path / 'db.npy'}")
    assert status == 0 and "(1, 32)" in out
    for kind in (r"2 \.heic \(first: IMG_1\.HEIC\)", r"1 \.mov \(first: IMG_2\.MOV\)", r"1 \.aae", r"1 \.gif",
                 r"1 without a suffix \(first: notes\)", "left out; convert"):  # fmt: skip
        assert re.search(rf"{re.escape(str(photos))} holds .*{kind}", err), kind
    (photos / "day" / first.name).unlink()
    said = refused(*extract, f"--out={tmp_path / 'no.npy'}")
    assert re.search(r"no image in .*photos holds .*2 \.heic .*convert", said)


def test_a_plain_photo_among_named_ones_takes_no_position_away(door, refused, model, database, tmp_path):
    photos = shutil.copytree(database, tmp_path / "photos")
    shutil.copy(sorted(photos.iterdir())[0], photos / "IMG_0001.jpg")
    status, out, err = door("extract", *model, f"--images={photos}", f"--out={tmp_path / 'db.npy'}")
    assert status == 0 and f"{photos / 'IMG_0001.jpg'} has no coordinates" in out, err
    rows = table(tmp_path / "db.csv")
    assert [row["zone"] for row in rows] == ["33"] * 50 + ["-1"] and (rows[50]["lat"], rows[50]["east"]) == ("", "")
    said = refused("evaluate", *model, f"--database={photos}", f"--queries={database}")
    assert f"{photos / 'IMG_0001.jpg'} has no coordinates" in said and "zone" not in said


def test_photos_of_a_camera(door, model, real_data, tmp_path):
    """Lund's photos carry their place in EXIF."""
    status, out, err = door("extract", *model, f"--images={real_data / 'lund'}", f"--out={tmp_path / 'lund.npy'}")
    assert status == 0, err
    rows, descriptors = table(tmp_path / "lund.csv"), np.load(tmp_path / "lund.npy")
    assert len(rows) == len(descriptors) == 29
    placed = [row for row in rows if row["lat"]]
    assert len(placed) == 29 and all(55 < float(row["lat"]) < 56 and 13 < float(row["lon"]) < 14 for row in placed)
    assert all(row["zone"] == "33" for row in placed)
    status, out, _ = door(
        "localize", *model, f"--images={real_data / 'lund' / '07.jpg'}", f"--database={tmp_path / 'lund.npy'}",
        f"--out={tmp_path / 'found'}", "--top=2",
    )  # fmt: skip
    assert status == 0 and out.splitlines()[0] == "07.jpg" and out.splitlines()[1].endswith("07.jpg"), out


def test_describe_takes_arrays_of_any_size_and_paths(trained_run, database):
    import cv2

    model = jaxvpr.load(trained_run / "model.safetensors")
    photos = sorted(database.iterdir())[:5]
    arrays = [cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB) for photo in photos]
    wanted = model.describe(photos)
    np.testing.assert_allclose(model.describe(arrays), wanted, atol=1e-5)
    np.testing.assert_allclose(model.describe(np.stack(arrays)), wanted, atol=1e-5)
    other = model.describe([np.zeros((50, 70, 3), np.uint8), arrays[1]])
    np.testing.assert_allclose(other[1], wanted[1], atol=1e-5)
    for wrong, message in (([], "no images"), ([np.zeros((4, 4), np.uint8)], r"shape \(4, 4\)"),
                           ([np.zeros((4, 4, 3), np.float32)], "float32")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            model.describe(wrong)


def test_load_says_what_it_lacks(tmp_path, tiny_recipe, trained_run):
    with pytest.raises(UserError, match=r"\bno model\.safetensors"):
        jaxvpr.load(tmp_path)
    with pytest.raises(UserError, match=r"no weights.*,init=FILE"):
        jaxvpr.load(tiny_recipe)
    with pytest.raises(UserError, match=r"none\.pth.*no such file"):
        jaxvpr.load(f"{tiny_recipe},init=none.pth")
    with pytest.raises(UserError, match=r"no recipe 'nothing'"):
        jaxvpr.load("nothing")
    with pytest.raises(UserError, match=r"whole model.*leave 'backbone' out"):
        jaxvpr.load(f"{trained_run / 'model.safetensors'}:backbone")
    with pytest.raises(UserError, match=r"no method 'salad': did you mean salad-dinov2s"):
        jaxvpr.load(f"salad:{trained_run / 'model.safetensors'}")
    ran = tmp_path / "ran"
    with zipfile.ZipFile(tmp_path / "theirs.pth", "w") as hostile:
        hostile.writestr("__main__.py", f"open({str(ran)!r}, 'w').close()")
    with pytest.raises(UserError, match=r"theirs\.pth.*RECIPE\.py,weights=FILE"):
        jaxvpr.load(tmp_path / "theirs.pth")
    assert not ran.exists()
    from_recipe = jaxvpr.load(f"{tiny_recipe},init={trained_run / 'model.safetensors'}")
    image = np.random.default_rng(0).integers(0, 255, (1, 32, 32, 3), dtype=np.uint8)
    moved = tmp_path / "my.pytorch" / "model.safetensors"  # no recipe, though ".py" is in it
    moved.parent.mkdir()
    moved.write_bytes((trained_run / "model.safetensors").read_bytes())
    np.testing.assert_array_equal(jaxvpr.load(moved).describe(image), jaxvpr.load(trained_run).describe(image))
    np.testing.assert_allclose(from_recipe.describe(image), jaxvpr.load(trained_run).describe(image), atol=1e-6)
