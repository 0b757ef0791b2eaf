"""Writes a mini city, draws a contact sheet of it, or measures how fast it renders.

    python -m data_pipelines.minicity --root DIR [--size 128 --blocks 4 --style modern --seed 7 …]
    python -m data_pipelines.minicity --root DIR --drives       # and drives through it
    python -m data_pipelines.minicity --root DIR --thumbnails   # and the recall of raw thumbnails on its test
    python -m data_pipelines.minicity --sheet FILE.png
    python -m data_pipelines.minicity --benchmark

Every field of `CityConfig` is an option; lists are written with commas (`--query_years 2018,2019`).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import fields
from pathlib import Path

import cv2

from data_pipelines.errors import DataError
from data_pipelines.minicity.baseline import thumbnail_recall
from data_pipelines.minicity.config import CityConfig, DriveConfig
from data_pipelines.minicity.sheet import sheet
from data_pipelines.minicity.write import write, write_drives
from data_pipelines.progress import keep_printing, to_console


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data_pipelines.minicity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", type=Path, help="folder to write the city to")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="draw a contact sheet")
    parser.add_argument("--benchmark", action="store_true", help="measure rendering, at 128 px if not told otherwise")
    parser.add_argument("--thumbnails", action="store_true", help="print the recall of raw thumbnails on the test")
    parser.add_argument("--drives", action="store_true", help="write drives through the city, too")
    parser.add_argument("--processes", type=int, help="rendering processes (default: one a core)")
    for field in fields(CityConfig):
        parser.add_argument(
            f"--{field.name}", type=_reader(field.default), default=None, help=f"default {field.default}"
        )
    return parser


def _reader(default):
    """The function that reads an option of the same type as `default`."""
    if isinstance(default, bool):
        return lambda text: {"true": True, "false": False}[text.lower()]
    if isinstance(default, tuple):
        return lambda text: tuple(type(default[0])(part) for part in text.split(","))
    return type(default)


def _benchmark(settings: dict, processes: int | None) -> None:
    """Writes a city's training views to a temporary folder and prints how many a second, by the clock and by core."""
    shape = {"size": 128, "test_queries": 0, "val_queries": 0, "val_spacing": 1000.0, "database_spacing": 1000.0}
    config = CityConfig(**(shape | settings))
    with tempfile.TemporaryDirectory() as folder:
        start, cpu = time.perf_counter(), sum(os.times()[:4])
        write(Path(folder) / "city", config, processes=processes)
        seconds, cpu = time.perf_counter() - start, sum(os.times()[:4]) - cpu
        count = sum(1 for _ in Path(folder).rglob("*.jpg"))
    print(
        f"{count} views of {config.size}x{config.size}, JPEG files and the start of the processes included: "
        f"{seconds:.1f} s, {count / seconds:.0f} views/s; {count / cpu:.0f} views a second of one core"
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit status, 2 for a user's mistake."""
    parser = _parser()
    options = vars(parser.parse_args(arguments))
    settings = {f.name: options[f.name] for f in fields(CityConfig) if options[f.name] is not None}
    root, picture, processes = options["root"], options["sheet"], options["processes"]
    if not (root or picture or options["benchmark"]):
        parser.error("nothing to do: give --root, --sheet or --benchmark")
    for flag in ("thumbnails", "drives"):
        if options[flag] and not root:
            parser.error(f"--{flag} needs --root")
    to_console("data_pipelines")
    try:
        config = CityConfig(**settings)
        if root:
            write(root, config, processes=processes)
            print(f"{root}: city {config.digest()}, test {config.test_digest()}")
        if options["drives"]:
            frames = write_drives(root, config, DriveConfig(), processes=processes)
            print(
                f"{root}: drives {DriveConfig().digest(config)}, {len(frames)} frames in {len(frames.folders)} drives"
            )
        if options["thumbnails"]:
            for group, recalls in thumbnail_recall(root).items():
                print(f"{group:6}", "  ".join(f"R@{n} {recall:.1f}" for n, recall in recalls.items()))
        if picture and not cv2.imwrite(str(picture), sheet(config)[..., ::-1]):
            raise DataError(f"cannot write {picture}; give a file name that ends in .png or .jpg in an existing folder")
        if options["benchmark"]:
            _benchmark(settings, processes)
    except (DataError, cv2.error) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    keep_printing()
    sys.exit(main())
