"""Writing: the same bytes from any number of processes, once, and errors that say what to do."""

import errno
import json
import logging
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.minicity import CityConfig, drawing, write
from data_pipelines.minicity.__main__ import main
from data_pipelines.minicity.baseline import thumbnail_recall, thumbnails
from data_pipelines.minicity.layout import plan
from data_pipelines.minicity.poses import cameras

SMALL = CityConfig(
    blocks=1, size=24, headings=4, train_spacing=40.0, database_spacing=40.0, val_spacing=60.0, test_queries=6,
    val_queries=3, panoramas=True,
)  # fmt: skip


def contents(root):
    return {str(f.relative_to(root)): f.read_bytes() for f in sorted(root.rglob("*.jpg"))}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write(tmp_path_factory.mktemp("city") / "a", SMALL, processes=1)


def test_the_tree_is_the_standard_one_and_counts_agree(written):
    marker = json.loads((written / "minicity.json").read_text())
    assert marker["digest"] == SMALL.digest() and marker["test_digest"] == SMALL.test_digest()
    expected = cameras(SMALL, plan(SMALL)).images()
    assert marker["images"] == expected
    for folder, count in expected.items():
        assert len(list((written / "images" / folder).glob("@*.jpg"))) == count > 0
    assert len(list((written / "images/panoramas").iterdir())) == expected["train"] // SMALL.headings
    assert not list(written.rglob("*.part")) and not (written / "minicity.partial.json").exists()
    for file in (written / "images/train").iterdir():
        assert cv2.imread(str(file)).shape == (24, 24, 3)


def test_two_processes_write_the_same_bytes_and_say_how_many(written, tmp_path, capfd, caplog):
    caplog.set_level(logging.INFO, "data_pipelines")
    other = write(tmp_path / "b", SMALL, processes=2)
    assert contents(other) == contents(written)
    total = sum(cameras(SMALL, plan(SMALL)).images().values())
    assert f"drew the city: {total} views in " in caplog.text and capfd.readouterr() == ("", "")


def test_another_seed_is_another_city(written, tmp_path):
    other = write(tmp_path / "b", replace(SMALL, seed=1), processes=1)
    assert not set(contents(other).values()) & set(contents(written).values())


def test_a_written_city_is_left_alone(written):
    before = {f: f.stat().st_mtime_ns for f in written.rglob("*")}
    assert write(written, SMALL) == written
    assert {f: f.stat().st_mtime_ns for f in written.rglob("*")} == before


def test_an_interrupted_write_is_continued(written, tmp_path, monkeypatch):
    root, whole = tmp_path / "c", contents(written)
    real, calls = Path.write_bytes, []

    def stops(self, content):
        calls.append(self)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return real(self, content)

    monkeypatch.setattr(Path, "write_bytes", stops)
    with pytest.raises(KeyboardInterrupt):
        write(root, SMALL, processes=1)
    monkeypatch.undo()
    assert 0 < len(contents(root)) < len(whole) and not (root / "minicity.json").exists()
    write(root, SMALL, processes=1)
    assert contents(root) == whole and (root / "minicity.json").exists()


def test_two_runs_at_once_do_not_disturb_each_other(written, tmp_path, monkeypatch):
    """The other run has just put the same file in place and swept away what looked like a killed run's leavings."""
    real = Path.write_bytes

    def overtaken(self, content):
        real(self, content)
        if ".jpg." in self.name:
            self.rename(self.with_name(self.name.removeprefix(".").split(".jpg")[0] + ".jpg"))

    monkeypatch.setattr(Path, "write_bytes", overtaken)
    root = write(tmp_path / "f", SMALL, processes=1)
    assert contents(root) == contents(written)


def test_leavings_of_a_killed_run_are_swept_away(tmp_path):
    config = replace(SMALL, train_spacing=1000.0, database_spacing=1000.0, panoramas=False)
    (tmp_path / "g/images/train").mkdir(parents=True)
    (tmp_path / "g/minicity.partial.json").write_text(json.dumps({"digest": config.digest(), "config": {}}))
    (tmp_path / "g/images/train/.@1@2@.jpg.4711.part").write_bytes(b"half")
    root = write(tmp_path / "g", config, processes=1)
    assert not list(root.rglob("*.part")) and (root / "minicity.json").exists()


def test_a_folder_of_another_city_is_refused(written):
    with pytest.raises(DataError, match=r"quality.*\b88\b.*\b70\b"):
        write(written, replace(SMALL, quality=70))


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"holiday\.jpg"):
        write(tmp_path, SMALL)


def test_images_that_were_deleted_are_drawn_again_and_said(written, tmp_path, caplog):
    root = shutil.copytree(written, tmp_path / "city")
    gone = [*sorted((root / "images/train").iterdir())[3:9], *list((root / "images/panoramas").iterdir())[:1]]
    for file in gone:
        file.unlink()
    shutil.rmtree(root / "images/val/queries")
    total = sum(cameras(SMALL, plan(SMALL)).images().values()) + len(list((written / "images/panoramas").iterdir()))
    write(root, SMALL, processes=1)
    assert f"10 of the {total} images of {root} are missing: drawing them again" in caplog.text
    assert contents(root) == contents(written)
    caplog.clear()
    write(root, SMALL, processes=1)
    assert not caplog.text


