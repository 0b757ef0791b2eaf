"""What feeds a device: the loader on many cores, copies to it. And mining, which is a search on the device."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import side_by_side
from benchmarks.device.runner import At

COPIED, COPIES = 480, 5  # images of 320 x 320 in a batch that is copied, and how often
BATCH, STEPS = 16, 32  # images of a batch, and batches for each thread
PIXELS = 512
THREADS = (1, 2, 4, 8, 16)
MEMORY_MIB = 4096


def loader(one_arena: bool, at: At) -> dict[str, Any]:
    """JPEG files to augmented batches, images a second by threads.

    Args:
      one_arena: with `parallel.memory.keep_freed`, as our command line has it on a CPU, which leaves malloc one arena.
    """
    from benchmarks import loader as bench
    from data_pipelines.cores import cores
    from jaxvpr.parallel import memory

    kept = memory.keep_freed(anywhere=True) if one_arena else False
    pixels, steps = (32, 3) if at.tiny else (PIXELS, STEPS)
    figures: dict[str, Any] = {"pixels": pixels, "one_arena": kept, "images_per_second": {}, "cpu_ms_per_image": {}}
    with tempfile.TemporaryDirectory(dir=at.folder) as folder:
        paths = bench.write_images(Path(folder), pixels)
        for threads in [count for count in THREADS if count <= cores()]:
            count = steps * threads
            start = partial(bench.ours, paths, pixels, BATCH, count, "pil_bilinear", threads, 0)
            rate, cost, _ = bench.one_round(start, BATCH, count)
            figures["images_per_second"][threads], figures["cpu_ms_per_image"][threads] = round(rate, 1), round(cost, 3)
    return figures | {"wrong": "" if kept == one_arena else "there was no glibc to tell to keep one arena"}


def copies(at: At) -> dict[str, Any]:
    """A batch from host memory to the device, as `mesh.to_global` copies it and by way of pinned memory.

    `returned_ms` is what the loop waits before it can start the step, `there_ms` until the copy is there. Each also
    behind products of matrices that were started before: what of `there_ms` then exceeds `products_ms` is not hidden.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    device = jax.devices()[0]
    there = jax.sharding.SingleDeviceSharding(device)
    size = 64 if at.tiny else 8192
    images = np.random.default_rng(0).integers(0, 256, (2 if at.tiny else COPIED, 320, 320, 3), np.uint8)
    pinned = jax.sharding.SingleDeviceSharding(device, memory_kind="pinned_host")
    ways: dict[str, Callable[[], jax.Array]] = {
        "plain": lambda: jax.device_put(images, there),
        "pinned": lambda: jax.device_put(jax.device_put(images, pinned), there),
    }
    matrix = jax.random.normal(jax.random.key(0), (size, size)).astype(jnp.bfloat16)
    multiply = jax.jit(jnp.matmul)

    def products() -> list[jax.Array]:
        return [multiply(matrix, matrix) for _ in range(20)]

    figures: dict[str, Any] = {"mib": images.nbytes / 2**20, "products_ms": _started_and_done(products)[1]}
    for name, way in ways.items():
        for busy, before in (("", list), (", busy", products)):
            figures[name + busy] = dict(zip(("returned_ms", "there_ms"), _started_and_done(way, before), strict=True))
    return figures


def _started_and_done(work: Callable[[], Any], before: Callable[[], Any] = list) -> tuple[float, float]:
    """(ms until the work is started, ms until it is done), with other work started before; medians after a first."""
    import jax

    rounds = []
    for _ in range(COPIES + 1):
        others, began = before(), time.perf_counter()
        started = work()
        returned = time.perf_counter()
        jax.block_until_ready((others, started))
        rounds.append((1000 * (returned - began), 1000 * (time.perf_counter() - began)))
    first, second = (round(statistics.median(column), 3) for column in zip(*rounds[1:], strict=True))
    return first, second


def mining(at: At) -> dict[str, Any]:
    """Best positives and hardest negatives in the whole database, once the descriptors are on the device."""
    from benchmarks import mining as bench

    queries, database, dimension = (50, 2400, 16) if at.tiny else (10_000, 1_000_000, 512)
    city = bench.city_of(queries, database, dimension, pools=False)
    began = time.perf_counter()
    mine = bench.ours(city, bench.WHOLE, MEMORY_MIB)
    cached = time.perf_counter() - began
    times, _ = side_by_side.clock(lambda: mine, 1, 3)
    figures: dict[str, Any] = {"cached_seconds": round(cached, 2)}
    figures |= {key: round(times[key], 3) for key in ("first_call_seconds", "cpu_seconds")}
    figures["seconds"] = [round(one, 3) for one in times["seconds"]]
    work = 2 * queries * database * dimension / 1e12
    figures |= {"queries": queries, "database": database, "dimension": dimension, "peak_mib": side_by_side.peak_mib()}
    return figures | {"TFLOP/s": round(work / min(times["seconds"]), 2)}
