"""Clips are cut from drives as a literal loop cuts them, and what cannot be cut is named."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.clips import Clips, Cutting, cut
from data_pipelines.errors import DataError
from data_pipelines.places import Paths, Places


def drive(frames, name="drive", **columns):
    frames = np.asarray(frames)
    return Places.create(name, Paths.of([f"{k}.jpg" for k in range(len(frames))]), frame=frames, **columns)


def test_windows_slide_over_each_sequence_and_stop_at_gaps():
    """Sequence 3 has frames 0..4, whose rows are mixed; sequence 7 has 5, 6 and, after a gap, 8, 9, 10."""
    images = drive([5, 2, 0, 1, 4, 3, 6, 8, 9, 10], sequence=[7, 3, 3, 3, 3, 3, 7, 7, 7, 7])
    assert cut(images, 3).rows.tolist() == [[2, 3, 1], [3, 1, 5], [1, 5, 4], [7, 8, 9]]
    assert cut(images, 3, stride=2).rows.tolist() == [[2, 3, 1], [1, 5, 4], [7, 8, 9]]
    assert cut(images, 3, every=2).rows.tolist() == [[2, 1, 4]]
    assert cut(images, 2).rows.tolist() == [[2, 3], [3, 1], [1, 5], [5, 4], [0, 6], [7, 8], [8, 9]]
    assert len(cut(images, 1)) == 10


def test_a_drive_without_sequences_is_one_of_its_role_and_split():
    images = drive([0, 1, 2, 0, 1, 2], role=[0, 0, 0, 1, 1, 1], split=[2, 2, 2, 2, 2, 1])
    assert cut(images, 2).rows.tolist() == [[0, 1], [1, 2], [3, 4]]


def test_steps_in_metres_and_seconds_end_a_clip():
    seconds = np.datetime64("2020-01-01T00:00:00", "s") + np.array([0, 1, 2, 30, 31])
    images = drive(np.arange(5), east=[0.0, 5, 40, 41, 42], north=0.0, time=seconds)
    assert cut(images, 2).rows.tolist() == [[0, 1], [1, 2], [2, 3], [3, 4]]
    assert cut(images, 2, metres=5).rows.tolist() == [[0, 1], [2, 3], [3, 4]]
    assert cut(images, 2, metres=35, seconds=1).rows.tolist() == [[0, 1], [1, 2], [3, 4]]


def test_a_time_that_falls_ends_a_clip_and_is_told(caplog):
    days = ["2020-01-02", "2020-01-03", "NaT", "2020-01-05", "2020-01-04", "2020-01-06"]
    images = drive(np.arange(6), time=np.array(days, "datetime64[s]"))
    assert cut(images, 2).rows.tolist() == [[0, 1], [1, 2], [2, 3], [4, 5]]
    assert "1 times a frame was taken before the one of the next lower number, first 4.jpg after 3.jpg" in caplog.text


@settings(deadline=None, max_examples=60)
@given(
    frames=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12)), min_size=1, max_size=30, unique=True),
    length=st.integers(1, 4), stride=st.integers(1, 3), every=st.integers(1, 3),
)  # fmt: skip
def test_clips_are_those_of_a_literal_loop(frames, length, stride, every):
    row_of = {key: row for row, key in enumerate(frames)}
    wanted = []
    for sequence, first in sorted(row_of):
        if (sequence, first - 1) in row_of:
            continue
        run = [row_of[sequence, first]]
        while (sequence, first + len(run)) in row_of:
            run.append(row_of[sequence, first + len(run)])
        windows = [run[start:][: (length - 1) * every + 1 : every] for start in range(0, len(run), stride)]
        wanted += [window for window in windows if len(window) == length]
    images = drive([frame for _, frame in frames], sequence=[sequence for sequence, _ in frames])
    if wanted:
        assert cut(images, length, stride=stride, every=every).rows.tolist() == wanted
    else:
        with pytest.raises(DataError, match="longest"):
            cut(images, length, stride=stride, every=every)


def test_what_stands_for_a_clip_and_orders_of_its_frames():
    images = drive(np.arange(7), east=np.arange(7.0), north=0.0)
    clips = cut(images, 5)
    assert clips.length == 5 and clips.places.east.tolist() == [2, 3, 4]
    assert cut(images, 5, match="last").places.east.tolist() == [4, 5, 6]
    turned, mixed = clips.ordered("reversed"), clips.ordered("shuffled")
    assert turned.rows[0].tolist() == [4, 3, 2, 1, 0] and turned.places.east.tolist() == [2, 3, 4]
    assert np.sort(mixed.rows, 1).tolist() == clips.rows.tolist() != mixed.rows.tolist()
    assert mixed.rows.tolist() == clips.ordered("shuffled").rows.tolist()
    last = clips.take(np.array([2, 0]))
    assert last.rows.tolist() == [[2, 3, 4, 5, 6], [0, 1, 2, 3, 4]] and last.places.east.tolist() == [4, 2]


def test_clips_of_several_tables_become_those_of_one():
    one, other = cut(drive(np.arange(3)), 2), cut(drive(np.arange(4), "other"), 2, stride=2)
    both = Clips.concat([one, other])
    assert both.rows.tolist() == [[0, 1], [1, 2], [3, 4], [5, 6]] and len(both.images) == 7
    assert both.places.frame.tolist() == [1, 2, 1, 3]
    with pytest.raises(DataError, match=r"\[2, 3\] frames cannot share a batch"):
        Clips.concat([one, cut(drive(np.arange(3)), 3)])


def test_one_side_of_a_task_may_be_single_images():
    images = drive(np.arange(4))
    for task, lengths in {"seq2seq": (3, 3), "im2seq": (3, 1), "seq2im": (1, 3), "im2im": (1, 1)}.items():
        cutting = Cutting(3, task=task)
        assert (cutting.database(images).length, cutting.queries(images).length) == lengths
    assert Cutting(3, order="reversed").database(images).rows.tolist() == [[2, 1, 0], [3, 2, 1]]
    assert Cutting(3, order="reversed").queries(images).rows.tolist() == [[0, 1, 2], [1, 2, 3]]
    assert Cutting.of({"length": 0, "stride": 2}) is None and Cutting.of({}) is None


@pytest.mark.parametrize(
    "columns, keys, words",
    [
        ({"frame": [0, 1, 4]}, {"length": 3},
         r"clips.length=3 .* from 3 images: the longest of 2 drives .* has 2 frames. Ask for shorter clips$"),
        ({"frame": [0, 1, 2], "role": [1, 1, 1], "east": [0, 9.0, 10], "north": [0, 0, 0.0]},
         {"length": 3, "metres": 5.0}, r"from 3 query images: .* shorter clips, or raise clips.metres=5$"),
        ({"frame": [0, -1, -1]}, {"length": 2}, r"1\.jpg and 1 more of 3 .* no frame number.*columns sequence"),
        ({"frame": [0, 1, 1]}, {"length": 2}, r"1\.jpg and 2\.jpg have the same frame number, and no .* sequence"),
        ({"frame": [0, 1, 1], "sequence": [4, 4, 4]}, {"length": 2}, r"1\.jpg and 2\.jpg are the same frame of one"),
        ({"frame": [0, 1, 2], "sequence": [4, -1, 4]}, {"length": 2}, r"1\.jpg and 0 more .* belong to no sequence"),
        ({"frame": [0, 1, 2]}, {"length": 2, "metres": 5.0}, r"0\.jpg and 2 more .* clips.metres=5 needs"),
        ({"frame": [0, 1, 2]}, {"length": 2, "seconds": 5.0}, r"0\.jpg and 2 more have no time, which clips.seconds=5"),
    ],
)  # fmt: skip
def test_what_cannot_be_cut_is_named(columns, keys, words):
    columns = {name: np.asarray(values) for name, values in columns.items()}
    with pytest.raises(DataError, match=words):
        cut(drive(columns.pop("frame"), **columns), **keys)


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"task": "seq"}, r"clips.task='seq' does not exist; there are \['seq2seq'"),
        ({"match": "all"}, "clips.match='all'"),
        ({"order": "up"}, "clips.order='up'"),
        ({"stride": 0, "metres": -1.0}, r"clips.stride=0, clips.metres=-1.0: .* at least 1"),
    ],
)
def test_values_that_there_are_not(keys, words):
    with pytest.raises(DataError, match=words):
        Cutting(3, **keys)
