"""What is opened as an image and what never is; pixels of every depth against numbers written by hand."""

import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from data_pipelines import readers
from data_pipelines.image_files import FORMATS, FREE_PIXELS
from data_pipelines.images import ImageError, decode, own_size
from jaxvpr.reports.pictures import data_uri, small

ROOT = Path(__file__).resolve().parents[2]
EPS = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 10\n%%EndComments\n(photo.txt) deletefile\nshowpage\n%%EOF\n"


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """The trace that a Ghostscript on the path leaves when anybody starts it."""
    trace, program = tmp_path / "trace", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho ran >> {trace}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return trace


def test_no_program_is_started_for_what_is_named_as_an_image(tmp_path, ghostscript):
    photo = tmp_path / "photos" / "photo.jpg"
    photo.parent.mkdir()
    photo.write_text(EPS)
    for reader in (decode, own_size, lambda path: small(path, 64), lambda path: readers.read("photos", path.parent)):
        with pytest.raises(ImageError, match=r"photo\.jpg: not an image of the formats that are read \(JPEG, PNG"):
            reader(photo)
    assert data_uri(photo, 64) is None
    assert not ghostscript.exists()
    with Image.open(photo) as image, pytest.raises(OSError):  # Pillow alone starts it
        image.load()
    assert ghostscript.exists()


def test_one_place_opens_images_and_one_videos_and_only_formats_that_no_other_program_reads():
    opening = {
        file.name
        for room in ("jaxvpr", "data_pipelines", "configs")
        for file in (ROOT / room).rglob("*.py")
        if re.search(r"Image\.open\(|VideoCapture", file.read_text())
    }
    assert opening == {"image_files.py", "video.py"}
    assert set(FORMATS) <= {"JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM", "GIF"}


def tiff(path, pixels, bits, kind=1, photometric=1):
    """Writes rows of grey pixels as an uncompressed TIFF: kind 1 is unsigned, 2 signed, 3 real; bits of one pixel."""
    pixels = np.asarray(pixels)
    if bits == 12:
        first, second = pixels[:, ::2], pixels[:, 1::2]
        data = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1).astype(np.uint8).tobytes()
    else:
        data = pixels.astype(f"<{' uif'[kind]}{bits // 8}").tobytes()
    height, width = pixels.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 134, 277: 1, 278: height,
            279: len(data), 339: kind}  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data)
    return path


def grey(values):
    return np.repeat(np.array(values, np.uint8)[..., None], 3, axis=2)


DEEP = [[0, 255, 256, 257], [4096, 32768, 65279, 65535]]
HIGH = [[0, 0, 1, 1], [16, 128, 254, 255]]


def pgm(path, pixels, most):
    path.write_bytes(b"P5\n4 2\n%d\n" % most + np.array(pixels, ">u2").tobytes())
    return path


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda path: pgm(path / "a.pgm", DEEP, 65535), HIGH),
        (lambda path: pgm(path / "a.pgm", [[0, 1, 4, 511], [512, 767, 1022, 1023]], 1023),
         [[0, 0, 1, 127], [128, 191, 255, 255]]),
        (lambda path: tiff(path / "a.tif", DEEP, 16), HIGH),
        (lambda path: tiff(path / "a.tif", DEEP, 16, photometric=0), [[255, 255, 254, 254], [239, 127, 1, 0]]),
        (lambda path: tiff(path / "a.tif", [[0, 15, 16, 31], [256, 2048, 4079, 4095]], 12),
         [[0, 0, 1, 1], [16, 128, 254, 255]]),
        (lambda path: tiff(path / "a.tif", [[0, 0.25, 0.5, 0.1], [0.9, 0.001, 0.998, 1]], 32, kind=3),
         [[0, 64, 128, 26], [230, 0, 254, 255]]),
        (lambda path: cv2.imwrite(str(path / "a.png"), np.array(DEEP, np.uint16)) and path / "a.png", HIGH),
    ],
    ids=["pgm16", "pgm10", "tiff16", "tiff16-white-is-zero", "tiff12", "real", "png16"],
)  # fmt: skip
def test_deep_pixels_keep_their_highest_bits_for_the_model_and_in_pictures(tmp_path, write, expected):
    path = write(tmp_path)
    assert np.array_equal(decode(path), grey(expected))
    assert np.array_equal(np.array(small(path, 4)), grey(expected))


@pytest.mark.parametrize(("suffix", "off"), [("png", 0), ("tif", 0), ("ppm", 1)])
def test_sixteen_bits_of_each_colour(tmp_path, suffix, off):
    deep = np.random.default_rng(0).integers(0, 65536, (6, 8, 3), np.uint16)
    assert cv2.imwrite(str(tmp_path / f"a.{suffix}"), deep[..., ::-1])
    assert np.abs(decode(tmp_path / f"a.{suffix}").astype(int) - (deep >> 8)).max() == off
    assert cv2.imwrite(str(tmp_path / "real.tif"), deep.astype(np.float32) / 65535)
    with pytest.raises(ImageError, match=r"real\.tif: not an image .*8 or 16 bits a colour"):
        decode(tmp_path / "real.tif")


