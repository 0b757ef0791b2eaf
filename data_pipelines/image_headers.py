"""Size and orientation from the header of a JPEG or PNG file, and whether the file is complete."""

from __future__ import annotations

import mmap
import re
import struct

from PIL import Image

ORIENTATION_TAG = 0x0112
PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
SCAN = re.compile(rb"\xff\xda")
# Pixels times scans that a JPEG may have (seconds of decoding), or may have for each of its bytes if that is more. A
# photo has ten scans or so; each costs a pass over all pixels, even one of 30 bytes.
MOST_SCANNED, SCANNED_PER_BYTE = 2**31, 1032
WITHOUT_LENGTH = frozenset(range(0xD0, 0xD8)) | {0x01}
APP1, START_OF_SCAN, END_OF_IMAGE = 0xE1, 0xDA, b"\xff\xd9"


def jpeg_header(data: bytes | mmap.mmap) -> tuple[int, int, int]:
    """(height, width, orientation) from the markers before the first scan; ValueError where the file is cut short.

    Entropy-coded data never holds FF D9 (FF is stuffed there), so an end marker after the first scan means a complete
    file (ITU T.81, B.1.1.2). Bytes after it, as some cameras append, do no harm.
    """
    size, orientation, at, several = None, 1, 2, False
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker in WITHOUT_LENGTH:
            at += 1 if marker == 0xFF else 2
            continue
        start, at = at + 4, at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in START_OF_FRAME:
            size = (
                int.from_bytes(data[start + 1 : start + 3], "big"),
                int.from_bytes(data[start + 3 : start + 5], "big"),
            )
            several, components = marker in PROGRESSIVE, data[start + 5 : start + 6]
        elif marker == APP1 and data[start : start + 6] == b"Exif\0\0":
            orientation = orientation_of(data[start:at])
        elif marker == START_OF_SCAN:
            if data[-2:] != END_OF_IMAGE and data.rfind(END_OF_IMAGE, at) < 0:
                raise ValueError("truncated JPEG: the end-of-image marker is missing")
            if size is None or 0 in size:
                raise ValueError("damaged JPEG: its size is not given before its pixels")
            if several or data[start : start + 1] < components:  # else the first scan is all that is decoded
                scans = sum(1 for _ in SCAN.finditer(data, start - 4))
                if size[0] * size[1] * scans > max(MOST_SCANNED, SCANNED_PER_BYTE * len(data)):
                    raise ValueError(f"its {size[1]} x {size[0]} pixels come in {scans} scans, more than any photo has")
            return *size, orientation
    raise ValueError("truncated or damaged JPEG: it ends before its pixels begin")


def png_header(data: bytes | mmap.mmap) -> tuple[int, int, int]:
    """(height, width, orientation) from the chunks; ValueError where the last of them, IEND, is missing."""
    orientation, at = 1, 8
    while at + 12 <= len(data):
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        if kind == b"eXIf":
            orientation = orientation_of(b"Exif\0\0" + data[at + 8 : end - 4])
        if kind == b"IEND":
            width, height = struct.unpack(">II", data[16:24])
            return height, width, orientation
        at = end
    raise ValueError("truncated PNG: its last chunk (IEND) is missing")


def orientation_of(exif: bytes) -> int:
    """EXIF orientation of a block that begins with "Exif"; 1 where the block is damaged or does not say."""
    block = Image.Exif()
    try:
        block.load(exif)
        return block.get(ORIENTATION_TAG, 1)
    except Exception:  # Pillow raises whatever its parser meets in damaged bytes
        return 1
