"""A database that was damaged, edited or mixed up is refused by name; one that is read is the one that was written."""

import csv
import json
import re
import shutil
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipelines.clips import Cutting
from data_pipelines.errors import DataError
from data_pipelines.places import Paths, Places
from jaxvpr.cli.recipes import load_config
from jaxvpr.errors import UserError
from jaxvpr.runs import database_file
from jaxvpr.runs.database_file import PARTS

CONFIG = load_config("configs/cosplace.py:tiny")
WEIGHTS = {"params": {"w": np.arange(6, dtype=np.float32)}, "batch_stats": {}}
VALUES = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
NAMES = [b"a.jpg", b"caf\xe9.jpg", 'straße, "9".jpg'.encode(), b"two\nlines.jpg", b"e.jpg", b"f" * 251 + b".jpg"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("database")
    places = Places.create(
        "photos", Paths.of(NAMES, "photos"), east=np.arange(6) + 500_000.0, north=np.arange(6) + 5_800_000.0,
        zone=[33, 33, 33, 33, -1, -1], heading=[0, 90, np.nan, 270, 1, 2],
    )  # fmt: skip
    database_file.write(folder / "db.npy", CONFIG, WEIGHTS, VALUES, places)
    return folder


def read(folder):
    return database_file.read(folder / "db.npy", CONFIG, WEIGHTS)


@pytest.fixture
def copy(written, tmp_path):
    return shutil.copytree(written, tmp_path / "copy")


def assert_is_whole(found):
    np.testing.assert_array_equal(found.descriptors, VALUES)
    assert [row["path"] for row in found.rows] == [Paths.of(NAMES, "photos")[row] for row in range(6)]
    assert [row["east"] for row in found.rows] == [str(500_000 + row) for row in range(6)]


def test_what_is_written_is_read_whatever_the_names(written):
    assert_is_whole(read(written))


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 5))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_descriptors_are_written_in_whatever_order_they_come(tmp_path, seed, count, size):
    """One row never comes: it is zeros."""
    rng = np.random.default_rng(seed)
    values, order = rng.normal(size=(count, 3)).astype(np.float32), rng.permutation(count)
    places = Places.create("photos", Paths.of(map(str, range(count)), "photos"))
    with database_file.writing(tmp_path / "any.npy", CONFIG, WEIGHTS, places) as table:
        rows = table(values.shape)
        assert rows.shape == (count, 3)
        for first in range(0, count - 1, size):
            part = order[: count - 1][first : first + size]
            rows[part] = values[part]
    values[order[-1]] = 0
    np.testing.assert_array_equal(np.load(tmp_path / "any.npy"), values)
    found = database_file.read(tmp_path / "any.npy", CONFIG, WEIGHTS)
    np.testing.assert_array_equal(found.descriptors, values)


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: shutil._ntuple_diskusage(1000, 800, 200))
    with (
        pytest.raises(OSError, match=r"No space left on device: .*places\.npy"),
        database_file.writing(
            tmp_path / "places.npy", CONFIG, WEIGHTS, Places.create("photos", Paths.of("a"))
        ) as table,
    ):
        table((6, 4))
    assert not list(tmp_path.iterdir())


def edited(change):
    def spoil(file):
        file.write_bytes(change(file.read_bytes()))

    return spoil


def reversed_rows(content):
    header, *rows = csv.reader(content.decode(errors="surrogateescape").splitlines(keepends=True))
    lines = [",".join(f'"{cell}"' for cell in row) for row in [header, *rows[::-1]]]
    return ("\r\n".join(lines) + "\r\n").encode(errors="surrogateescape")


SPOILT = {
    "cut": (".npy", edited(lambda c: c[:200])),
    "empty": (".npy", edited(lambda c: b"")),
    "half the columns": (".npy", lambda file: np.save(file, VALUES[:, :2])),
    "one row NaN": (".npy", lambda file: np.save(file, np.where(np.arange(6)[:, None] == 2, np.nan, VALUES))),
    "a pickle": (".npy", lambda file: np.save(file, np.array([{}], object), allow_pickle=True)),
    "the table as descriptors": (".npy", lambda file: shutil.copy(file.with_suffix(".csv"), file)),
    "another's": (".npy", lambda file: np.save(file, VALUES[::-1])),
    "no object": (".json", edited(lambda c: b"[]")),
    "a brace": (".json", edited(lambda c: b"{")),
    "deep": (".json", edited(lambda c: b'{"a":' * 100_000)),
    "no text": (".json", edited(lambda c: b"\xff\xfe{}")),
    "semicolons": (".csv", edited(lambda c: c.replace(b",", b";"))),
    "byte order mark": (".csv", edited(lambda c: b"\xef\xbb\xbf" + c)),
    "reversed rows": (".csv", edited(reversed_rows)),
    "an east moved": (".csv", edited(lambda c: c.replace(b"500003", b"500013"))),
    "a folder": (".csv", lambda file: (file.unlink(), file.mkdir())),
}


