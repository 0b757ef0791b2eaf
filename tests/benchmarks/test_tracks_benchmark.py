"""What `benchmarks/tracks.py` counts: drives apart and in order, and whose answers are near."""

from types import SimpleNamespace

import numpy as np

from benchmarks import tracks
from data_pipelines import readers
from data_pipelines.places import Paths, Places


def test_drives_are_apart_and_their_frames_in_order(monkeypatch):
    made = Places.create(
        "city",
        Paths.of([f"{k}.jpg" for k in range(6)]),
        role=np.array([0, 1, 1, 1, 1, 0]),
        sequence=np.array([1, 7, 9, 7, 9, 1]),
        frame=np.array([0, 4, 1, 2, 0, 1]),
    )
    monkeypatch.setattr(readers, "read", lambda *_, **__: made)
    database, others = tracks.drives("city")
    assert [str(path) for path in database.path] == ["0.jpg", "5.jpg"]
    assert [[str(path) for path in drive.path] for drive in others] == [["3.jpg", "1.jpg"], ["4.jpg", "2.jpg"]]


def test_an_answer_is_near_within_ten_and_twenty_five_metres():
    database = SimpleNamespace(east=np.array([0.0, 30.0]), north=np.array([0.0, 40.0]))
    frames = SimpleNamespace(east=np.array([6.0, 45.0, 0.0]), north=np.array([8.0, 60.0, 0.0]))
    assert tracks.within(np.array([0, 1, 1]), database, frames).tolist() == [[True] * 2, [False, True], [False] * 2]
