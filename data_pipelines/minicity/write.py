"""Writes a city as ordinary JPEG files with '@' names, once, in several processes."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np

from data_pipelines.atomic import write_bytes
from data_pipelines.children import end_with_parent
from data_pipelines.cores import cores
from data_pipelines.errors import DataError
from data_pipelines.minicity.city import City, Shot
from data_pipelines.minicity.config import CityConfig
from data_pipelines.minicity.layout import plan
from data_pipelines.minicity.poses import FOLDERS, TRAIN, Cameras, cameras, file_name, headings
from data_pipelines.minicity.randomness import Array
from data_pipelines.minicity.render import cut, panorama, views
from data_pipelines.own_files import read_json
from data_pipelines.progress import Bar

log = logging.getLogger(__name__)
MARKER, PARTIAL = "minicity.json", "minicity.partial.json"
CHUNK = 8  # panoramas a task: neighbours along a street see the same façades

_worker: dict = {}


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
    root = Path(root)
    if _ready(root, config):
        return root
    shots = cameras(config, plan(config))
    try:
        _begin(root, config)
        _render_all(root, config, shots, processes or cores())
        _finish(root, config, shots)
    except OSError as error:
        raise DataError(
            f"cannot write the mini city to {root}: {error}. Free space or choose another folder, then run again: "
            "files already written are kept."
        ) from error
    except BrokenProcessPool as error:
        raise DataError(
            f"a process that rendered the mini city to {root} died: memory ran out (use fewer processes), or the "
            'calling script lacks its `if __name__ == "__main__":` (processes=1 works without). Run again to continue.'
        ) from error
    return root


def _ready(root: Path, config: CityConfig) -> bool:
    """Whether `root` holds this city complete, perhaps with panoramas that nobody asked for; DataError where it holds
    something else."""
    try:
        for name in (MARKER, PARTIAL):
            if (root / name).is_file():
                panoramas = _compare(root / name, config)
                return name == MARKER and (panoramas or not config.panoramas) and _has_all(root, config)
        foreign = root.is_dir() and next(root.iterdir(), None)
    except OSError as error:
        raise DataError(f"cannot read {root}: {error}") from error
    if foreign:
        raise DataError(
            f"{root} is not empty ({foreign.name}) and holds no mini city; give a new folder or an empty one"
        )
    return False


def _has_all(root: Path, config: CityConfig) -> bool:
    """Whether a city that was finished still has all its images; says how many are missing.

    Raises:
      DataError: for more than it should have: they would be trained on.
    """
    wanted = read_json(root / MARKER).get("images")
    if not isinstance(wanted, dict) or {type(wanted.get(folder)) for folder in FOLDERS} != {int}:
        raise DataError(f"{root / MARKER} is not a mini city's marker (images); delete {root} and write again")
    missing = 0
    if config.panoramas:
        wanted |= {"panoramas": wanted["train"] // config.headings}
    for folder, count in wanted.items():
        path = root / "images" / folder
        there = sum(entry.name.endswith(".jpg") for entry in os.scandir(path)) if path.is_dir() else 0
        if there > count:
            raise DataError(f"{path} has {there} images, {there - count} more than were drawn: move what is not of it")
        missing += count - there
    if missing:
        log.warning("%d of the %d images of %s are missing: drawing them again", missing, sum(wanted.values()), root)
    return not missing


def _compare(marker: Path, config: CityConfig) -> bool:
    """Whether the city of a marker has panoramas; DataError where it differs from `config` in anything else."""
    try:
        found = read_json(marker)
        digest, settings = found["digest"], dict(found["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{marker} is not a mini city's marker ({error}); delete {marker.parent} and write again"
        ) from error
    for panoramas in (config.panoramas, not config.panoramas):
        if digest == replace(config, panoramas=panoramas).digest():
            return panoramas
    wanted = json.loads(json.dumps(asdict(config)))
    differing = [
        f"{k}: {settings.get(k)!r} there, {v!r} wanted"
        for k, v in wanted.items()
        if settings.get(k) != v and k != "panoramas"
    ]
    raise DataError(
        f"{marker.parent} holds another mini city ({'; '.join(differing) or 'written by another version'}); "
        "give another folder or delete that one"
    )


def _marker(config: CityConfig) -> dict:
    return {"digest": config.digest(), "test_digest": config.test_digest(), "config": asdict(config)}


def _begin(root: Path, config: CityConfig) -> None:
    for folder in FOLDERS + (("panoramas",) if config.panoramas else ()):
        (root / "images" / folder).mkdir(parents=True, exist_ok=True)
    if not (root / PARTIAL).exists():
        _write_atomic(root / PARTIAL, json.dumps(_marker(config), indent=1).encode())


def _finish(root: Path, config: CityConfig, shots: Cameras) -> None:
    _write_atomic(root / MARKER, json.dumps({**_marker(config), "images": shots.images()}, indent=1).encode())
    (root / PARTIAL).unlink(missing_ok=True)
    for left in root.rglob("*.part"):  # of a run that was killed
        left.unlink(missing_ok=True)


def _write_atomic(path: Path, content: bytes) -> None:
    """Writes a file, in a tree that two runs may write at once: what one of them put in place serves the other."""
    try:
        write_bytes(path, content)
    except FileNotFoundError:  # the other run has finished, and cleared away what was half done
        if not path.is_file():
            raise


def _render_all(root: Path, config: CityConfig, shots: Cameras, processes: int) -> None:
    began = time.monotonic()
    with Bar("drawing the city", int(shots.views.sum()), "views") as bar:
        for count in _chunks_done(root, config, shots, processes):
            bar.advance(count)
    log.info("drew the city: %d views in %.1f s", bar.done, time.monotonic() - began)


def _chunks_done(root: Path, config: CityConfig, shots: Cameras, processes: int) -> Iterator[int]:
    """Renders all panoramas, yields the number of views after each chunk."""
    chunks = [range(i, min(i + CHUNK, len(shots))) for i in range(0, len(shots), CHUNK)]
    if processes == 1:
        _start_worker(root, config, shots)
        yield from map(_render_chunk, chunks)
        _worker.clear()
        return
    # Spawned, not forked: a parent may hold threads of JAX.
    context = multiprocessing.get_context("spawn")
    arguments = (root, config, None)
    with ProcessPoolExecutor(min(processes, len(chunks)), context, _start_process, arguments) as pool:
        yield from pool.map(_render_chunk, chunks)


def _start_process(root: Path, config: CityConfig, shots: Cameras | None) -> None:
    end_with_parent()
    _start_worker(root, config, shots)


def _start_worker(root: Path, config: CityConfig, shots: Cameras | None) -> None:
    cv2.setNumThreads(1)
    city = City(config)
    _worker.update(root=root, config=config, city=city, shots=shots or cameras(config, city.layout))


def _render_chunk(rows: range) -> int:
    for row in rows:
        _render_one(_worker["root"], _worker["config"], _worker["city"], _worker["shots"], row)
    return int(_worker["shots"].views[rows.start : rows.stop].sum())


def _render_one(root: Path, config: CityConfig, city: City, shots: Cameras, row: int) -> None:
    """Writes the views of one panorama, unless they are all there."""
    part, year, condition = int(shots.part[row]), int(shots.year[row]), int(shots.condition[row])
    shot = Shot(shots.xy[row], year, config.conditions[condition], int(shots.key[row]))
    start, count = float(shots.heading[row]), int(shots.views[row])
    folder = root / "images" / FOLDERS[part]
    files = [folder / file_name(config, shot.xy, h, year, condition, shot.key) for h in headings(start, count)]
    strip = root / "images" / "panoramas" / files[0].name if config.panoramas and part == TRAIN else None
    there = all(file.exists() for file in files)
    if there and (strip is None or strip.exists()):
        return
    if strip:
        circle = panorama(city, shot, start)
        _write_atomic(strip, encode(circle, config.quality))
        if there:
            return
        pictures = cut(city, circle, shot, count)
    else:
        pictures = views(city, shot, start, count)
    for file, picture in zip(files, pictures, strict=True):
        _write_atomic(file, encode(picture, config.quality))


def encode(image: Array, quality: int) -> bytes:
    """JPEG bytes of an RGB image uint8 [H, W, 3]."""
    return cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])[
        1
    ].tobytes()
