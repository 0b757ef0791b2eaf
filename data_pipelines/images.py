"""Image files to uint8 RGB arrays, and the resizing rules that published results depend on.

JPEG goes through libjpeg-turbo as it is (simplejpeg), the fastest of those that give Pillow's pixels; PNG through
OpenCV, and every other format through Pillow. Decoders fill what is missing of a truncated file with grey, so the end
of the file is checked here first, before any pixel is decoded.
"""

from __future__ import annotations

import io
import mmap
import os
from collections.abc import Callable, Sequence
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
from PIL import Image

from data_pipelines import image_bytes
from data_pipelines.errors import DataError
from data_pipelines.image_files import MOST_PIXELS, ImageError, check_pixels, eight_bits, naming, opened
from data_pipelines.image_headers import ORIENTATION_TAG, jpeg_header, png_header

# Loaders decode one image per thread; OpenCV's own pool would compete with them.
cv2.setNumThreads(1)

Array = np.ndarray
Size = tuple[int, int]

# One of so many pixels of a JPEG's rows and columns is decoded -> OpenCV's name for it
REDUCED = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    1: cv2.IMREAD_COLOR,
}

# EXIF orientation -> how the stored pixels become upright (EXIF 2.32, section 4.6.4)
UPRIGHT: dict[int, Callable[[Array], Array]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image.swapaxes(0, 1)[:, ::-1],
    7: lambda image: image.swapaxes(0, 1)[::-1, ::-1],
    8: lambda image: image.swapaxes(0, 1)[::-1],
}


class Encoded(NamedTuple):
    """A file in memory whose header was read and whose end was checked.

    Attributes:
      path: where it came from, for messages.
      data: the bytes of the file.
      kind: "jpeg", "png" or "other".
      height, width: pixels of the upright image, that is after `orientation`.
      orientation: EXIF orientation, 1..8.
    """

    path: str
    data: bytes
    kind: str
    height: int
    width: int
    orientation: int


def decode(path: str | os.PathLike[str], at_least: Size | None = None) -> Array:
    """Reads one image.

    Args:
      path: an address as of `image_bytes`. JPEG, PNG or another of `image_files.FORMATS`; grey, palette, alpha and
        deeper pixels become 8-bit RGB (`image_files.eight_bits`), and the EXIF orientation is applied.
      at_least: (height, width) that suffices. A JPEG is then decoded at 1/2, 1/4 or 1/8 of its size, as long as the
        result is no smaller than this in either direction. None decodes every pixel.

    Returns:
      uint8 [H, W, 3], RGB.

    Raises:
      ImageError: where the file is missing, empty, cut short, not an image, or too short for the pixels it claims.
    """
    return pixels(read(path), at_least)


def read(path: str | os.PathLike[str]) -> Encoded:
    """Reads the bytes of an image, its size, and whether it is complete. Raises ImageError as `decode` does."""
    name = os.fspath(path)
    with naming(path):
        data = image_bytes.read(path)
        kind, *upright = _header(name, data, io.BytesIO(data))
    return Encoded(name, data, kind, *upright)


def own_size(path: str | os.PathLike[str]) -> Size:
    """(height, width) of the upright image in a file, of which only the header and the end are read.

    Raises ImageError where `read` does.
    """
    name = os.fspath(path)
    with naming(path), image_bytes.opened(path) as file:
        if isinstance(file, io.BytesIO):
            return _header(name, file.getvalue(), file)[1:3]
        if not os.fstat(file.fileno()).st_size:
            raise _empty(name)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _header(name, data, file)[1:3]


def _empty(name: str) -> ImageError:
    return ImageError(f"{name}: the file is empty; expected an image. Copy it again or remove it")


def _header(name: str, data: bytes | mmap.mmap, file: BinaryIO) -> tuple[str, int, int, int]:
    """(kind, upright height and width, orientation) of the bytes of a file; raises where they are no image."""
    if not len(data):
        raise _empty(name)
    if data[:2] == b"\xff\xd8":
        kind, stored = "jpeg", jpeg_header(data)
    elif data[:8] == b"\x89PNG\r\n\x1a\n":
        kind, stored = "png", png_header(data)
    else:
        with opened(name, file) as image:
            # Pillow turns a TIFF itself, and gives its size as it is then.
            orientation = 1 if image.format == "TIFF" else image.getexif().get(ORIENTATION_TAG, 1)
            kind, stored = "other", (image.height, image.width, orientation)
    check_pixels(name, *stored[:2], len(data))
    return kind, *_upright(*stored)


def pixels(encoded: Encoded, at_least: Size | None = None) -> Array:
    """The upright pixels, uint8 [H, W, 3] RGB, of a file that `read` has opened; see `decode`."""
    if encoded.kind == "jpeg":
        image = _jpeg_pixels(encoded, _scale(encoded, at_least))
    else:
        image = _opencv_pixels(encoded) if encoded.kind == "png" else _pillow_pixels(encoded)
    if encoded.orientation in UPRIGHT:
        image = np.ascontiguousarray(UPRIGHT[encoded.orientation](image))
    return image


def _upright(height: int, width: int, orientation: int) -> tuple[int, int, int]:
    orientation = orientation if orientation in UPRIGHT else 1
    return (width, height, orientation) if orientation >= 5 else (height, width, orientation)


