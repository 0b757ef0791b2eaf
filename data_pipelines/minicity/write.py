"""Writes a city as ordinary JPEG files with '@' names, once, in several processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from data_pipelines.cores import cores
from data_pipelines.errors import DataError
from data_pipelines.minicity.config import CityConfig, DriveConfig
from data_pipelines.minicity.drawing import draw_all
from data_pipelines.minicity.drives import Drives, drives
from data_pipelines.minicity.layout import plan
from data_pipelines.minicity.markers import Tree
from data_pipelines.minicity.poses import FOLDERS, cameras
from data_pipelines.own_files import read_json


def write(root: str | os.PathLike[str], config: CityConfig, *, processes: int | None = None) -> Path:
    """Writes the city of `config` under `root`, unless it is there already; an interrupted write is continued.

    A city that has panoramas serves where none are asked for, and one that has none gets them where they are.

    Args:
      root: folder to fill with `images/train`, `images/val/{database,queries}`, `images/test/{database,queries}`
        and, last, `minicity.json`: settings, digests and the number of images.
      config: the city.
      processes: how many processes render; None takes one a core, 1 renders in this one.

    Returns:
      `root` as a path.

    Raises:
      DataError: if `root` holds another city or other files, or cannot be written (no permission, full disk).
    """
    tree = city_tree(Path(root), config)
    if _ready(tree, config):
        return tree.root
    shots = cameras(config, plan(config))
    folders = [*FOLDERS, *["panoramas"] * config.panoramas]
    with _told(tree):
        tree.begin(folders)
        draw_all(tree.root, config, shots, cameras, processes or cores(), "city")
        tree.finish(folders, shots.images())
    return tree.root


def write_drives(
    root: str | os.PathLike[str], config: CityConfig, settings: DriveConfig, *, processes: int | None = None
) -> Drives:
    """Writes the drives through a city under its `root`, where they are missing; the city itself need not be there.

    Args:
      root: folder to fill with `images/drives/{train,val,test}/{database,queries}/<sequence>` and, last,
        `images/drives/drives.json`.
      config, settings: the city and its drives.
      processes: as of `write`.

    Returns:
      What was drawn: each frame with its heading, which no name holds.

    Raises:
      DataError: as `write`, or if `root` holds other drives.
    """
    city, planner = city_tree(Path(root), config), partial(drives, settings)
    marker = {"digest": settings.digest(config), "config": asdict(settings), "city": asdict(config)}
    tree = Tree(city.root, "set of drives", "images/drives/drives", marker)
    shots = planner(config, plan(config))
    _there(city)
    found = tree.found()
    if found and found[0] == tree.done and tree.has_all(shots.images()):
        return shots
    with _told(tree):
        if not city.done.is_file():
            city.begin([])
        tree.begin(list(shots.folders))
        draw_all(tree.root, replace(config, panoramas=False), shots, planner, processes or cores(), "drives")
        tree.finish(list(shots.folders), shots.images())
    return shots


def city_tree(root: Path, config: CityConfig) -> Tree:
    """A city as it lies under a root."""
    marker = {"digest": config.digest(), "test_digest": config.test_digest(), "config": asdict(config)}
    other = replace(config, panoramas=not config.panoramas).digest()
    return Tree(root, "mini city", "minicity", marker, (other,), ("panoramas",))


def _ready(tree: Tree, config: CityConfig) -> bool:
    """Whether a root holds this city complete, perhaps with panoramas that nobody asked for; DataError where it holds
    something else."""
    found = _there(tree)
    if found is None:
        return False
    marker, digest = found
    panoramas = digest == replace(config, panoramas=True).digest()
    return marker == tree.done and (panoramas or not config.panoramas) and tree.has_all(_counts(tree, config))


def _there(tree: Tree) -> tuple[Path, str] | None:
    """The marker of a city and its digest, as `Tree.found`; DataError where its root holds something else."""
    try:
        found = tree.found()
        foreign = found is None and tree.root.is_dir() and next(tree.root.iterdir(), None)
    except OSError as error:
        raise DataError(f"cannot read {tree.root}: {error}") from error
    if foreign:
        raise DataError(
            f"{tree.root} is not empty ({foreign.name}) and holds no mini city; give a new folder or an empty one"
        )
    return found


def _counts(tree: Tree, config: CityConfig) -> dict[str, int]:
    """How many images a finished city has in each folder, as its marker says."""
    wanted = read_json(tree.done).get("images")
    if not isinstance(wanted, dict) or {type(wanted.get(folder)) for folder in FOLDERS} != {int}:
        raise DataError(f"{tree.done} is not a mini city's marker (images); delete {tree.root} and write again")
    return wanted | ({"panoramas": wanted["train"] // config.headings} if config.panoramas else {})


@contextmanager
def _told(tree: Tree) -> Iterator[None]:
    """Says what to do where drawing fails."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot write the {tree.what} to {tree.root}: {error}. Free space or choose another folder, then run "
            "again: files already written are kept."
        ) from error
    except BrokenProcessPool as error:
        raise DataError(
            f"a process that drew the {tree.what} to {tree.root} died: memory ran out (use fewer processes), or the "
            'calling script lacks its `if __name__ == "__main__":` (processes=1 works without). Run again to continue.'
        ) from error
