"""The verbs of the command line and their flags, each in one place; `jaxvpr VERB --help` is made from it.

The flags of a verb are the parameters of `run` in its file of `jaxvpr/verbs/`, which `main` calls by name.
"""

from __future__ import annotations

import math
from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from data_pipelines.errors import DataError
from data_pipelines.video import Every
from jaxvpr.cli.clips_flag import clips, measured_clips
from jaxvpr.cli.reader_flag import Reader, reader


class Flag(NamedTuple):
    """A flag, `--name=VALUE`.

    Attributes:
      name: without dashes.
      value: what stands for the value in the help; empty for a switch, which takes none.
      help: what it is for.
      kind: makes the value from text; raises `ArgumentTypeError` with the reason where it cannot.
      default: the value where the flag is not given; None leaves it to the verb.
      required: an error where it is not given.
      repeated: may be given several times; the value is a list.
    """

    name: str
    value: str
    help: str
    kind: Callable[[str], Any] = str
    default: Any = None
    required: bool = False
    repeated: bool = False

    @property
    def key(self) -> str:
        """The parameter of `run` that it is."""
        return self.name.replace("-", "_")


class Verb(NamedTuple):
    """A verb: what it does in one sentence, an example, and its own flags, beside those that all verbs have."""

    summary: str
    example: str
    flags: tuple[Flag, ...] = ()
    several_hosts: bool = True