def test_an_image_that_is_not_of_the_city_is_refused(written, tmp_path):
    root = shutil.copytree(written, tmp_path / "city")
    shutil.copy(gone := next((root / "images/train").iterdir()), gone.with_name("mine.jpg"))
    with pytest.raises(DataError, match=r"images/train has \d+ images, 1 more than were drawn"):
        write(root, SMALL, processes=1)


@pytest.mark.parametrize("content", ["[]", "{}", '{"digest": 1, "config": 2}', '{"digest": "x", "config": {}}', "\xff"])
def test_any_broken_marker_is_named(tmp_path, content):
    (tmp_path / "minicity.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=str(tmp_path)):
        write(tmp_path, SMALL, processes=1)


def test_a_broken_marker_is_named(tmp_path):
    (tmp_path / "minicity.json").write_text("{")
    with pytest.raises(DataError, match=r"minicity\.json.*marker"):
        write(tmp_path, SMALL)


def test_a_full_disk_is_told_and_leaves_no_broken_file(tmp_path, monkeypatch):
    def full(self, content):
        if ".jpg." in self.name:
            self.touch()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with self.open("wb") as file:
            file.write(content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match=r"\bwrite\b.*No space left on device"):
        write(tmp_path / "d", SMALL, processes=1)
    assert not list((tmp_path / "d").rglob("*.jpg*"))


def test_a_root_that_cannot_be_a_folder_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=rf"\bwrite\b.*{re.escape(str(tmp_path / 'file'))}"):
        write(tmp_path / "file" / "city", SMALL, processes=1)


def test_thumbnail_by_hand(tmp_path):
    image = np.zeros((24, 32), np.uint8)
    image[:, 16:] = 200
    cv2.imwrite(str(tmp_path / "a.png"), image)
    descriptor = thumbnails([tmp_path / "a.png"])[0].reshape(24, 32)
    np.testing.assert_allclose(descriptor[:, :16], -(768**-0.5), rtol=1e-5)
    np.testing.assert_allclose(descriptor[:, 16:], 768**-0.5, rtol=1e-5)


def test_thumbnail_recall_counts_by_metres_and_condition(tmp_path):
    """Three databases 100 m apart; one query looks like its neighbour, one like a far place."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (24, 32), np.uint8) for _ in range(3)]
    for part in ("database", "queries"):
        (tmp_path / "images/test" / part).mkdir(parents=True)
    for k, picture in enumerate(pictures):
        cv2.imwrite(str(tmp_path / f"images/test/database/@{100 * k}@0@33@U@@@@@@@@@@day_x@.jpg"), picture)
    cv2.imwrite(str(tmp_path / "images/test/queries/@10@0@33@U@@@@@@@@@@day_x@.jpg"), pictures[0])
    cv2.imwrite(str(tmp_path / "images/test/queries/@110@0@33@U@@@@@@@@@@night_x@.jpg"), pictures[2])
    recall = thumbnail_recall(tmp_path, ns=(1, 3))
    assert recall == {"all": {1: 50.0, 3: 100.0}, "day": {1: 100.0, 3: 100.0}, "night": {1: 0.0, 3: 100.0}}


def test_thumbnails_of_the_city_find_more_than_chance(written):
    assert thumbnail_recall(written)["all"][10] > 0


def test_command_line(tmp_path, capsys):
    small = (
        "--blocks 1 --size 16 --headings 2 --train_spacing 60 --database_spacing 60 --test_queries 2 --val_queries 2"
    )
    arguments = [*small.split(), "--train_years", "2014,2015", "--style", "modern", "--processes", "1"]
    picture = tmp_path / "sheet.png"
    assert main(["--root", str(tmp_path / "e"), "--sheet", str(picture), "--thumbnails", *arguments]) == 0
    assert "R@1" in capsys.readouterr().out
    assert json.loads((tmp_path / "e/minicity.json").read_text())["config"]["train_years"] == [2014, 2015]
    assert cv2.imread(str(picture)).shape[1] % 16 == 0
    with pytest.raises(SystemExit, match="2"):
        main(["--drives", "--benchmark"])
    assert "--drives needs --root" in capsys.readouterr().err
    assert main(["--root", str(tmp_path / "e"), "--style", "baroque"]) == 2
    assert "old_town" in capsys.readouterr().err


def test_panoramas_are_added_and_never_missed(written, tmp_path, monkeypatch):
    """A city with panoramas serves those who ask for none; one without gets them, also after a kill in between."""
    without = replace(SMALL, panoramas=False)
    marker = (written / "minicity.json").read_bytes()
    assert write(written, without, processes=1) == written
    assert (written / "minicity.json").read_bytes() == marker
    with pytest.raises(DataError, match=r"quality.*\b88\b.*\b70\b"):
        write(written, replace(without, quality=70))
    root = write(tmp_path / "p", without, processes=1)
    expected, complete = contents(written), contents(root)
    assert complete == {name: data for name, data in expected.items() if "panoramas" not in name}
    render, left = drawing.panorama, [2]

    def killed(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return render(*arguments)

    monkeypatch.setattr(drawing, "panorama", killed)
    with pytest.raises(KeyboardInterrupt):
        write(root, SMALL, processes=1)
    assert 0 < len(contents(root)) - len(complete) <= 2
    assert write(root, without, processes=1) == root, "the views are all there meanwhile"
    monkeypatch.setattr(drawing, "panorama", render)
    write(root, SMALL, processes=1)
    assert contents(root) == expected
    assert not (root / "minicity.partial.json").exists()
    assert json.loads((root / "minicity.json").read_text()) == json.loads(marker)
