"""The machine itself: does everything import and compile without a warning, and how fast does it multiply matrices?"""

from __future__ import annotations

import importlib
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks import side_by_side, train_step
from benchmarks.device.runner import At

# What the measurements import, in an order in which each needs those before it.
IMPORTS = (
    "numpy", "scipy.spatial", "jax", "flax.linen", "optax", "orbax.checkpoint", "cv2", "PIL.Image", "absl.flags",
    "safetensors.numpy", "jinja2", "filelock", "ml_collections", "grain", "faiss", "simplejpeg", "tensorboardX",
    "torch", "jaxvpr", "jaxvpr.builders", "benchmarks.jax_side",
)  # fmt: skip
SIZE, TINY_SIZE, CALLS = 8192, 256, 10


def imports_and_compiles(at: At) -> dict[str, Any]:
    """Every import, and the compilation of a small training step, each with what it raised or warned of.

    Meant for an interpreter under `-W error`: a part that a warning stops is done once more with warnings printed, so
    that the parts behind it are looked at too.
    """
    parts: dict[str, Callable[[], object]] = {name: partial(importlib.import_module, name) for name in IMPORTS}
    parts["a compiled training step"] = partial(_compiled, at)
    found = {name: said for name, part in parts.items() if (said := _complaint(part))}
    return {
        "machine": side_by_side.machine(),
        "parts": len(parts),
        "complaints": found,
        "wrong": "; ".join(f"{name}: {said}" for name, said in found.items()),
    }


def _complaint(part: Callable[[], object]) -> str:
    """What a part raises, or "" where it is done."""
    try:
        part()
    except Warning as warning:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            again = _complaint(part)
        return f"{type(warning).__name__}: {warning}" + (f"; without -W error: {again}" if again else "")
    except Exception as error:  # whatever it is, the parts behind it are looked at too
        return f"{type(error).__name__}: {error}"
    return ""


def _compiled(at: At) -> object:
    from benchmarks import jax_side
    from jaxvpr.training.step import Turn

    case = train_step.CASES["tiny"]
    config = train_step.recipe(case, "bfloat16")
    training = train_step.jaxvpr_training(case, config, at.folder / "unused.safetensors")
    batch = jax_side.to_global(training.mesh, train_step.batch_of(case, config))
    return training.step.lower(training.state, {"source": batch}, Turn(np.int32(0))).compile()


def matrix_product(at: At) -> dict[str, Any]:
    """TFLOP/s of a large product of random square matrices: the peak that shares of the peak are taken of."""
    import jax
    import jax.numpy as jnp

    size = TINY_SIZE if at.tiny else SIZE
    left, right = jax.random.normal(jax.random.key(0), (2, size, size))
    return {
        "size": size,
        "bfloat16 TFLOP/s": _teraflops(left.astype(jnp.bfloat16), right.astype(jnp.bfloat16), None),
        "float32 TFLOP/s": _teraflops(left, right, None),
        "float32 HIGHEST TFLOP/s": _teraflops(left, right, "highest"),
    }


def _teraflops(left: Any, right: Any, precision: str | None) -> float:
    """Of products one after the other, with one wait for all; the median of three rounds."""
    import jax

    multiply = jax.jit(lambda a, b: jax.numpy.matmul(a, b, precision=precision))
    jax.block_until_ready(multiply(left, right))
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        jax.block_until_ready([multiply(left, right) for _ in range(CALLS)])
        seconds.append(time.perf_counter() - began)
    return round(CALLS * 2 * len(left) ** 3 / statistics.median(seconds) / 1e12, 3)
