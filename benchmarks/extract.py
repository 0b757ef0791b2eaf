"""Images described a second: our compiled forward pass beside the same network, with the same weights, in PyTorch.

Both get uint8 images that lie in host memory, normalise them, and give float32 descriptors back to it. PyTorch runs in
inference mode, in either memory layout. The largest difference between the descriptors of the two is reported. A fourth
side is ours without the programs that a CPU has for some layers (`jaxvpr.models.platforms`).

Published methods run at their published size; those that take images of their own size at 480x640, or the nearest that
their patches divide.

Starting, compiling and warming up are not in the rates; `first_call_seconds` says what the first batch takes.

  python -m benchmarks.extract --out benchmarks/results/extract.json
  python -m benchmarks.extract --dtype bfloat16          # on a GPU
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks import side_by_side
from jaxvpr.parallel import memory

if TYPE_CHECKING:
    from ml_collections import ConfigDict
    from torch import nn

LAX = "jaxvpr by lax alone"
SIDES = ("jaxvpr", LAX, "pytorch", "pytorch channels last")
WARM = 2


class Case(NamedTuple):
    """A recipe, what is changed in it, images a batch, and the batches that a round times."""

    recipe: str
    changes: dict[str, Any]
    batch: int
    batches: int


LARGE = {"image.size": (224, 224)}
CASES = {
    "small, 64 px": Case("configs/cosplace.py:city", {}, 64, 30),
    "resnet18, 224 px": Case("configs/cosplace.py:sf_xl", LARGE, 16, 6),
    "resnet50, 224 px": Case("configs/cosplace.py:sf_xl", {**LARGE, "model.backbone": "resnet50"}, 8, 4),
    "squeezenet, 224 px": Case("configs/squeezenet.py", LARGE, 16, 8),
    **{
        method: Case(f"configs/zoo.py:{method}", {}, batch, 3)
        for method, batch in {
            "cosplace-resnet18-512": 4,
            "eigenplaces-resnet50-2048": 4,
            "netvlad-vgg16": 2,
            "convap-resnet50-4096": 4,
            "mixvpr-resnet50-4096": 4,
            "salad-dinov2b": 4,
            "boq-resnet50-16384": 4,
            "boq-dinov2b-12288": 4,
            "megaloc": 2,
            "cricavpr": 4,
        }.items()
    },
    "tiny": Case("configs/cosplace.py:tiny", {}, 4, 2),
}
MEASURED = tuple(CASES)[:-1]


def recipe(case: Case, dtype: str) -> ConfigDict:
    """The recipe of a case."""
    from jaxvpr.cli.recipes import load_config

    config = load_config(case.recipe).unlock()
    config.update_from_flattened_dict({"model.dtype": dtype, **case.changes})
    return config.lock()


def images_of(case: Case, config: ConfigDict) -> np.ndarray:
    """A batch of noise."""
    from jaxvpr.builders import image_size

    return np.random.default_rng(0).integers(0, 256, (case.batch, *image_size(config), 3), np.uint8)


def jaxvpr_network(config: ConfigDict, tensors: Path) -> Callable[[Any], Any]:
    """Images to descriptors, with random weights, which it writes."""
    import jax

    from benchmarks import jax_side
    from jaxvpr import builders

    variables = builders.initial_variables(config)
    jax_side.export(variables, tensors, config.method)
    return partial(jax.jit(builders.apply(config)), jax.device_put(variables))


def pytorch_network(config: ConfigDict, tensors: Path, channels_last: bool) -> nn.Module:
    """The same in PyTorch, with the weights that `jaxvpr_network` wrote."""
    from benchmarks import torch_side, torch_zoo
    from jaxvpr.weights import read

    values = dict(read(tensors))
    if config.method:
        network = torch_zoo.network(config.method, values, channels_last)
    else:
        network = torch_side.network(config.model.to_dict(), values, channels_last)
    return network.to(torch_side.device()).eval()


def jaxvpr_describe(case: Case, dtype: str, tensors: Path) -> Callable[[], np.ndarray]:
    """A call describes the batch. Writes the weights."""
    config = recipe(case, dtype)
    images, network = images_of(case, config), jaxvpr_network(config, tensors)
    return lambda: np.asarray(network(images))


def lax_describe(case: Case, dtype: str, tensors: Path) -> Callable[[], np.ndarray]:
    """`jaxvpr_describe`, each layer as the one operation of lax that other devices have."""
    from jaxvpr.models.platforms import plain

    return plain(jaxvpr_describe(case, dtype, tensors))


def pytorch_describe(channels_last: bool, case: Case, dtype: str, tensors: Path) -> Callable[[], np.ndarray]:
    """The same in PyTorch, with the weights that `jaxvpr_describe` wrote."""
    import torch

    from benchmarks import torch_side

    config, device = recipe(case, dtype), torch_side.device()
    network, images = pytorch_network(config, tensors, channels_last), torch.from_numpy(images_of(case, config))

    def describe() -> np.ndarray:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
            return network(images.to(device)).float().cpu().numpy()

    return describe


def side(name: str, case: Case, dtype: str, tensors: Path, repeats: int) -> dict[str, Any]:
    """One side's part of a round. Its descriptors are left beside the weights."""
    memory.keep_freed()
    ours = {"jaxvpr": jaxvpr_describe, LAX: lax_describe}
    function = ours.get(name) or partial(pytorch_describe, name.endswith("last"))
    make = partial(function, case, dtype, tensors)
    times, described = side_by_side.clock(make, WARM, repeats)
    np.save(tensors.with_name(f"{name}.npy"), described[0])
    return {**times, "on": side_by_side.device(name)}


def measure(name: str, dtype: str, rounds: int, repeats: int | None) -> dict[str, Any]:
    """Interleaved rounds of a case."""
    case = CASES[name]
    config = recipe(case, dtype)
    with tempfile.TemporaryDirectory() as folder:
        tensors = Path(folder) / "weights.safetensors"
        given = ["--case", name, "--dtype", dtype, "--tensors", tensors, "--repeats", repeats or case.batches]
        found = side_by_side.interleave("benchmarks.extract", SIDES, rounds, *given)
        described = [np.load(tensors.with_name(f"{one}.npy")) for one in SIDES]
    return {
        "case": name,
        "backbone": config.model.backbone,
        "image": images_of(case, config).shape[1:3],
        "batch": case.batch,
        "dtype": dtype,
        **side_by_side.compare(found, case.batch, "pytorch"),
        "largest_difference": float(np.ptp(described, axis=0).max()),
    }


if __name__ == "__main__":
    side_by_side.program(__doc__, CASES, MEASURED, SIDES, side, measure)
