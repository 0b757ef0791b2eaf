"""Frames of a drive, from a folder or a video, in their order."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from videos import write_video

from data_pipelines import drive
from data_pipelines.errors import DataError
from data_pipelines.places import Paths, Places
from data_pipelines.video import Every

NAMES = ["f10.jpg", "f2.jpg", "f1.jpg", "g/f1.jpg", "F3.jpg"]
ALL = Every(frames=1)


def images(names=NAMES, **columns):
    return Places.create("drive", Paths.of(names, "drive"), **columns)


def names_of(frames):
    return [frames.paths.relative(row) for row in range(len(frames.paths))]


def test_numbers_in_names_count_as_such():
    found = drive.of_images(images(), ALL)
    assert names_of(found) == ["F3.jpg", "f1.jpg", "f2.jpg", "f10.jpg", "g/f1.jpg"]
    assert found.number.tolist() == [0, 1, 2, 3, 4] and np.isnan(found.seconds).all()
    assert names_of(drive.of_images(images(), Every(frames=2))) == ["F3.jpg", "f2.jpg", "g/f1.jpg"]


def test_frames_with_numbers_go_by_them():
    found = drive.of_images(images(frame=[7, 5, 9, 6, 8], sequence=3), ALL)
    assert names_of(found) == ["f2.jpg", "g/f1.jpg", "f10.jpg", "F3.jpg", "f1.jpg"]
    assert found.number.tolist() == [5, 6, 7, 8, 9]
    assert drive.of_images(images(frame=[7, 5, 9, 6, 8]), Every(frames=2)).number.tolist() == [5, 7, 9]
    with pytest.raises(DataError, match=r"f2\.jpg and drive/f1\.jpg have the same frame number, 5: leave one out"):
        drive.of_images(images(frame=[7, 5, 5, 6, 8]), ALL)
    with pytest.raises(DataError, match="drive: images of 2 sequences; a track is of one: give its folder alone"):
        drive.of_images(images(frame=[7, 5, 9, 6, 8], sequence=[0, 0, 0, 1, 1]), ALL)


def test_times_give_seconds_where_they_rise(caplog):
    order = ["a1.jpg", "a2.jpg", "a3.jpg", "a4.jpg"]
    start = np.datetime64("2026-01-01T10:00:00")
    taken = start + np.array([0, 1, 3, 4])
    assert drive.of_images(images(order, time=taken), ALL).seconds.tolist() == [0, 1, 3, 4]
    assert drive.of_images(images(order, time=taken), Every(seconds=2.0)).number.tolist() == [0, 2, 3]
    unknown = taken.copy()
    unknown[2] = np.datetime64("NaT")
    for time in (unknown, np.full(4, start)):  # of photos of one second nothing is known of their steps
        assert np.isnan(drive.of_images(images(order, time=time), ALL).seconds).all()
        with pytest.raises(DataError, match="every 2 seconds, but not all say when they were taken"):
            drive.of_images(images(order, time=time), Every(seconds=2.0))
    falls = drive.of_images(images(order, time=taken[[0, 2, 1, 3]]), ALL)
    assert np.isnan(falls.seconds).all() and "drive/a2.jpg was taken later than drive/a3.jpg" in caplog.text


@pytest.mark.parametrize("overlap", [0, 2, 6])
def test_frames_of_a_video_lie_on_the_disk_a_few_at_a_time(tmp_path, monkeypatch, overlap):
    shades = [np.full((16, 16, 3), 8 * number, np.uint8) for number in range(11)]
    file = write_video(tmp_path / "a.avi", shades, rate=2.0)
    monkeypatch.setattr(drive, "DISK", 5 * 16 * 16 * 3)
    seen, folder = [], Path()
    for part in drive.of_video(file, ALL, overlap):
        pictures = [cv2.imread(path) for path in part.paths]
        assert [round(picture.mean() / 8) for picture in pictures] == part.number.tolist()
        folder = Path(part.paths[0]).parent
        assert overlap < len(list(folder.iterdir())) == len(part.paths) <= 4 + overlap
        np.testing.assert_allclose(part.seconds, part.number / 2, atol=1e-3)
        seen.append(part.number.tolist())
    parts = {
        0: [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]],
        2: [[0, 1, 2, 3], [2, 3, 4, 5, 6, 7], [6, 7, 8, 9, 10]],
        6: [list(range(7)), list(range(1, 11))],  # of clips of 7 frames, more than would be kept else
    }
    assert seen == parts[overlap] and not folder.exists()


def test_what_reads_no_further_leaves_nothing_behind(tmp_path):
    file = write_video(tmp_path / "a.avi", [np.zeros((16, 16, 3), np.uint8)] * 3)
    parts = drive.of_video(file, ALL)
    folder = Path(next(parts).paths[0]).parent
    parts.close()
    assert not folder.exists()
