"""Which files are opened as images, how many pixels they may claim, and how pixels of any depth become 8-bit RGB."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from data_pipelines import image_bytes
from data_pipelines.errors import DataError

# Pillow's name of a format -> how names of its files end. No others are opened, whatever a file is called: Pillow hands
# some of those that it knows to other programs, EPS to Ghostscript, which runs it.
FORMATS: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm"),
    "GIF": (),
}
MOST_PIXELS = 2**30  # of an image as it is decoded, 3 GiB; OpenCV's limit too
MOST_SIDE = 2**16 - 1  # JPEG's own
# A short file may claim so many pixels (48 MiB), and a long one so many for each of its bytes: deflate, of one byte a
# pixel, gives no more, and JPEG's Huffman codes give half of it.
FREE_PIXELS, PIXELS_PER_BYTE = 2**24, 1032

BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF 6.0

# Our bound is closer than Pillow's, and what it warns of (odd tags) names no file.
Image.MAX_IMAGE_PIXELS = MOST_PIXELS
warnings.filterwarnings("ignore", module=r"PIL\.")


class ImageError(DataError):
    """A file that is missing, cut short, or not an image; the message names it."""


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Makes an ImageError that names the file out of what the system or a decoder raises, but for a DataError."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # Pillow raises whatever its parsers meet in damaged bytes, TypeError too
        reason = str(error) or "more memory is needed than there is"
        if isinstance(error, OSError) and error.strerror:
            raise ImageError(f"{os.fspath(path)}: cannot read this image: {error.strerror}") from error
        if isinstance(error, UnidentifiedImageError):
            reason = f"not an image of the formats that are read ({', '.join(FORMATS)}; 8 or 16 bits a colour)"
        raise ImageError(f"{os.fspath(path)}: {reason}. Copy the file again or remove it") from error


@contextmanager
def opened(path: str | os.PathLike[str], file: BinaryIO | None = None) -> Iterator[Image.Image]:
    """An image file in Pillow's hands, its header read; `file` holds its bytes where they are read already.

    Raises:
      ImageError: where the file is missing or no image of `FORMATS`, or what is done with it finds it damaged.
    """
    with (
        naming(path),
        file or image_bytes.opened(path) as stream,
        Image.open(stream, formats=tuple(FORMATS)) as image,
    ):
        yield image


def check_pixels(path: str, height: int, width: int, length: int) -> None:
    """Raises ImageError where a file of `length` bytes cannot hold the pixels that its header claims."""
    if height * width > max(FREE_PIXELS, PIXELS_PER_BYTE * length) or max(height, width) > MOST_SIDE:
        raise ImageError(
            f"{path}: {width} x {height} pixels, which a file of {length} bytes cannot hold: no photo has more than "
            f"{PIXELS_PER_BYTE} for each byte, or sides above {MOST_SIDE}. Copy the file again or remove it"
        )


def eight_bits(path: str, image: Image.Image) -> np.ndarray:
    """The pixels of an opened image as uint8 [H, W, 3], RGB.

    Whole numbers without sign keep their highest eight bits (Pillow rounds those of a PPM in colour to the nearest of
    eight bits); real numbers from 0 to 1 are scaled to 0 to 255.

    Raises:
      ImageError: for numbers whose black and white nothing tells: real ones beyond 0 to 1, and those of 32 bits.
    """
    image.load()
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        grey = (np.asarray(image) >> tags.get(BITS_PER_SAMPLE, (16,))[0] - 8).astype(np.uint8)
    elif image.mode == "F":
        real = np.asarray(image)
        if not ((real >= 0) & (real <= 1)).all():
            raise ImageError(
                f"{path}: its pixels are real numbers from {real.min():g} to {real.max():g}, and only 0 (black) to 1 "
                "(white) are read. Scale them, or save it with 8 or 16 bits"
            )
        grey = np.rint(real * 255).astype(np.uint8)
    elif image.mode == "I":
        raise ImageError(
            f"{path}: its pixels are numbers of 32 bits or with a sign, and nothing tells which of them is white. Save "
            "it with 8 or 16 bits"
        )
    else:
        return np.array(image.convert("RGB"))
    return np.repeat((255 - grey if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else grey)[..., None], 3, axis=2)
