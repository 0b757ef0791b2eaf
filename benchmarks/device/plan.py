"""What the device check measures, the most valuable first: what no longer fits into its time is left out from the end.

A limit allows for starting, compiling and tuning kernels, which take most of it.
"""

from __future__ import annotations

from functools import partial

from benchmarks.device import data, extraction, machine, resume, steps
from benchmarks.device.runner import Measurement

OURS, BEST, PUBLISHED = "jaxvpr", "pytorch at its best", "pytorch as published"
PEAK = "matrix product"


def _train(name: str, variant: str = "") -> Measurement:
    side = f"{OURS}, {variant}" if variant else OURS
    return Measurement(f"train {name}: {side}", "jaxvpr", 75, partial(steps.ours, name, "bfloat16", variant))


def _train_torch(name: str, side: str) -> Measurement:
    best = side == BEST
    return Measurement(f"train {name}: {side}", "pytorch", 90 if best else 40, partial(steps.pytorch, name, best))


def _extract(name: str, dtype: str) -> list[Measurement]:
    group = f"extract {name} {dtype}"
    ours = [
        Measurement(f"{group}: {OURS}{side}", "jaxvpr", 45, partial(extraction.ours, name, dtype, precision))
        for side, precision in (("", "highest"), (", at default precision", "default"))
    ]
    peer = Measurement(f"{group}: {BEST}", "pytorch", 60, partial(extraction.pytorch, name, dtype))
    return [ours[0], peer] + ours[1:] * (dtype == "float32")


PLAN = (
    Measurement("imports and compiles", "jaxvpr", 60, machine.imports_and_compiles, ("-W", "error")),
    Measurement(PEAK, "jaxvpr", 30, machine.matrix_product),
    *(_train(name) for name in steps.CASES),
    *(_train_torch(name, BEST) for name in steps.CASES),
    Measurement("float32 parity resnet50", "jaxvpr", 40, partial(extraction.parity, "resnet50")),
    Measurement("kill and resume", "jaxvpr", 90, resume.kill_and_resume),
    _train("mixvpr", steps.PRECISE),
    _train("mixvpr", steps.ROUNDED),
    _train("salad", steps.ATTENTION),
    _train("salad", steps.PRECISE),
    Measurement("loader", "host", 45, partial(data.loader, False)),
    Measurement("copies to the device", "jaxvpr", 30, data.copies),
    Measurement("loader, one arena", "host", 45, partial(data.loader, True)),
    Measurement("mining", "jaxvpr", 60, data.mining),
    *_extract("resnet50", "bfloat16"),
    *_extract("dinov2", "bfloat16"),
    *(_train_torch(name, PUBLISHED) for name in steps.CASES),
    *_extract("resnet50", "float32"),
    *_extract("dinov2", "float32"),
    Measurement("float32 parity dinov2", "jaxvpr", 45, partial(extraction.parity, "dinov2")),
)