def integer(text: str) -> int:
    """The integer of a text, for `Flag.kind`."""
    try:
        return int(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not an integer") from None


def positive(text: str) -> float:
    """The number above 0 of a text, for `Flag.kind`."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def every(text: str) -> Every:
    """Which frames of a drive a text says, for `Flag.kind`."""
    try:
        return Every.parse(text)
    except DataError as error:
        raise ArgumentTypeError(str(error)) from None


COMMON = (
    Flag("config", "FILE[:PRESET][,KEY=VALUE ...]", "the recipe, a Python file, and changes to its keys"),
    Flag("workdir", "FOLDER", "folder of the run: checkpoints, logs, results (default: runs/NAME_OF_THE_RECIPE)", Path),
)
HOSTS = (
    Flag("coordinator", "HOST:PORT", "several hosts: the address of process 0, or auto", default=""),
    Flag("processes", "N", "several hosts: the number of processes", integer, default=0),
    Flag("process", "N", "several hosts: the number of this process, from 0", integer, default=-1),
)
CHECKPOINT = Flag(
    "checkpoint", "NAME", "best, last or a step of the workdir, or a file of weights (default: best)", default="best"
)
OVERWRITE = Flag("overwrite", "", "replace what is there already (default: refuse)", default=False)
DRY_RUN = Flag(
    "dry-run", "", "show what would be read, learned, taken and written, and draw the first batch, then stop",
    default=False,
)  # fmt: skip
READER = Flag(
    "reader", "NAME[,OPTION=VALUE ...]", "how the folders are read (docs/data_formats.md), such as "
    "csv,columns.path=image (default: folder, photos with '@' names or EXIF)", reader, default=Reader(),
)  # fmt: skip
RECIPE, ZOO = "--config=configs/cosplace.py", "--config=configs/zoo.py:megaloc,weights=model.safetensors"

VERBS = {
    "train": Verb(
        "Trains a recipe, or resumes it where it was stopped, and measures the best checkpoint on its test sets.",
        f"jaxvpr train {RECIPE} --config.batch=32",
        (DRY_RUN,),
    ),
    "evaluate": Verb(
        "Measures a checkpoint on the recipe's test sets, or on folders of images with coordinates.",
        f"jaxvpr evaluate {RECIPE} --database=FOLDER --queries=FOLDER --threshold=10m --threshold=25m",
        (
            CHECKPOINT,
            Flag(
                "database", "FOLDER", "database images, instead of the recipe's test sets; may be repeated", default=(),
                repeated=True,
            ),
            Flag(
                "queries", "FOLDER", "query images that go with --database; may be repeated", default=(), repeated=True
            ),
            READER,
            Flag(
                "threshold", "THRESHOLD", "how near a correct image is, with --database: 10m or 2m_30deg "
                "(default: 25m); may be repeated", repeated=True,
            ),
            Flag(
                "clips", "LENGTH[,KEY=VALUE ...]", "with --database: measure on clips of so many frames, with a model "
                "of clips (docs/sequences.md): 5,stride=2,task=im2seq", measured_clips,
            ),
            Flag(
                "out", "FOLDER", "where to write metrics.json and report.html (default: WORKDIR/evaluate, and "
                "WORKDIR/evaluate-NAME-DIGEST for each other checkpoint and each pair of folders)", Path,
            ),
            OVERWRITE,
            DRY_RUN,
        ),
    ),
    "extract": Verb(
        "Writes the descriptors of the photos of a folder, with their coordinates.",
        f"jaxvpr extract {RECIPE} --images=FOLDER --out=places.npy",
        (
            CHECKPOINT,
            Flag("images", "FOLDER", "photos to describe; may be repeated", required=True, repeated=True),
            READER,
            Flag("out", "FILE.npy", "descriptors to write", Path, required=True),
            Flag(
                "clips", "LENGTH[,KEY=VALUE ...]", "describe clips of so many frames in place of photos, with a model "
                "of clips (docs/tracks.md): 5,stride=2; keys: stride, every, metres, seconds, match", clips,
            ),
            OVERWRITE,
            DRY_RUN,
        ),
    ),
    "localize": Verb(
        "Ranks the places of a database for every photo of a folder, in a table and pictures; or finds the track of a "
        "video or of a folder of frames.",
        f"jaxvpr localize {RECIPE} --images=PHOTOS --database=places.npy --out=answers",
        (
            CHECKPOINT,
            Flag(
                "images", "FOLDER", "photos to localize, may be repeated; or one video, or with --track one folder of "
                "frames", required=True, repeated=True,
            ),
            READER,
            Flag(
                "database", "FILE", "descriptors from extract (.npy), the classes.npy of a run, or weights with a head "
                "that answers positions (default: the head of the recipe's model)", Path,
            ),
            Flag("out", "FOLDER", "where to write table and pictures (default: WORKDIR/localize)", Path),
            Flag(
                "top", "N", "how many places to name for each photo (default: 5), or to choose from for each frame of "
                "a track (default: 50)", integer,
            ),
            Flag(
                "track", "", "the images are frames of one drive in order: write their track as CSV, GeoJSON and a "
                "page (docs/tracks.md); a video is one", default=False,
            ),
            Flag(
                "every", "SECONDS|FRAMES", "take a frame of a track in so many seconds, 0.5s, or of so many, 10 "
                "(default: 1s of a video, 1 of a folder)", every,
            ),
            Flag(
                "speed", "METRES", "how far the camera of a track moved in a second at most, or from frame to frame "
                "where these have no time (default: 40)", positive,
            ),
            OVERWRITE,
        ),
    ),
    "compress": Verb(
        "Fits a PCA behind a model and writes both as one model file.",
        f"jaxvpr compress {RECIPE},pca.dim=128 --out=small.safetensors",
        (
            CHECKPOINT,
            Flag(
                "images", "FOLDER", "photos to fit the PCA on (default: those that the recipe trains on); may be "
                "repeated", default=(), repeated=True,
            ),
            READER,
            Flag("out", "FILE.safetensors", "model to write", Path, required=True),
            OVERWRITE,
        ),
    ),
    "records": Verb(
        "Writes images, with all that is known of them, as few large files (docs/records.md), and verifies them.",
        f"jaxvpr records {RECIPE} --images=FOLDER --reader=at_names --out=RECORDS",
        (
            Flag(
                "images", "FOLDER", "images to write (default: those of the recipe's train_data); may be repeated",
                default=(), repeated=True,
            ),
            READER,
            Flag("out", "FOLDER", "folder of the records; what it has of them already is kept", Path, required=True),
            Flag("shards", "N", "number of files (default: one for each 256 MiB, 512 at most)", integer, default=0),
            Flag("workers", "N", "how many processes write (default: one for each core)", integer, default=0),
            OVERWRITE,
            Flag("verify", "", "write nothing, read all that --out holds and look whether it is whole", default=False),
        ),
        several_hosts=False,
    ),
    "import": Verb(
        "Reads the weights of a published model and writes them into the workdir as a model of ours.",
        f"jaxvpr import {ZOO} --workdir=runs/megaloc",
        (
            Flag("checkpoint", "FILE", "weights to read (default: weights=FILE of the recipe)", default=""),
            OVERWRITE,
        ),
        several_hosts=False,
    ),
    "export": Verb(
        "Writes a model under the names of the original's weights, or as a StableHLO program.",
        f"jaxvpr export {ZOO} --out=megaloc.stablehlo",
        (
            CHECKPOINT,
            Flag("out", "FILE", "file to write: .safetensors, .pth or .stablehlo", Path, required=True),
            Flag("family", "NAME", "whose names the weights get (default: those of the recipe's method)", default=""),
            OVERWRITE,
        ),
        several_hosts=False,
    ),
    "smoothness": Verb(
        "Measures how fast descriptors change along a street and with a turn, and draws it.",
        f"jaxvpr smoothness {RECIPE} --data-set=test_data.minicity --compare=runs/other/smoothness/smoothness.json",
        (
            CHECKPOINT,
            Flag(
                "images", "FOLDER", "photos with positions (default: --data-set); may be repeated", default=(),
                repeated=True,
            ),
            READER,
            Flag(
                "data-set", "KEY", "a data set of the recipe: train_data or test_data.NAME (default: the first of "
                "test_data)", default="",
            ),
            Flag("span", "METRES", "how long the street of the matrix is; all distances follow it (default: 30)",
                 positive),
            Flag("most", "N", "how many images to describe at most, whole neighbourhoods (default: 10000)", integer),
            Flag(
                "compare", "FILE", "smoothness.json of another model on the same images, drawn beside this one; may be "
                "repeated", Path, default=(), repeated=True,
            ),
            Flag("out", "FOLDER", "where to write tables and page (default: WORKDIR/smoothness)", Path),
            OVERWRITE,
            DRY_RUN,
        ),
    ),
    "sweep": Verb(
        "Trains the runs of a sweep file one after the other and compares them in one table.",
        "jaxvpr sweep --config=configs/sweeps/losses.py",
        (DRY_RUN,),
    ),
}  # fmt: skip


def flags_of(verb: str) -> tuple[Flag, ...]:
    """All flags that a verb takes."""
    return (*COMMON, *VERBS[verb].flags, *(HOSTS if VERBS[verb].several_hosts else ()))


def verbs_with(flag: str) -> list[str]:
    """The verbs that take a flag, given without dashes."""
    return [verb for verb in VERBS if any(one.name == flag for one in flags_of(verb))]