@pytest.mark.parametrize(
    ("pixels", "bits", "kind", "said"),
    [
        ([[0, 1], [2**31, 2**32 - 1]], 32, 1, "32 bits or with a sign"),
        ([[0, 1], [200, 255]], 32, 2, "32 bits or with a sign"),
        ([[0, -1], [200, 255]], 16, 2, "32 bits or with a sign"),
        ([[0, 1], [0.5, 255]], 32, 3, "real numbers from 0 to 255"),
        ([[0, -0.1], [0.5, 1]], 32, 3, "real numbers from -0.1 to 1"),
        ([[0, np.nan], [0.5, 1]], 32, 3, "real numbers from nan"),
    ],
)
def test_pixels_whose_white_nothing_tells_are_refused(tmp_path, pixels, bits, kind, said):
    path = tiff(tmp_path / "a.tif", pixels, bits, kind)
    assert own_size(path) == (2, 2)
    with pytest.raises(ImageError, match=rf"a\.tif: .*{said}.*ave it with 8 or 16 bits$"):
        decode(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_tiff_has_the_size_that_it_is_decoded_at(tmp_path, orientation):
    stored = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "a.tif", exif=exif)
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(decode(tmp_path / "a.tif"), decode(tmp_path / "a.png"))
    assert own_size(tmp_path / "a.tif") == own_size(tmp_path / "a.png") == decode(tmp_path / "a.tif").shape[:2]


def claiming(path, height, width):
    """A small image whose header says that it has so many pixels."""
    image = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    image.save(path, **({"lossless": True} if path.suffix == ".webp" else {}))
    data = bytearray(path.read_bytes())
    if path.suffix == ".jpg":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", height, width)
    elif path.suffix == ".png":
        data[16:24] = struct.pack(">II", width, height)
    elif path.suffix == ".bmp":
        data[18:26] = struct.pack("<II", width, height)
    elif path.suffix == ".webp":
        data[21:25] = struct.pack("<I", (height - 1) << 14 | width - 1)
    elif path.suffix == ".ppm":
        data[:6] = b"P6\n%d %d" % (width, height)
    else:
        for tag, side in ((256, width), (257, height)):
            at = re.search(struct.pack("<H", tag) + rb"[\3\4]\0", data).start()
            data[at : at + 12] = struct.pack("<HHII", tag, 4, 1, side)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "ppm", "tif"])
def test_a_header_cannot_claim_more_pixels_than_its_file_holds(tmp_path, suffix):
    side = 16_000 if suffix == "webp" else 20_000
    path = claiming(tmp_path / f"a.{suffix}", side, side)
    for reader in (decode, own_size):
        with pytest.raises(ImageError, match=rf"a\.{suffix}: {side} x {side} pixels, which a file of .* cannot hold"):
            reader(path)


def test_a_photo_of_one_colour_is_no_bomb(tmp_path):
    """The formats at their best: a black photo of more pixels than any header may claim for nothing."""
    black = np.zeros((4100, 4100), np.uint8)
    assert black.size > FREE_PIXELS
    assert cv2.imwrite(str(tmp_path / "a.png"), black, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert cv2.imwrite(str(tmp_path / "a.jpg"), black, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_OPTIMIZE, 1])
    for name in ("a.png", "a.jpg"):
        assert own_size(tmp_path / name) == black.shape


@pytest.mark.parametrize("mode", ["progressive", "one colour a scan"])
def test_a_jpeg_of_more_scans_than_a_photo_has_is_refused(tmp_path, mode):
    """A scan of a few bytes costs a pass over all pixels: 60 kB could take an hour."""
    kind = {"progressive": True} if mode == "progressive" else {"subsampling": 0}
    Image.fromarray(np.zeros((2000, 2000, 3), np.uint8)).save(tmp_path / "a.jpg", **kind)
    data = (tmp_path / "a.jpg").read_bytes()
    assert own_size(tmp_path / "a.jpg") == decode(tmp_path / "a.jpg").shape[:2] == (2000, 2000)
    if mode == "progressive":
        last = data[data.rindex(b"\xff\xda") : -2]
    else:
        at = data.index(b"\xff\xda")
        last = b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, 0, 63, 0) + bytes(20)
        data = data[:at] + last + b"\xff\xd9"
    (tmp_path / "a.jpg").write_bytes(data[:-2] + last * 2000 + b"\xff\xd9")
    for reader in (decode, own_size):
        with pytest.raises(ImageError, match=r"a\.jpg: its 2000 x 2000 pixels come in 20\d\d scans"):
            reader(tmp_path / "a.jpg")


@pytest.mark.long
def test_a_photo_of_300_megapixels_is_read(tmp_path):
    """Its position too, by Pillow, who finds it too large by itself; and small where that suffices."""
    photo = np.tile(np.random.default_rng(0).integers(0, 256, (50, 50), np.uint8), (300, 400))
    assert cv2.imwrite(str(tmp_path / "a.jpg"), photo)
    assert len(readers.read("photos", tmp_path, without_position="keep")) == 1
    assert own_size(tmp_path / "a.jpg") == (15_000, 20_000)
    assert decode(tmp_path / "a.jpg").shape == (15_000, 20_000, 3)
    assert decode(tmp_path / "a.jpg", (480, 640)).shape == (1875, 2500, 3)


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    for reader in (decode, own_size, lambda path: readers.read("photos", path.parent)):
        with pytest.raises(ImageError, match=r"a\.jpg: cannot read this image: a pipe, device or socket"):
            reader(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="/dev/zero: cannot read this image: a pipe, device or socket"):
        decode("/dev/zero")


@pytest.mark.parametrize("cases", [200, pytest.param(10_000, marks=pytest.mark.long)])
def test_damaged_images_give_pixels_or_an_error_that_names_them_in_bounded_memory(tmp_path, cases):
    command = [sys.executable, Path(__file__).with_name("mutated_images.py"), tmp_path, str(cases)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    decoded, refused = map(int, done.stdout.split())
    assert decoded + refused >= cases and min(decoded, refused) > cases // 20
