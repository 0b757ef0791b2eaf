"""Frames of video files: which are taken, upright, and what is said of files that are none."""

import re
import shlex
import struct
import subprocess
import sys

import numpy as np
import pytest
from videos import write_video

from data_pipelines import video
from data_pipelines.errors import DataError
from data_pipelines.video import Every


def shades(count, size=(32, 48)):
    """Grey frames that tell their number, up to 30: 8 steps apart."""
    return [np.full((*size, 3), 8 * (number % 31), np.uint8) for number in range(count)]


@pytest.mark.parametrize("name, code", [("a.avi", "MJPG"), ("a.mp4", "mp4v"), ("a.mkv", "MJPG")])
def test_frames_come_in_order_with_their_times(tmp_path, name, code):
    file = write_video(tmp_path / name, shades(20), rate=10.0, code=code)
    found = list(video.frames(file, Every(frames=1)))
    assert [frame.number for frame in found] == list(range(20))
    np.testing.assert_allclose([frame.seconds for frame in found], np.arange(20) / 10, atol=1e-3)
    assert [round(frame.image.mean() / 8) for frame in found] == list(range(20))
    assert all(frame.image.shape == (32, 48, 3) and frame.image.dtype == np.uint8 for frame in found)


@pytest.mark.parametrize(
    "text, rate, taken",
    [
        ("7", 10.0, [0, 7, 14]),
        ("0.5s", 10.0, [0, 5, 10, 15]),
        ("1 s", 29.97, [0, 30]),  # frame 30 is shown at 1.001 s
        (".25s", 10.0, [0, 3, 5, 8, 10, 13, 15, 18]),  # the first at or after 0.25, 0.5, 0.75 ...
        ("0.01s", 10.0, list(range(20))),  # more than there are
    ],
)
def test_one_in_so_many_frames_or_seconds(tmp_path, text, rate, taken):
    file = write_video(tmp_path / "a.avi", shades(31 if rate > 20 else 20), rate=rate)
    assert [frame.number for frame in video.frames(file, Every.parse(text))] == taken


@pytest.mark.parametrize("text", ["", "0", "0s", "-1s", "1m", "every", "1e3s", "nan s"])
def test_other_texts_are_refused(text):
    with pytest.raises(DataError, match=r"neither seconds between frames, such as 0\.5s, nor a number"):
        Every.parse(text)


def test_a_rotation_that_the_file_states_is_applied(tmp_path):
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24, 32:] = 0, 0, 255  # red at the top right
    file = write_video(tmp_path / "a.mp4", [image] * 4, code="mp4v")
    data = bytearray(file.read_bytes())
    matrix = data.index(b"tkhd") + 44  # ISO 14496-12, 8.3.2: behind version, times, number, duration, layer and volume
    assert struct.unpack(">9i", data[matrix : matrix + 36]) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    data[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)  # a quarter clockwise
    file.write_bytes(data)
    frame = next(video.frames(file, Every(frames=1))).image
    assert frame.shape == (64, 48, 3)
    red = frame[..., 2] > 128
    assert red[40:60, 30:45].all() and not red[:28].any() and not red[:, :20].any()


def test_what_is_no_video_is_named_with_what_to_do(tmp_path, capfd):
    whole = write_video(tmp_path / "whole.mp4", shades(20), code="mp4v").read_bytes()
    contents = {
        "text.mp4": (b"hello\n" * 50, "cut off while it was recorded or copied"),
        "empty.mp4": (b"", "The file is empty"),
        "cut.mp4": (whole[:-300], "cut off while it was recorded or copied"),
        "photo.avi": (b"\x89PNG\r\n\x1a\n" + bytes(90), "cut off while it was recorded or copied"),
    }
    for name, (data, why) in contents.items():
        file = tmp_path / name
        file.write_bytes(data)
        with pytest.raises(DataError) as caught:
            list(video.frames(file, Every(frames=1)))
        said = str(caught.value)
        assert said.startswith(f"{file}: cannot be read as a video.") and why in said
        command = said.partition("convert it: ")[2]
        assert shlex.split(command)[:3] == ["ffmpeg", "-i", str(file)]
    for absent in (tmp_path / "absent.mp4", tmp_path):
        with pytest.raises(DataError, match=f"{re.escape(str(absent))}: there is no such video, or it is a folder"):
            next(video.frames(absent, Every(frames=1)))
    # What FFmpeg itself complains about is not shown; it may have been asked to before, so in a process of its own.
    program = f"""
from data_pipelines import video
try: list(video.frames({str(tmp_path / "cut.mp4")!r}, video.Every(frames=1)))
except ValueError: print("refused")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("refused\n", "")


def test_a_video_without_a_frame_is_refused(tmp_path):
    file = write_video(tmp_path / "a.avi", shades(20))
    data = file.read_bytes()
    file.write_bytes(data[: data.index(b"movi") + 4])  # all but the frames
    with pytest.raises(DataError, match=rf"^{re.escape(str(file))}: the video holds no frame that can be decoded\. If"):
        list(video.frames(file, Every(frames=1)))


def test_a_video_that_breaks_off_gives_what_there_is(tmp_path, caplog):
    file = write_video(tmp_path / "a.avi", shades(100, (240, 320)), rate=10.0)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    found = list(video.frames(file, Every(frames=1)))
    assert 20 < len(found) < 80 and [round(frame.image.mean() / 8) for frame in found[:20]] == list(range(20))
    last = found[-1]
    assert f"{file} breaks off: frame {last.number}, {last.seconds:.1f} seconds after its start" in caplog.text
    assert "of 100. The frames before are used" in caplog.text


def test_a_list_that_is_called_a_video_opens_no_other_file(tmp_path):
    write_video(tmp_path / "other.avi", shades(5))
    for name, text in (
        ("list.mp4", "#EXTM3U\n#EXTINF:1,\nother.avi\n#EXT-X-ENDLIST\n"),
        ("concat.avi", "ffconcat version 1.0\nfile 'other.avi'\n"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match="cannot be read as a video"):
            list(video.frames(tmp_path / name, Every(frames=1)))


def test_names_of_videos():
    assert all(map(video.is_video, ("a.MP4", "b/c.mov", "x.y.avi"))) and not any(
        map(video.is_video, ("a", "mp4", "a.jpg"))
    )