@pytest.mark.parametrize("how", SPOILT)
def test_spoilt_files_are_refused_by_name(copy, how):
    part, spoil = SPOILT[how]
    spoil(copy / f"db{part}")
    with pytest.raises((UserError, DataError), match=rf"copy/db\{part}\b.*jaxvpr extract.*--overwrite"):
        read(copy)


@pytest.mark.parametrize(
    ("part", "said"), [(".csv", "named by its .npy"), (".json", "named by its .npy"), ("", ".npy")]
)
def test_another_part_given_as_the_database(written, part, said):
    with pytest.raises(UserError, match=said):
        database_file.read(written / f"db{part}", CONFIG, WEIGHTS)


OLD = {
    "whole": ("", None, None),
    "one row NaN": ("row 2 is not finite", ".npy", SPOILT["one row NaN"][1]),
    "other type": ("float64", ".npy", lambda file: np.save(file, VALUES.astype(float))),
    "a row less": ("5 descriptors but its table 6 rows", ".npy", lambda file: np.save(file, VALUES[:5])),
    "semicolons": (r"row 1\b.*begins with", ".csv", SPOILT["semicolons"][1]),
    "junk in a number": (r"row 4: .*could not convert.*'5e'", ".csv", edited(lambda c: c.replace(b"500003", b"5e"))),
    "a short row": (r"row 7\b", ".csv", edited(lambda c: c + b"x,1\r\n")),
}


@pytest.mark.parametrize("how", OLD)
def test_a_database_of_before_there_were_checksums(copy, caplog, how):
    """It is read, with a word, and what can be seen without them is."""
    about = copy / "db.json"
    about.write_text(re.sub(r',\s*"parts": \{[^}]*\}', "", about.read_text()))
    said, part, spoil = OLD[how]
    if not part:
        assert_is_whole(read(copy))
        assert "taken to belong together" in caplog.text
        return
    spoil(copy / f"db{part}")
    with pytest.raises((UserError, DataError), match=said):
        read(copy)


@given(
    part=st.sampled_from(PARTS), at=st.integers(0, 5000), length=st.integers(0, 40), put=st.binary(max_size=12),
    keep=st.sampled_from([None, None, None, 0, 1, 80, 200]),
)  # fmt: skip
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_bytes_are_changed_it_is_read_as_it_was_or_refused_by_name(copy, part, at, length, put, keep):
    file = copy / f"db{part}"
    before = file.read_bytes()
    at %= len(before)
    file.write_bytes((before[:at] + put + before[at + length :])[:keep])
    try:
        with warnings.catch_warnings(action="error"):
            found = read(copy)
    except (UserError, DataError) as error:
        assert "copy/db." in str(error)
    else:
        assert_is_whole(found)
    finally:
        file.write_bytes(before)


def test_a_database_of_clips_says_how_they_were_cut(tmp_path):
    frames = Places.create(
        "drive", Paths.of([f"{number}.jpg" for number in range(8)], "drive"), frame=np.arange(8) + 3, sequence=7,
        east=500_000.0 + np.arange(8), north=5_800_000.0, zone=33,
    )  # fmt: skip
    cutting = Cutting(3, stride=2, match="last")
    clips, file = cutting.clips(frames), tmp_path / "db.npy"
    with database_file.writing(file, CONFIG, WEIGHTS, clips, cutting=cutting) as made:
        made((3, 4))[np.arange(3)] = VALUES[:3]
    found = database_file.read(file, CONFIG, WEIGHTS)
    assert found.cutting == cutting and [row["path"] for row in found.rows] == [f"drive/{n}.jpg" for n in (2, 4, 6)]
    ends = [(row["sequence"], row["first_frame"], row["last_frame"], row["east"]) for row in found.rows]
    assert ends == [("7", "3", "5", "500002"), ("7", "5", "7", "500004"), ("7", "7", "9", "500006")]
    about = file.with_suffix(".json")
    for keys in ({"length": 0}, {"length": 3, "frames": 3}, {"stride": 1}, [3], "3"):
        about.write_text(json.dumps(json.loads(about.read_text()) | {"clips": keys}))
        with pytest.raises(DataError, match=rf"^{re.escape(str(about))}: its clips cannot be read: .*jaxvpr extract"):
            database_file.read(file, CONFIG, WEIGHTS)
