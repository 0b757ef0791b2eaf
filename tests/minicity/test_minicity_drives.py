"""Drives: frames that move along the streets as a car does, written once, read back with what their names lack."""

import json
import shutil
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_pipelines import readers
from data_pipelines.errors import DataError
from data_pipelines.minicity import CityConfig, DriveConfig, write, write_drives
from data_pipelines.minicity.drives import drives
from data_pipelines.minicity.layout import plan

SMALL = CityConfig(
    blocks=1, size=16, headings=1, train_years=(2013, 2014), train_spacing=60.0, database_spacing=60.0,
    val_spacing=60.0, test_queries=2, val_queries=2,
)  # fmt: skip
FEW = DriveConfig(seconds=12, train_passes=1, val_passes=1, test_passes=2)
OTHER = {
    "seconds": 2, "speed": (1.0, 6.0), "stops": 0.5, "wait": (1, 2), "train_passes": 2, "val_passes": 2,
    "test_passes": 2,
}  # fmt: skip


def contents(root):
    return {str(f.relative_to(root)): f.read_bytes() for f in sorted(root.rglob("*.jpg"))}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("drives") / "a"
    write_drives(root, SMALL, FEW, processes=1)
    return root


@pytest.fixture(scope="module")
def planned():
    config = CityConfig()
    layout = plan(config)
    return config, layout, drives(DriveConfig(), config, layout)


def each(table):
    """The rows of each drive."""
    for number, folder in enumerate(table.folders):
        yield folder, np.flatnonzero(table.part == number)


def test_the_city_and_its_digests_are_those_from_before_there_were_drives():
    """Taken from the version that had none: recipes and figures are known by them."""
    assert CityConfig().digest() == "0da4bc6b923775dc"
    assert CityConfig().test_digest() == "d293f7ed88f7f488"


def test_a_frame_follows_the_one_before_as_a_car_does(planned):
    config, layout, table = planned
    streets = np.concatenate([np.stack([line[:-1], line[1:]], 1) for line in layout.camera_lines()])
    fastest = DriveConfig().speed[1]
    standing = 0
    for folder, rows in each(table):
        assert table.frame[rows].tolist() == list(range(len(rows)))
        assert (np.diff(table.time[rows]) == np.timedelta64(1, "s")).all()
        step = np.diff(table.xy[rows], axis=0)
        moved = np.linalg.norm(step, axis=1)
        assert moved.max() < fastest * 1.15 and moved.std() > 0.5  # 1.15: beside the line a curve is longer
        standing += (moved == 0).sum()
        assert (table.heading[rows][1:][moved == 0] == table.heading[rows][:-1][moved == 0]).all()
        way = np.degrees(np.arctan2(step[:, 0], step[:, 1]))
        off = (way - table.heading[rows][:-1] + 180) % 360 - 180
        limit = config.query_turn if "/queries/" in folder else 0.0
        assert np.median(np.abs(off[moved > 1])) <= limit + 2
        a, b = streets[:, 0], streets[:, 1] - streets[:, 0]
        out = table.xy[rows][:, None] - a
        share = np.clip((out * b).sum(2) / (b * b).sum(1), 0, 1)
        beside = np.linalg.norm(out - share[..., None] * b, axis=2).min(1)
        assert beside.max() <= 4.0 + (config.query_shift if "/queries/" in folder else 0)  # rounded corners
    assert standing > 100


def test_each_split_has_a_database_by_day_and_second_passes_in_other_years_in_every_condition(planned):
    config, _, table = planned
    years = {"train": ({2013}, {2014, 2015, 2016}), "val": ({2015}, {2017}), "test": ({2016}, {2018, 2019})}
    for split, (database, queries) in years.items():
        for role, wanted in (("database", database), ("queries", queries)):
            here = np.isin(table.part, [k for k, f in enumerate(table.folders) if f"/{split}/{role}/" in f])
            assert set(table.year[here]) == wanted
            seen = {config.conditions[k] for k in np.unique(table.condition[here])}
            every = (
                {"day"} if role == "database" else {"day", "night", "fog"} if split == "val" else {*config.conditions}
            )
            assert seen == every
            if role == "database":
                covered = table.xy[here]
            else:
                nearest = np.linalg.norm(table.xy[here][:, None] - covered, axis=2).min(1)
                assert nearest.max() < 6.0, "every query passes a street of the database"
    assert 4_000 < len(table) < 7_000 and len(set(table.folders)) == 27


def test_every_setting_moves_the_digest_and_panoramas_do_not():
    base = DriveConfig()
    assert {f.name for f in fields(DriveConfig)} == set(OTHER)
    digests = {replace(base, **{field: value}).digest(SMALL) for field, value in OTHER.items()}
    assert len(digests | {base.digest(SMALL), base.digest(replace(SMALL, seed=1))}) == len(OTHER) + 2
    assert base.digest(replace(SMALL, panoramas=True)) == base.digest(SMALL)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pace": 3}, r"drives of the mini city has no setting \['pace'\]"),
        ({"speed": (6.0, 2.0)}, "slowest <= fastest"),
        ({"speed": 3.0}, "must be of type tuple"),
        ({"seconds": 0}, "seconds must lie"),
        ({"wait": (3,)}, "two whole numbers"),
        ({"test_passes": 0}, "passes must lie"),
    ],
)
def test_settings_that_no_car_drives_by(settings, said):
    with pytest.raises(DataError, match=said):
        DriveConfig.of(settings)


