"""Images of several kinds under strange names, with every column filled, to be written as records."""

import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from data_pipelines.answers import Answers
from data_pipelines.places import Paths, Places
from data_pipelines.records import shards

COUNT, SHARDS = 23, 4
# One that is no UTF-8, one below a folder, one that looks like a record.
STRANGE = {3: os.fsdecode(b"caf\xe9.jpg"), 5: "a#1/b.jpg", 7: "x.array_record-00000-of-00001#2.jpg"}


def strange_images(root: Path) -> Places:
    """JPEGs, PNGs, one turned by EXIF, one cut short, under strange names; every column filled, and some unknown."""
    rng = np.random.default_rng(0)
    names = [STRANGE.get(k, f"{k:02d}.{'png' if k % 5 == 4 else 'jpg'}") for k in range(COUNT)]
    for k, name in enumerate(names):
        (root / name).parent.mkdir(exist_ok=True)
        picture = cv2.resize(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8), (48 + k, 40))
        exif = Image.Exif()
        if k == 9:
            exif[0x0112] = 6
        Image.fromarray(picture).save(root / name, exif=exif)
    (root / names[11]).write_bytes((root / names[11]).read_bytes()[:-300])
    columns = {
        "east": rng.uniform(0, 9e5, COUNT),
        "north": rng.uniform(0, 9e6, COUNT),
        "zone": rng.choice([-1, 33, 161], COUNT),
        "heading": rng.uniform(0, 360, COUNT),
        "place": rng.integers(-1, 3, COUNT),
        "time": rng.integers(0, 1 << 31, COUNT).astype("datetime64[s]"),
        "sequence": rng.integers(-1, 1 << 62, COUNT),
        "frame": rng.integers(-1, 9, COUNT),
        "condition": rng.integers(0, 4, COUNT),
        "view": rng.integers(-1, 3, COUNT),
        "split": 2,
        "role": np.arange(COUNT) % 2,
    }
    for column in ("east", "heading"):
        columns[column][::6] = np.nan
    columns["time"][::4] = np.datetime64("NaT")
    made = Places.create(
        "strange", Paths.of(names, root), conditions=["night", "rain"], place_names=["a", os.fsdecode(b"\xe9"), "c"],
        **columns,
    )  # fmt: skip
    return made.with_answers(Answers(np.array([0, 2, *[3] * 10]), np.array([4, 0, 11])))


def shard(root: Path, number: int = 1) -> Path:
    """One of the `SHARDS` files of their records."""
    return root / shards.file_name("test", number, SHARDS)
