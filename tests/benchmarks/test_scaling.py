"""The scaling model: what its arithmetic gives, which recipes it compiles, and that an interrupted run goes on."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import scaling, side_by_side
from jaxvpr.cli.recipes import load_config

ROOT = Path(__file__).resolve().parents[2]
ROW = {
    "devices": 8,
    "gflop_by_type": {"bfloat16 HIGHEST": 890.1, "float32 HIGHEST": 67.0},  # 2 and 1/0.45 ms of an H100
    "collectives": {"all-reduce": {"count": 10, "mib": 200, "sent_mib": 343.3227539}},  # 360 MB: 1 ms at 0.8 x 450 GB/s
}


def test_the_models_times_are_those_worked_out_by_hand():
    found = scaling.expected(ROW, scaling.CHIPS["H100"])
    assert found == {"compute_ms": 4.22, "sending_ms": 1.2, "efficiency": 0.779, "overlapped": 1.0}
    across = scaling.expected(ROW | {"devices": 16}, scaling.CHIPS["H100"])
    assert across["sending_ms"] == pytest.approx(0.2 + 9 / 8, abs=0.01)  # 400 GB/s between nodes
    alone = scaling.expected(ROW | {"devices": 1, "collectives": {}}, scaling.CHIPS["H100"])
    assert (alone["sending_ms"], alone["efficiency"]) == (0, 1)
    # Six products of bfloat16: 67 GFLOP count as 402, and 360 MB take 4.5 ms at 0.8 x 100 GB/s, more than computing.
    v5e = scaling.expected(ROW, scaling.CHIPS["v5e"])
    assert v5e["compute_ms"] == pytest.approx((890.1 + 402) / (0.45 * 197), abs=0.01)
    plain = ("bfloat16", "float32", "float32 DEFAULT", "float32 BF16_BF16_F32", "float32 HIGH")
    assert [scaling._peak(scaling.CHIPS["H100"], kind) for kind in plain] == [989, 495, 495, 989, 495]
    few = scaling.expected(ROW | {"gflop_by_type": {"bfloat16": 197 * 0.45}}, scaling.CHIPS["v5e"])
    assert few["overlapped"] == pytest.approx(1 / 4.7, abs=0.001) and few["efficiency"] == pytest.approx(
        1 / 5.7, abs=0.001
    )


@pytest.mark.parametrize("name", scaling.CASES)
def test_every_device_has_as_many_images_whatever_their_number(name):
    one, many, whole = (
        load_config(text)
        for text in (scaling.CASES[name].on(1), scaling.CASES[name].on(256), scaling.CASES[name].as_one())
    )
    assert many.batch == 256 * one.batch and one.model.dtype == "bfloat16"
    for config in (one, many, whole):
        if config.objective.name == "places":
            assert config.batch == config.objective.P * config.objective.K
        if config.objective.name == "mined_triplets":
            assert config.objective.refresh // config.batch == 250  # an epoch stays a multiple of that


def test_rows_of_an_earlier_run_are_kept(monkeypatch, capsys, tmp_path):
    asked = []

    def here(module, recipe, *flags):
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append((recipe, *flags))
        platform, count = flags[1], flags[3] if len(flags) > 2 else 4
        return ROW | {"recipe": recipe, "platform": platform, "devices": count}

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["scaling", *arguments, "--out", str(tmp_path / "scaling.json")])
        scaling.main()
        return json.loads(capsys.readouterr().out)["results"]

    monkeypatch.setattr(side_by_side, "in_own_process", here)
    with pytest.raises(KeyboardInterrupt):
        run("--cases", "cosplace", "--devices", "1", "2", "4", "8", "--changes", "mesh.model=1")
    assert [flags for _, *flags in asked] == [["--platform", "cpu", "--devices", count] for count in (1, 2, 4)]
    asked.clear()
    rows = run("--cases", "cosplace", "--devices", "2", "8", "--changes", "mesh.model=1")
    assert [one[-1] for one in asked] == [8] and [row["devices"] for row in rows] == [1, 2, 4, 8]
    assert set(rows[-1]["expected"]) == set(scaling.CHIPS) and rows[-1]["recipe"].endswith(",batch=256,mesh.model=1")
    [*_, sliced] = run("--cases", "salad", "--slices", "tpu:v5e:2x2")
    assert asked[-1][1:] == ("--platform", "tpu:v5e:2x2") and set(sliced["expected"]) == {"v5e"}


@pytest.mark.parametrize("file", ["scaling.json", "tpu_slices.json"])
def test_the_page_has_the_tables_of_the_results(file):
    rows = json.loads((ROOT / "benchmarks" / "results" / file).read_text())["results"]
    for row in rows:
        assert row["expected"] == scaling.on_chips(row)
    page = (ROOT / "docs" / "scaling.md").read_text()
    missing = [line for line in scaling.table(rows).splitlines() if line not in page]
    assert not missing, "\n".join(missing)
