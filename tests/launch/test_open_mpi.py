"""Processes that the real mpirun starts, each under its launcher, are one run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Into files, since mpirun may join what two processes print into one line.
PROGRAM = """
import pathlib, sys
import jax
from jaxvpr.parallel import joining
joining.start("auto")
said = f"process {jax.process_index()} of {jax.process_count()}, {jax.local_device_count()} device"
pathlib.Path(sys.argv[1], str(jax.process_index())).write_text(said)
"""


@pytest.mark.long
def test_processes_of_mpirun_are_one_run(tool, tmp_path):
    flags = ["--allow-run-as-root", "--oversubscribe", "-np", "2"]
    host = [sys.executable, str(ROOT / "launch" / "restart.py"), "--", sys.executable, "-c", PROGRAM, str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "OMPI", "PMIX"))}
    environment |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    done = subprocess.run(
        [tool("mpirun"), *flags, *host], env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    said = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert said == {str(number): f"process {number} of 2, 1 device" for number in (0, 1)}
