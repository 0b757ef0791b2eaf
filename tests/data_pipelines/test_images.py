"""Decoding against Pillow and OpenCV, and damaged files of every kind."""

import io

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from data_pipelines.errors import DataError
from data_pipelines.images import ImageError, decode, own_size, read, resize


def photo(height=90, width=130, seed=0):
    """A smooth picture of many colours."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def save(path, image=None, **options):
    image = photo() if image is None else image
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def pillow(path):
    with Image.open(path) as image:
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_equals_pillow(tmp_path, subsampling, progressive):
    path = save(tmp_path / "a.jpg", quality=90, subsampling=subsampling, progressive=progressive)
    image = decode(path)
    assert image.shape == (90, 130, 3) and image.dtype == np.uint8
    # Both are libjpeg-turbo, but not always the same release of it.
    assert np.abs(image.astype(int) - pillow(path)).max() <= 1


KINDS = {
    "4:4:4": {"subsampling": "4:4:4"},
    "4:2:2": {"subsampling": "4:2:2"},
    "4:2:0": {"subsampling": "4:2:0"},
    "4:1:1": {"subsampling": "4:1:1"},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_blocks": 2},
    "RGB": {"keep_rgb": True},
    "grey": {},
    "CMYK": {},
}
SCALES = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def reduced(size, scale):
    return tuple(-(-side // scale) for side in size)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 2), (3, 3), (5, 5), (7, 5), (8, 9), (3, 40), (61, 47), (64, 128)])
def test_jpeg_equals_opencv_bit_for_bit_at_every_scale(tmp_path, kind, size):
    image = Image.fromarray(photo(*size)).convert({"grey": "L", "CMYK": "CMYK"}.get(kind, "RGB"))
    path = save(tmp_path / "a.jpg", image, quality=90, **KINDS[kind])
    for scale in SCALES:
        least = reduced(size, scale)
        largest = max(n for n in SCALES if reduced(size, n) == least)  # of a side of 1 pixel there is nothing to halve
        expected = cv2.imdecode(np.fromfile(path, np.uint8), SCALES[largest])
        assert np.array_equal(decode(path, at_least=least), cv2.cvtColor(expected, cv2.COLOR_BGR2RGB)), scale


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_orientation_is_applied_in_every_format_and_scale(tmp_path, orientation, name):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / name, photo(96, 160), exif=exif)
    header, image = read(path), decode(path)
    assert image.shape == (*((160, 96) if orientation >= 5 else (96, 160)), 3)
    assert (header.height, header.width) == own_size(path) == image.shape[:2] and header.orientation == orientation
    assert np.abs(image.astype(int) - pillow(path)).max() <= 1
    halved = decode(path, at_least=(image.shape[0] // 2, image.shape[1] // 2))
    if name == "a.jpg":
        assert halved.shape[:2] == (image.shape[0] // 2, image.shape[1] // 2)
        assert np.abs(halved.astype(int) - resize(image, halved.shape[:2], "area")).mean() < 2
    else:
        assert np.array_equal(halved, image)


@pytest.mark.parametrize(
    "name", ["grey.jpg", "grey.png", "alpha.png", "palette.png", "photo.bmp", "photo.tif", "p.gif"]
)
def test_other_kinds_become_rgb(tmp_path, name):
    image = Image.fromarray(photo())
    convert = {"grey": "L", "alph": "RGBA", "pale": "P", "p.gi": "P"}.get(name[:4], "RGB")
    path = save(tmp_path / name, image.convert(convert))
    result = decode(path)
    assert result.shape == (90, 130, 3) and np.abs(result.astype(int) - pillow(path)).max() <= 1
    if name.startswith("grey"):
        assert np.array_equal(result[..., 0], result[..., 2])


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, name):
    deep = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    assert cv2.imwrite(str(tmp_path / name), deep)
    result = decode(tmp_path / name)
    assert np.abs(result.astype(int) - (deep / 257)[..., None]).max() <= 1


@settings(deadline=None, max_examples=40)
@given(st.integers(8, 200), st.integers(8, 200), st.integers(1, 220), st.integers(1, 220))
def test_reduced_images_suffice_and_are_the_smallest_that_do(tmp_path_factory, height, width, least_h, least_w):
    path = save(tmp_path_factory.mktemp("reduced") / "a.jpg", photo(height, width))
    got = decode(path, at_least=(least_h, least_w)).shape[:2]
    sizes = [(-(-height // s), -(-width // s)) for s in (8, 4, 2, 1)]
    enough = [size for size in sizes if size[0] >= least_h and size[1] >= least_w]
    assert got == (enough[0] if enough else (height, width))


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_reduced_decoding_is_close_to_full_decoding_and_averaging(tmp_path, scale):
    path = save(tmp_path / "a.jpg", photo(256, 320), quality=95)
    size = (256 // scale, 320 // scale)
    reduced = decode(path, at_least=size)
    assert reduced.shape[:2] == size
    difference = np.abs(reduced.astype(int) - resize(decode(path), size, "area"))
    assert difference.mean() < 1.5 and difference.max() < 12, (difference.mean(), difference.max())


@pytest.mark.parametrize("name", ["a.jpg", "progressive.jpg", "a.png", "a.webp", "a.tif", "a.bmp"])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.7, 0.97])
def test_a_file_cut_short_is_named(tmp_path, name, kept):
    path = save(tmp_path / name, photo(), **({"progressive": True} if name[0] == "p" else {}))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ImageError, match=name):
        decode(path)
    if not name.endswith((".tif", ".bmp", ".webp")):  # of these the header alone does not tell
        with pytest.raises(ImageError, match=rf"{name}.*(truncated|not an image)"):
            own_size(path)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 10**6))
def test_every_cut_of_a_jpeg_with_a_thumbnail_is_noticed(tmp_path_factory, cut):
    thumbnail = io.BytesIO()
    save(thumbnail, photo(24, 32), format="JPEG")
    exif = b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + thumbnail.getvalue()
    path = save(tmp_path_factory.mktemp("cut") / "a.jpg", exif=exif)
    data = path.read_bytes()
    assert decode(path).shape == (90, 130, 3)
    path.write_bytes(data[: len(data) - 1 - cut % (len(data) - 1)])
    with pytest.raises(ImageError, match=r"truncated|damaged|not an image"):
        decode(path)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("kept", [0.5, 0.97])
def test_a_jpeg_that_was_cut_short_and_closed_is_named(tmp_path, progressive, kept):
    path = save(tmp_path / "a.jpg", progressive=progressive)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)] + b"\xff\xd9")
    for least in (None, (20, 20)):
        with pytest.raises(ImageError, match=r"a\.jpg.*damaged.*missing"):
            decode(path, least)


def stray_bytes(data):
    """Before a restart marker, where decoders look for the next one."""
    at = data.index(b"\xff\xd3")
    return data[:at] + b"\x55" * 4 + data[at:]


def odd_subsampling(data):
    """Three times as many columns of brightness as of colour, which few decoders know."""
    at = data.index(b"\xff\xc0") + 11
    return data[:at] + b"\x31" + data[at + 1 :]


@pytest.mark.parametrize("change", [stray_bytes, odd_subsampling])
def test_a_jpeg_that_is_only_strange_is_read_as_opencv_reads_it(tmp_path, change):
    path = save(tmp_path / "a.jpg", photo(64, 64), subsampling=0, restart_marker_blocks=2)
    data = path.read_bytes()
    path.write_bytes(change(data))
    with pytest.raises(ValueError, match=r"extraneous|subsampling"):
        simplejpeg.decode_jpeg(path.read_bytes())
    for least, flag in ((None, cv2.IMREAD_COLOR), ((32, 32), cv2.IMREAD_REDUCED_COLOR_2)):
        expected = cv2.imdecode(np.fromfile(path, np.uint8), flag)
        assert np.array_equal(decode(path, least), cv2.cvtColor(expected, cv2.COLOR_BGR2RGB))


def test_a_jpeg_of_more_pixels_than_memory_is_named(tmp_path):
    path = save(tmp_path / "a.jpg")
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = b"\xff\xff\xff\xff"  # 65,535 rows and columns, which would be 13 GB
    path.write_bytes(data)
    for reader in (decode, own_size):
        with pytest.raises(ImageError, match=r"a\.jpg.*\b65535 x 65535\b.*\bcannot hold\b"):
            reader(path)
    path.write_bytes(data + bytes(65535**2 // 1032))  # so many bytes could
    with pytest.raises(ImageError, match=r"a\.jpg.*\b65535 x 65535\b.*\b1,073,741,824\b"):
        decode(path)


def test_bytes_after_the_end_of_a_jpeg_do_no_harm(tmp_path):
    path = save(tmp_path / "a.jpg")
    whole = decode(path)
    path.write_bytes(path.read_bytes() + b"\0" * 100 + b"trailer of a camera")
    assert np.array_equal(decode(path), whole)


def test_a_png_with_a_damaged_chunk_is_named(tmp_path):
    path = save(tmp_path / "a.png")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 8] = bytes(8 * [data[middle] ^ 0xFF])
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"a\.png.*damaged"):
        decode(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"", "empty"), (b"hello, this is text", "not an image"), (b"\xff\xd8\xff\xd9", "JPEG")],
)
def test_files_that_are_no_images_are_named(tmp_path, content, message):
    path = tmp_path / "a.jpg"
    if content is not None:
        path.write_bytes(content)
    for reader in (decode, own_size):
        with pytest.raises(ImageError, match=message) as caught:
            reader(path)
        assert str(path) in str(caught.value) and isinstance(caught.value, DataError)


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(ImageError, match="directory"):
        decode(tmp_path)


def test_real_photos_decode_as_pillow_does(real_data):
    paths = sorted(path for kind in ("*.jpg", "*.png") for path in real_data.rglob(kind))[::200][:30]
    assert paths
    for path in paths:
        assert np.abs(decode(path).astype(int) - pillow(path)).max() <= 1, path