def test_read_back_with_all_columns(written):
    places = readers.read("minicity", written, drives=True, city=_settings(SMALL), drive=_settings(FEW))
    table = drives(FEW, SMALL, plan(SMALL))
    assert len(places) == len(table) == len(list(written.rglob("*.jpg")))
    row = {Path(table.files(SMALL, k)[0]).name: k for k in range(len(table))}
    of = np.array([row[Path(places.path.relative(k)).name] for k in range(len(places))])
    east = places.east - 415_000
    np.testing.assert_allclose(np.stack([east, places.north - 5_815_000], 1), table.xy[of], atol=0.0051)
    np.testing.assert_allclose(places.heading, table.heading[of], atol=1e-3)
    assert (places.frame == table.frame[of]).all() and (places.time == table.time[of]).all()
    assert set(places.zone) == {33} and set(places.view) == {0}
    assert (
        len(set(places.sequence)) == len(table.folders) == len(set(zip(places.sequence, table.part[of], strict=True)))
    )
    named = [SMALL.conditions[k] for k in table.condition[of]]
    assert [places.conditions_of(k)[0] for k in range(len(places))] == named
    roles = Counter(zip(places.split.tolist(), places.role.tolist(), strict=True))
    wanted = Counter()
    for folder, count in table.images().items():
        split, role = folder.split("/")[1:3]
        wanted[("train", "val", "test").index(split), ("database", "queries").index(role)] += count
    assert roles == wanted
    test = readers.read("minicity", written, split="test", drives=True, city=_settings(SMALL), drive=_settings(FEW))
    assert len(test) == sum(count for (split, _), count in wanted.items() if split == 2)


def _settings(config):
    return {f.name: getattr(config, f.name) for f in fields(config)}


@pytest.mark.long
def test_two_processes_write_the_same_bytes(written, tmp_path):
    write_drives(tmp_path / "b", SMALL, FEW, processes=2)
    assert contents(tmp_path / "b") == contents(written)


def test_written_drives_are_left_alone(written):
    before = {f: f.stat().st_mtime_ns for f in written.rglob("*")}
    write_drives(written, SMALL, FEW)
    assert {f: f.stat().st_mtime_ns for f in written.rglob("*")} == before
    assert cv2.imread(str(next(written.rglob("*@0000@*.jpg")))).shape == (16, 16, 3)


def test_the_city_is_drawn_beside_its_drives_as_without_them(written, tmp_path):
    root = shutil.copytree(written, tmp_path / "both")
    write(root, SMALL, processes=1)
    alone = contents(write(tmp_path / "alone", SMALL, processes=1))
    assert contents(root) == contents(written) | alone
    assert not list(root.rglob("*.partial.json"))
    assert json.loads((root / "images/drives/drives.json").read_text())["digest"] == FEW.digest(SMALL)
    write_drives(tmp_path / "alone", SMALL, FEW, processes=1)
    assert contents(tmp_path / "alone") == contents(root)
    assert (tmp_path / "alone/minicity.json").read_bytes() == (root / "minicity.json").read_bytes()


def test_frames_that_were_deleted_are_drawn_again(written, tmp_path, caplog):
    root = shutil.copytree(written, tmp_path / "c")
    for file in sorted(root.rglob("*.jpg"))[5:9]:
        file.unlink()
    write_drives(root, SMALL, FEW, processes=1)
    assert "4 of the" in caplog.text and contents(root) == contents(written)


def test_drives_through_another_city_are_refused(written):
    with pytest.raises(DataError, match=r"another mini city .*quality: 88 there, 70 wanted"):
        write_drives(written, replace(SMALL, quality=70), FEW)


def test_other_drives_are_refused_and_the_advice_is_right(written, tmp_path):
    root = shutil.copytree(written, tmp_path / "d")
    others = replace(FEW, seconds=60)
    with pytest.raises(DataError, match=r"images/drives holds another set of drives \(seconds: 12 there.*delete that"):
        write_drives(root, SMALL, others)
    shutil.rmtree(root / "images/drives")
    write_drives(root, SMALL, others, processes=1)
    assert 0 < len(contents(root)) < len(contents(written))


def test_frames_of_one_drive_share_light_and_differ_in_noise(planned):
    config, _, table = planned
    rows = np.flatnonzero(table.part == 0)
    a, b = (table.shot(config, int(row)) for row in rows[:2])
    assert (a.key, a.condition, a.year) == (b.key, b.condition, b.year) and (a.frame, b.frame) == (0, 1)


def test_drives_have_no_panoramas(tmp_path):
    with pytest.raises(DataError, match="no panoramas"):
        readers.read("minicity", tmp_path, drives=True, panoramas=True)
