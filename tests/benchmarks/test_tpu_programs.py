"""Training steps compiled for described slices of TPUs, without a TPU: they compile, fit, and update in place.

Each is a process of its own, since libtpu wants an environment of its own. XLA's lower level of optimisation halves the
time; collectives are the same with the higher.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import hlo, scaling

ROOT = Path(__file__).resolve().parents[2]
GIB = {"v5e": 16, "v6e": 32}  # of a chip
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"),
]


def compiled_for(kind, recipe, text):
    """The figures of a recipe's step on 2 x 2 chips; its program is written to the file `text`."""
    command = [sys.executable, "-m", "benchmarks.compiled", recipe, "--platform", f"tpu:{kind}:2x2", "--hlo", text]
    environment = os.environ | {"JAX_OPTIMIZATION_LEVEL": "O1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    for variable in ("XLA_FLAGS", "JAX_NUMPY_DTYPE_PROMOTION", "JAX_NUMPY_RANK_PROMOTION"):
        environment.pop(variable, None)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", GIB)
@pytest.mark.parametrize("name", scaling.CASES)
def test_the_step_compiles_and_fits(kind, name, tmp_path):
    found = compiled_for(kind, scaling.CASES[name].as_one(), tmp_path / "step.txt")
    takes = found["memory_mib"]
    assert takes["argument"] + takes["output"] - takes["alias"] + takes["temp"] < 0.9 * 1024 * GIB[kind]
    assert takes["alias"] > 0.95 * takes["output"], "the state's memory is reused"
    assert 0 < found["collectives"]["all-reduce"]["sent_mib"] < 250
    if name == "cosplace":
        _updates_one_group_in_place((tmp_path / "step.txt").read_text())


def _updates_one_group_in_place(text):
    """Of prototypes and their two moments one group of 8 is written, and the whole stack is neither copied nor chosen
    from; XLA copies it on a CPU (`test_compiled.py`)."""
    stack = "f32[8,6016,512]"  # 6,000 classes
    wanted = ("dynamic-update-slice", "copy", "copy-start", "select", "transpose")
    found = [operation for operation, shape in hlo.shapes(text, wanted) if shape == stack]
    assert found == ["dynamic-update-slice"] * 3
