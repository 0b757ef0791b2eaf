"""The benchmark of position heads: both sides learn the same from the same weights."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.long
@pytest.mark.torch
def test_an_epoch_loses_as_much_in_both(tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("JAX_NUMPY_")}
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    out = tmp_path / "report.json"
    command = [sys.executable, "-m", "benchmarks.position_heads", "--cases", "tiny", "--rounds", "1", "--repeats", "2"]
    subprocess.run([*command, "--out", out], check=True, stdout=subprocess.PIPE, cwd=ROOT, env=environment)
    [result] = json.loads(out.read_text())["results"]
    sides = {"jaxvpr", "pytorch", "pytorch, fused Adam"}
    assert (result["width"], result["batch"], result["samples"]) == (32, 16, 64)
    assert set(result["images_per_second"]) == set(result["cpu_ms_per_image"]) == sides
    assert all(min(rates) > 0 for rates in result["images_per_second"].values())
    assert result["largest_difference"] < 1e-5
    assert result["host_share"] < 1 and result["save_cpu_seconds"] > 0
