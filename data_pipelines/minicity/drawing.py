"""Draws the pictures of a table of cameras into files, in several processes; files that are there are left alone."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from data_pipelines.atomic import write_bytes
from data_pipelines.children import end_with_parent
from data_pipelines.minicity.city import City
from data_pipelines.minicity.config import CityConfig
from data_pipelines.minicity.layout import Layout
from data_pipelines.minicity.poses import TRAIN, Cameras
from data_pipelines.minicity.randomness import Array
from data_pipelines.minicity.render import cut, panorama, views
from data_pipelines.progress import Bar

log = logging.getLogger(__name__)
CHUNK = 8  # panoramas a task: neighbours along a street see the same façades
# Makes the cameras of a plan: each process makes its own, since a large city's take long to send.
Planner = Callable[[CityConfig, Layout], Cameras]

_worker: dict = {}


def draw_all(root: Path, config: CityConfig, shots: Cameras, planner: Planner, processes: int, what: str) -> None:
    """Draws what is missing of `shots`, which `planner` makes, to `root/images`; `what` names it to the user."""
    began = time.monotonic()
    with Bar(f"drawing the {what}", int(shots.views.sum()), "views") as bar:
        for count in _chunks_done(root, config, shots, planner, processes):
            bar.advance(count)
    log.info("drew the %s: %d views in %.1f s", what, bar.done, time.monotonic() - began)


def _chunks_done(root: Path, config: CityConfig, shots: Cameras, planner: Planner, processes: int) -> Iterator[int]:
    """Renders all panoramas, yields the number of views after each chunk."""
    chunks = [range(i, min(i + CHUNK, len(shots))) for i in range(0, len(shots), CHUNK)]
    if processes == 1:
        _start_worker(root, config, planner)
        yield from map(_render_chunk, chunks)
        _worker.clear()
        return
    # Spawned, not forked: a parent may hold threads of JAX.
    context = multiprocessing.get_context("spawn")
    arguments = (root, config, planner)
    with ProcessPoolExecutor(min(processes, len(chunks)), context, _start_process, arguments) as pool:
        yield from pool.map(_render_chunk, chunks)


def _start_process(root: Path, config: CityConfig, planner: Planner) -> None:
    end_with_parent()
    _start_worker(root, config, planner)


def _start_worker(root: Path, config: CityConfig, planner: Planner) -> None:
    cv2.setNumThreads(1)
    city = City(config)
    _worker.update(images=root / "images", city=city, shots=planner(config, city.layout))


def _render_chunk(rows: range) -> int:
    for row in rows:
        _render_one(_worker["images"], _worker["city"], _worker["shots"], row)
    return int(_worker["shots"].views[rows.start : rows.stop].sum())


def _render_one(images: Path, city: City, shots: Cameras, row: int) -> None:
    """Writes the views of one panorama, unless they are all there."""
    config, shot = city.config, shots.shot(city.config, row)
    start, count = float(shots.heading[row]), int(shots.views[row])
    files = [images / name for name in shots.files(config, row)]
    strip = images / "panoramas" / files[0].name if config.panoramas and shots.part[row] == TRAIN else None
    there = all(file.exists() for file in files)
    if there and (strip is None or strip.exists()):
        return
    if strip:
        circle = panorama(city, shot, start)
        write_atomic(strip, encode(circle, config.quality))
        if there:
            return
        pictures = cut(city, circle, shot, count)
    else:
        pictures = views(city, shot, start, count)
    for file, picture in zip(files, pictures, strict=True):
        write_atomic(file, encode(picture, config.quality))


def write_atomic(path: Path, content: bytes) -> None:
    """Writes a file, in a tree that two runs may write at once: what one of them put in place serves the other."""
    try:
        write_bytes(path, content)
    except FileNotFoundError:  # the other run has finished, and cleared away what was half done
        if not path.is_file():
            raise


def encode(image: Array, quality: int) -> bytes:
    """JPEG bytes of an RGB image uint8 [H, W, 3]."""
    return cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])[
        1
    ].tobytes()
