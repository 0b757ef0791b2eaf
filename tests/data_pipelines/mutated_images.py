"""Decodes damaged images in a process whose memory is bounded: `python mutated_images.py FOLDER CASES`.

Prints how many of the cases gave pixels and how many an ImageError; any other end of a case is a traceback.
"""

import io
import resource
import struct
import sys
import time
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipelines.images import ImageError, decode, own_size

MORE_MEMORY = 600 << 20  # bytes beside what the libraries take
LONGEST = 10  # seconds


def encoded(mode: str, kind: str, **options) -> bytes:
    """A small picture of noise in one format."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 40, 4), np.uint8)
    if mode in ("I;16", "I", "F"):
        image = Image.fromarray(noise[..., 0].astype({"I;16": "u2", "I": "i4", "F": "f4"}[mode]))
    else:
        image = Image.fromarray(noise).convert("RGB").convert(mode)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a photo of noise"
    if kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        options["exif"] = exif
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


SEEDS = [
    encoded("RGB", "JPEG"),
    encoded("RGB", "JPEG", progressive=True, restart_marker_blocks=1),
    encoded("L", "JPEG", quality=20),
    encoded("CMYK", "JPEG"),
    encoded("RGB", "PNG"),
    encoded("I;16", "PNG"),
    encoded("P", "PNG", transparency=b"\0\x80"),
    encoded("1", "PNG"),
    *(encoded("RGB", "TIFF", compression=name) for name in (None, "tiff_lzw", "tiff_deflate", "packbits", "jpeg")),
    encoded("1", "TIFF", compression="group4"),
    *(encoded(mode, "TIFF") for mode in ("I;16", "I", "F", "P", "LAB")),
    encoded("I;16", "PPM"),
    encoded("RGB", "PPM"),
    b"P2\n3 2\n1023\n" + b" ".join(b"%d" % n for n in (0, 1, 500, 600, 1022, 1023)),
    encoded("RGB", "BMP"),
    encoded("P", "BMP"),
    b"BM" + bytes(8) + struct.pack("<IIiiHHI", 1078, 40, 8, 2, 1, 8, 1) + bytes(1044)  # packed by lengths of runs
    + b"\x08\1\0\0\x02\5\0\2\1\0\1",
    encoded("RGB", "WEBP"),
    encoded("RGBA", "WEBP", lossless=True),
    encoded("P", "GIF"),
]  # fmt: skip

# Numbers as a header has them: 0, 1, the largest of 8, 16 and 32 bits, and sides that no memory holds.
NUMBERS = [
    n.to_bytes(size, order)
    for n in (0, 1, 255, 20_000, 65_535, 2**24, 2**31 - 1, 2**32 - 1)
    for size in (1, 2, 4)
    for order in ("little", "big")
    if n < 256**size
]


@st.composite
def damaged(draw) -> bytes:
    """One of `SEEDS` after a few changes, half of them in its first bytes, where the header is."""
    data = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, min(len(data), 96)) | st.integers(0, len(data)))
        change = draw(st.sampled_from(["number", "number", "flip", "cut", "insert", "repeat"]))
        if change == "number":
            number = draw(st.sampled_from(NUMBERS))
            data = data[:at] + number + data[at + len(number) :]
        elif change == "flip":
            data = (
                data[:at] + bytes([byte ^ 1 << draw(st.integers(0, 7)) for byte in data[at : at + 1]]) + data[at + 1 :]
            )
        elif change == "cut":
            data = data[:at] if draw(st.booleans()) else data[:at] + data[at + draw(st.integers(1, 64)) :]
        else:
            part = draw(st.binary(max_size=8)) if change == "insert" else data[at // 2 : at]
            data = data[:at] + part + data[at:]
    return repaired(data) if draw(st.booleans()) else data


def repaired(data: bytes) -> bytes:
    """A PNG with right checksums, so that what else is wrong with it is met."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return data
    at, parts = 8, [data[:8]]
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        parts += [data[at:end], zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")]
        at = end + 4
    return b"".join(parts)


def ended(read, path: Path):
    """What `read` gives, or "refused" for an ImageError that names the file."""
    began = time.monotonic()
    with warnings.catch_warnings(record=True) as warned:
        try:
            result = read(path)
        except ImageError as error:
            assert str(path) in str(error) and "memory" not in str(error), error
            result = "refused"
    assert not warned, [str(warning.message) for warning in warned]
    assert time.monotonic() - began < LONGEST
    return result


def main(folder: str, cases: str) -> None:
    path, ends = Path(folder) / "a.jpg", Counter()

    @settings(
        max_examples=int(cases), deadline=None, database=None, derandomize=True, suppress_health_check=[*HealthCheck]
    )
    @given(damaged())
    def check(data: bytes) -> None:
        path.write_bytes(data)
        size, image = ended(own_size, path), ended(decode, path)
        ends["refused" if isinstance(image, str) else "decoded"] += 1
        if not isinstance(image, str):
            assert image.dtype == np.uint8 and image.shape == (*size, 3)

    for seed in SEEDS:  # as they are
        path.write_bytes(seed)
        ended(decode, path)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MORE_MEMORY, resource.RLIM_INFINITY))
    check()
    print(ends["decoded"], ends["refused"])


if __name__ == "__main__":
    main(*sys.argv[1:])
