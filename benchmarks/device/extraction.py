"""Extraction: images described a second, ours and PyTorch's, and whether a device gives a CPU's descriptors."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import extract, side_by_side
from benchmarks.device.runner import At
from benchmarks.device.timing import rates

CALLS = 10
BATCH = 128
PARITY_IMAGES = 4
# Largest difference of a number of two unit descriptors: at full precision, and at the device's own for float32.
PARITY, PARITY_DEFAULT = 1e-5, 1e-2
CASES = {
    "resnet50": extract.Case("configs/zoo.py:eigenplaces-resnet50-2048", {"image.size": (512, 512)}, BATCH, CALLS),
    "dinov2": extract.Case("configs/zoo.py:salad-dinov2b", {"image.size": (322, 322)}, BATCH, CALLS),
}
TINY = {
    "resnet50": extract.CASES["tiny"],
    # Of 112 pixels are 64 patches, one too few for 64 clusters.
    "dinov2": extract.Case("configs/zoo.py:salad-dinov2b", {"image.size": (126, 126)}, 2, 1),
}


def ours(name: str, dtype: str, precision: str, at: At) -> dict[str, Any]:
    """Our compiled forward pass, at a `model.precision`. Writes the weights that PyTorch's side has too."""
    import jax

    from benchmarks.device import program

    case = (TINY if at.tiny else CASES)[name]
    config = extract.recipe(case._replace(changes={**case.changes, "model.precision": precision}), dtype)
    images, network = extract.images_of(case, config), extract.jaxvpr_network(config, at.folder / f"{name}.safetensors")
    there, last = jax.device_put(images), {}

    def one(images: Any) -> None:
        last["descriptors"] = network(images)

    figures = rates(
        lambda: one(there), lambda: one(images), lambda: jax.block_until_ready(last), case.batch, case.batches
    )
    work = program.flops(jax.make_jaxpr(network)(there))
    figures |= {"batch": case.batch, "pixels": images.shape[1], "dtype": dtype, "peak_mib": side_by_side.peak_mib()}
    return figures | {"gflop_per_image": round(sum(work.values()) / case.batch / 1e9, 3)}


def pytorch(name: str, dtype: str, at: At) -> dict[str, Any]:
    """PyTorch's at its best: channels last, autocast in bfloat16 (with TF32 for the rest) or full float32,
    `torch.compile`.

    Raises:
      FileNotFoundError: where our side has not written the weights.
    """
    import torch

    from benchmarks import torch_places, torch_side

    case, where, last = (TINY if at.tiny else CASES)[name], torch_side.device(), {}
    config = extract.recipe(case, dtype)
    torch.backends.cudnn.benchmark = True
    plain = extract.pytorch_network(config, at.folder / f"{name}.safetensors", channels_last=True)
    network = torch_side.at_its_best(plain, at.tiny, tf32=dtype == "bfloat16")
    there, image = torch_side.placed(extract.images_of(case, config))

    def one(images: torch.Tensor) -> None:
        with torch.inference_mode(), torch.autocast(where.type, torch.bfloat16, enabled=dtype == "bfloat16"):
            last["descriptors"] = network(images).float()

    figures = rates(
        lambda: one(there),
        lambda: one(image.to(where, non_blocking=True)),
        torch_side.wait,
        case.batch,
        case.batches,
    )
    return figures | {"batch": case.batch, "dtype": dtype, "peak_mib": torch_places.peak_mib()}


def parity(name: str, at: At) -> dict[str, Any]:
    """float32 descriptors of the device beside those of this machine's CPU, at the highest precision, as they are by
    default, and at that of `model.precision=default` (TF32 on an NVIDIA GPU)."""
    import jax

    from jaxvpr import builders

    case = (TINY if at.tiny else CASES)[name]
    config = extract.recipe(case, "float32")
    images = extract.images_of(case._replace(batch=min(case.batch, PARITY_IMAGES)), config)
    cpu, variables = jax.devices("cpu")[0], builders.initial_variables(config)

    def described(device: Any, precision: str) -> np.ndarray:
        own = config.copy_and_resolve_references().unlock()
        own.model.precision = own.model.head_precision = precision
        return np.asarray(jax.jit(builders.apply(own))(*jax.device_put((variables, images), device)))

    expected = described(cpu, "highest")
    found = {kind: described(jax.devices()[0], kind) for kind in ("default", "highest")}
    apart = {kind: float(abs(one - expected).max()) for kind, one in found.items()}
    cosines = {kind: float((one * expected).sum(1).min()) for kind, one in found.items()}
    far = apart["highest"] > PARITY or apart["default"] > PARITY_DEFAULT or not np.isfinite(list(apart.values())).all()
    return {
        "pixels": images.shape[1],
        "images": len(images),
        "largest_difference": apart["highest"],
        "largest_difference_at_default_precision": apart["default"],
        "smallest_cosine": cosines["highest"],
        "smallest_cosine_at_default_precision": cosines["default"],
        "wrong": f"more than {PARITY} apart ({PARITY_DEFAULT} at default precision)" if far else "",
    }
