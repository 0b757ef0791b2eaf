"""What a recipe's training step takes on each device, from its compiled program: no image, no accelerator, nothing run.

The step is that of the training loop, made from the recipe's own keys and compiled ahead of time from shapes alone, for
simulated CPU devices, or for a slice of TPUs that is only described (that needs `libtpu`, from PyPI). Printed are the
bytes of memory, the FLOPs, and what the devices send to one another.

The data set is a stand-in: positions that give every group of cells `--classes` classes, or as many places and queries
as a batch needs. `frozen`, optimisers, types and the mesh are the recipe's.

  python -m benchmarks.compiled "configs/cosplace.py:sf_xl,model.backbone=resnet50,batch=128" --devices 8
  python -m benchmarks.compiled configs/salad.py:salad,mesh.model=2 --platform tpu:v5e:2x2 --hlo step.txt
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from benchmarks import hlo
from benchmarks.device import program
from data_pipelines.places import ROLES, Paths, Places
from data_pipelines.sources import ClipSource, Source
from jaxvpr import builders, families
from jaxvpr.cli.recipes import load_config
from jaxvpr.models.platforms import plain
from jaxvpr.objectives.objective import Objective
from jaxvpr.parallel.mesh import batch_sharding, make_mesh
from jaxvpr.training import settings
from jaxvpr.training.state import planned
from jaxvpr.training.step import Turn, make_step

CLASSES = 6000
CPU = "cpu"
# What libtpu asks of its surroundings; a slice that is only described has none.
NO_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chip is shared that two processes could fight over
}


class Step(NamedTuple):
    """A compiled training step.

    Attributes:
      text: its HLO, that of one device. devices: that share it.
      memory: bytes on each device by kind. flops: of all devices together, by type and precision, as traced.
      seconds: that compiling took.
    """

    text: str
    devices: int
    memory: dict[str, int]
    flops: dict[str, int]
    seconds: float


def step(config: ConfigDict, devices: Sequence[jax.Device], classes: int = CLASSES) -> Step:
    """Compiles the training step of a recipe for some devices.

    Raises:
      UserError: as the training would, before its first step.
    """
    mesh = make_mesh(config.mesh.model, list(devices))
    recipe = families.recipe(config, mesh, [], [stand_in(config, classes)])
    settled, objective = settings.settle(config, recipe, mesh), recipe.objective
    of_state = settings.state_options(config, recipe, settled)
    _, state = planned(recipe.model, objective, settled.groups, mesh, **of_state)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    made = make_step(objective, settled.groups, mesh, shardings, **settings.step_options(config, settled))
    each = {stream: _frames(source) for stream, source in recipe.sources.items()}
    batch = shapes(objective, config.batch, builders.image_size(config), settled.by_image, mesh, each)
    # CPU devices stand in for accelerators, which have none of a CPU's own programs of layers.
    traced = plain(made.trace)(state, batch, Turn(np.int32(0)))
    began = time.perf_counter()
    compiled = traced.lower().compile()
    seconds = time.perf_counter() - began
    return Step(compiled.as_text(), mesh.size, hlo.memory(compiled), dict(program.flops(traced.jaxpr)), seconds)


def shapes(
    objective: Objective,
    batch: int,
    size: tuple[int, int],
    by_image: dict[str, int],
    mesh: Mesh,
    frames: Mapping[str, tuple[int, ...]],
) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """{stream: shapes of the global batch as the feed lays it on the mesh}; `frames` of the streams of clips."""
    sharding = batch_sharding(mesh)

    def of(stream: str) -> dict[str, jax.ShapeDtypeStruct]:
        rows = batch * by_image.get(stream, 1)
        inner = () if stream in by_image or stream not in objective.images else (objective.images[stream],)
        image = (rows, *inner, *frames.get(stream, ()), *size, 3)
        parts = {"image": (image, jnp.uint8), "label": ((rows,), jnp.int32), "mask": ((rows,), bool)}
        return {name: jax.ShapeDtypeStruct(*part, sharding=sharding) for name, part in parts.items()}

    return {stream: of(stream) for stream in objective.streams}


def _frames(source: Source) -> tuple[int, ...]:
    """(frames of a clip,) for a source of clips, () for one of images."""
    return (source.clips.shape[1],) if isinstance(source, ClipSource) else ()


def stand_in(config: ConfigDict, classes: int) -> Places:
    """A table of images that do not exist, with which the recipe's objective can be set up.

    Raises:
      ValueError: for an objective that this knows no table for.
    """
    keys = config.objective
    if keys.name == "cells":
        return _cells(keys.partition, classes)
    if keys.name == "places":
        return _places(np.repeat(np.arange(keys.P), keys.K))
    if keys.name == "mined_triplets":
        cut = builders.cutting(config.train_data, "train_data")
        return _drives(100, (cut.length - 1) * cut.every + 1 if cut else 1)
    raise ValueError(f"no stand-in for the images of objective.name={keys.name!r}")


def _cells(keys: ConfigDict, classes: int) -> Places:
    """An image in each of so many cells that every group has `classes` of them or the next few more."""
    if keys.by == "place":
        return _places(np.arange(classes))
    sectors, apart = (int(360 / keys.alpha), keys.L) if keys.by == "cell" else (1, 1)
    column = keys.N * -(-classes * apart // sectors)
    east, north, sector = (axis.ravel() for axis in np.indices((keys.N, column, sectors)))
    turn = {"heading": (sector + 0.5) * 360 / sectors} if keys.by == "cell" else {}
    paths = Paths.of(f"{row}.jpg" for row in range(len(east)))
    return Places.create("stand-in", paths, east=(east + 0.5) * keys.M, north=(north + 0.5) * keys.M, **turn)


def _drives(count: int, frames: int) -> Places:
    """So many places, each with a drive of the database and one of queries."""
    place, role, frame = (axis.ravel() for axis in np.indices((count, 2, frames)))
    role = np.where(role, ROLES.index("query"), ROLES.index("database")).astype(np.int8)
    return dataclasses.replace(_places(place), role=role, sequence=place, frame=frame)


def _places(place: np.ndarray) -> Places:
    """Images of places that lie 100 m apart."""
    paths = Paths.of(f"{row}.jpg" for row in range(len(place)))
    return Places.create("stand-in", paths, place=place, east=100.0 * place, north=0.0, heading=0.0)


def devices(platform: str, count: int | None) -> list[jax.Device]:
    """Simulated CPU devices, or those of a described slice (`tpu:v5e:2x2`), `count` of them.

    Raises:
      ValueError: where there are fewer than that.
    """
    if platform == CPU:
        found = jax.devices()
    else:
        from jax.experimental import topologies

        _, kind, shape = platform.split(":")
        found = list(topologies.get_topology_desc(f"{kind}:{shape}", "tpu").devices)
    if count and len(found) < count:
        raise ValueError(f"{platform} has {len(found)} devices, not {count}")
    return found[:count]


def figures(made: Step) -> dict[str, Any]:
    """The figures of a compiled step, on each device."""
    work = {kind: count / made.devices / 1e9 for kind, count in made.flops.items()}
    return {
        "devices": made.devices,
        "memory_mib": {part: round(size / 2**20, 1) for part, size in made.memory.items()},
        "gflop": round(sum(work.values()), 2),
        "gflop_by_type": {kind: round(count, 2) for kind, count in work.items()},
        "collectives": hlo.summary(hlo.collectives(made.text, made.devices)),
        "compile_seconds": round(made.seconds, 1),
    }


def recipe_of(text: str) -> ConfigDict:
    """The recipe of `FILE:preset,key=value`, whose classes need one image each."""
    config = load_config(text).unlock()
    if config.objective.name == "cells":
        config.objective.partition.min_images = 1
    return config.lock()


def main() -> None:
    """Compiles one step and prints its figures as a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="FILE:preset,key=value,...")
    parser.add_argument("--platform", default=CPU, help="cpu, or a slice of TPUs: tpu:v5e:2x2, tpu:v6e:4x4")
    parser.add_argument("--devices", type=int, help="of the platform; all of a slice, one CPU")
    parser.add_argument("--classes", type=int, default=CLASSES, help="of a group, for recipes of cells")
    parser.add_argument("--hlo", type=Path, help="a file for the compiled program's text")
    given = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")  # asks no accelerator for anything
    if given.platform == CPU:
        jax.config.update("jax_num_cpu_devices", given.devices or 1)
    else:
        os.environ.update(NO_TPU)
    made = step(recipe_of(given.recipe), devices(given.platform, given.devices), given.classes)
    if given.hlo:
        given.hlo.write_text(made.text)
    print(json.dumps({"recipe": given.recipe, "platform": given.platform, **figures(made)}))


if __name__ == "__main__":
    main()
