"""The benchmark of cores, run in this process on the smallest recipe."""

import json
import sys

import pytest

from benchmarks import cores
from jaxvpr import builders
from jaxvpr.cli.recipes import load_config
from jaxvpr.models.costs import flops


def test_cores_are_rate_times_processor_time(tmp_path, monkeypatch, capsys):
    out = tmp_path / "report.json"
    monkeypatch.setattr(sys, "argv", ["x", "--cases", "tiny", "--rounds", "1", "--share", "0.5", "--out", str(out)])
    cores.main()
    [found] = json.loads(out.read_text())["results"]
    assert json.loads(capsys.readouterr().out)["results"] == [found]
    assert set(found["cpu_ms_per_image"]) == {"recipe", "without colours", "decoded and resized"}
    assert min(found["cpu_ms_per_image"].values()) > 0
    rate = 0.5 * 989e12 / (found["gflop_per_image"] * 1e9)
    assert found["images_per_second_a_chip"]["H100"] == pytest.approx(rate, rel=0.03)
    assert found["cores_a_chip"]["H100"] == pytest.approx(rate * found["cpu_ms_per_image"]["recipe"] / 1000, rel=0.03)


def test_a_step_costs_three_forward_passes_but_for_what_is_frozen():
    config = load_config("configs/cosplace.py:tiny").copy_and_resolve_references().unlock()
    forward = flops(builders.model(config), *config.image.size) / 1e9
    whole = cores.gflop(config)
    assert 2.5 * forward < whole <= 3.01 * forward, "the first layer needs no gradient by its image"
    config.frozen = ("backbone",)
    assert cores.gflop(config) < 1.5 * forward