def _scale(encoded: Encoded, at_least: Size | None) -> int:
    """The largest of 8, 4, 2 and 1 by which a JPEG's sides can be divided and still give `at_least` (rounded up)."""
    if at_least is None:
        return 1
    height, width = at_least
    return next((n for n in REDUCED if -(-encoded.height // n) >= height and -(-encoded.width // n) >= width), 1)


def _jpeg_pixels(encoded: Encoded, scale: int) -> Array:
    """The pixels of a JPEG as they are stored, each side divided by `scale` and rounded up."""
    height, width = (encoded.width, encoded.height) if encoded.orientation >= 5 else (encoded.height, encoded.width)
    rows, columns = -(-height // scale), -(-width // scale)
    if rows * columns > MOST_PIXELS:
        raise ImageError(
            f"{encoded.path}: {width} x {height} pixels; at most {MOST_PIXELS:,} are read. Make it smaller or remove it"
        )
    # libjpeg-turbo takes the smallest number of eighths that gives the wanted sides; below 8 pixels several do.
    if scale > 1 and max(height, width) < 8:
        return _opencv_pixels(encoded, REDUCED[scale])
    import simplejpeg  # here, since only a JPEG needs it: training on other images runs without

    least = {"min_height": rows, "min_width": columns} if scale > 1 else {}
    try:
        return simplejpeg.decode_jpeg(encoded.data, **least)
    except ValueError as error:
        if "premature end" in str(error):
            raise ImageError(
                f"{encoded.path}: damaged JPEG, the end of its pixels is missing. Copy it again"
            ) from error
        return _opencv_pixels(encoded, REDUCED[scale])  # which only warns of damage that costs no pixel


def _opencv_pixels(encoded: Encoded, flag: int = cv2.IMREAD_COLOR) -> Array:
    try:
        stored = cv2.imdecode(np.frombuffer(encoded.data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ImageError(f"{encoded.path}: OpenCV cannot decode this {encoded.kind}: {error}") from error
    if stored is None:
        raise ImageError(f"{encoded.path}: damaged {encoded.kind}, no pixel could be decoded. Copy the file again")
    return cv2.cvtColor(stored, cv2.COLOR_BGR2RGB)


def _pillow_pixels(encoded: Encoded) -> Array:
    with opened(encoded.path, io.BytesIO(encoded.data)) as image:
        return eight_bits(encoded.path, image)


def _pillow(resampling: Image.Resampling) -> Callable[[Array, Size], Array]:
    return lambda image, size: np.array(Image.fromarray(image).resize((size[1], size[0]), resampling))


def _middle_of_pillow(image: Array, size: Size) -> Array:
    """The largest middle part of the shape of `size`, resized: the side that fits is, the other one is cut evenly."""
    (height, width), (tall, wide) = image.shape[:2], size
    if height * wide < width * tall:
        full = tall, width * tall // height
    else:
        full = height * wide // width, wide
    top, left = (full[0] - tall) // 2, (full[1] - wide) // 2
    return _pillow(Image.Resampling.BICUBIC)(image, full)[top : top + tall, left : left + wide]


def _linear(image: Array, size: Size) -> Array:
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def _area(image: Array, size: Size) -> Array:
    # Enlarging by areas repeats pixels in blocks, so it is linear there.
    enlarges = size[0] > image.shape[0] or size[1] > image.shape[1]
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR if enlarges else cv2.INTER_AREA)


# How an image becomes another size. Published recalls differ by points between them.
#   pil_bilinear, pil_bicubic: exactly Pillow's, which widens its filter when shrinking (SALAD; BoQ's is the bicubic)
#   linear: torch's `interpolate(mode="bilinear")` without antialias; skips pixels when shrinking (Deep VG benchmark)
#   area: every output pixel is the mean of the input pixels it covers; the fastest good one
#   pil_bicubic_middle: the only one that keeps an image's proportions; of what is then too long the middle (CLIP)
RULES: dict[str, Callable[[Array, Size], Array]] = {
    "pil_bilinear": _pillow(Image.Resampling.BILINEAR),
    "pil_bicubic": _pillow(Image.Resampling.BICUBIC),
    "linear": _linear,
    "area": _area,
    "pil_bicubic_middle": _middle_of_pillow,
}
# Those of `jaxvpr.models.resizing`, which run on the device, on real numbers; here only their names.
DEVICE_RULES = ("tensor_linear", "tensor_linear_antialias", "tensor_bicubic_antialias")


def resize(image: Array, size: Size, rule: str) -> Array:
    """Brings uint8 [H, W, 3] to `size` = (height, width) by one of `RULES`; the image itself where it has that size.

    Raises:
      DataError: for an unknown rule; lists those that exist.
    """
    if rule not in RULES:
        raise DataError(f"no resize rule {rule!r}; there are {', '.join(RULES)}")
    return image if image.shape[:2] == tuple(size) else RULES[rule](image, size)


def middle(full: Size, size: Size) -> tuple[slice, slice]:
    """Rows and columns of the middle `size` of an image of `full`, both (height, width), where torchvision's CenterCrop
    has it. ValueError where the image is smaller."""
    if full[0] < size[0] or full[1] < size[1]:
        raise ValueError(f"cannot crop {size} from an image of {full}: resize it first")
    top, left = (round((side - part) / 2) for side, part in zip(full, size, strict=True))
    return slice(top, top + size[0]), slice(left, left + size[1])


def centre_crop(image: Array, size: Size) -> Array:
    """The middle `size` = (height, width) of an image (torchvision's CenterCrop). ValueError where it is smaller."""
    return image[middle(image.shape[:2], size)]


def fit(image: Array, size: Size, rule: str, crop_from: Sequence[int] | None = None) -> Array:
    """`resize`; with `crop_from`, to that size (empty: it keeps its own), of which the middle `size` is then cut."""
    if crop_from is None:
        return resize(image, size, rule)
    height, width = crop_from or image.shape[:2]
    return centre_crop(resize(image, (height, width), rule), size)
