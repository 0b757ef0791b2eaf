"""Every benchmark runs, both sides of it compute the same thing, and its JSON says where, how and what was measured.

How fast they are is not tested: that depends on who else uses the machine.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import cpu_layers, mining, side_by_side

ROOT = Path(__file__).resolve().parents[2]
SIDES = {"jaxvpr", "jaxvpr by lax alone", "pytorch", "pytorch channels last"}


def run(name, tmp_path, *arguments):
    """The report that `python -m benchmarks.<name>` prints, which is also the one that it writes."""
    # One device and mixed types, as a user has it; compiled without optimisation, which is what takes time here.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("JAX_NUMPY_")}
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    out = tmp_path / "a" / "b.json"
    command = [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments), "--out", str(out)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT, env=environment)
    report = json.loads(done.stdout)
    assert json.loads(out.read_text()) == report
    assert report["command"].startswith(f"python -m benchmarks.{name} ") and "--out" in report["command"]
    assert report["machine"]["cores"] >= 1 and len(report["machine"]["load average"]) == 3
    assert report["versions"]["python"] and report["date"].endswith("UTC")
    return report


def check_sides(result, rounds):
    """The keys that both frameworks' figures have."""
    rates = ("images_per_second", "median_images_per_second", "fastest_images_per_second", "ratio_to_pytorch")
    for key in (*rates, "cpu_ms_per_image", "start_seconds", "first_call_seconds", "on"):
        assert set(result[key]) == SIDES, key
    assert all(len(rates) == rounds and min(rates) > 0 for rates in result["images_per_second"].values())
    assert result["ratio_to_pytorch"]["pytorch"] == 1
    assert all(one["device"] for one in result["on"].values())


@pytest.mark.torch
def test_a_training_step_loses_as_much_in_both(tmp_path):
    report = run("train_step", tmp_path, "--cases", "tiny", "--rounds", 1, "--repeats", 1)
    [result] = report["results"]
    check_sides(result, 1)
    assert (result["case"], result["batch"], result["classes"], result["dtype"]) == ("tiny", 8, 16, "float32")
    assert all(len(losses) == 3 and losses[0] > losses[-1] for losses in result["losses"].values())
    assert result["largest_difference"] < 1e-3 * result["losses"]["pytorch"][0]
    assert {"jax", "torch"} <= set(report["versions"])


@pytest.mark.torch
def test_extraction_gives_the_same_descriptors_in_both(tmp_path):
    [result] = run("extract", tmp_path, "--cases", "tiny", "--rounds", 1, "--repeats", 1)["results"]
    check_sides(result, 1)
    assert result["largest_difference"] < 1e-5


def test_layers_of_a_cpu_are_measured_beside_laxs():
    arrays = cpu_layers.normal(4, 8, 8, 16), cpu_layers.normal(3, 3, 16, 16)
    line = cpu_layers.measure("3x3", cpu_layers.TRAINED, cpu_layers.looped, arrays, 1)
    for key, gain in line["times_as_fast"].items():
        assert gain == round(line["lax"][key] / line["ours"][key], 2) > 0
    assert line["ours"]["temp_mib"] >= 0 and line["shape"] == (4, 8, 8, 16)


@pytest.mark.long
def test_batches_of_places_by_nearness_keep_their_promises_on_both_sides(tmp_path):
    report = run("near_batches", tmp_path, "--rows", 24000, "--steps", 20, "--places", 4, "--rounds", 1)
    results = report["results"]
    assert results["agree"] and results["ours"]["anchors"][0] > 20000 and report["P"] == 4
    assert results["times_faster"]["plan_seconds"] > 0 and len(results["loop"]["table_seconds"]) == 1


@pytest.mark.long
def test_the_partition_finds_the_same_classes_and_reads_the_same_numbers(tmp_path):
    report = run("partition", tmp_path, "--rows", 24000)
    assert set(report["results"]) == {"cells", "looks", "names"} and report["rows"] == 24000
    for ours, result in report["results"].items():
        assert result["agree"] and result["times_faster"] > 0
        assert all(result[stage]["rows"] == 24000 and result[stage]["peak_mib"] > 0 for stage in (ours, f"peer_{ours}"))
    cells = report["results"]["cells"]["cells"]
    assert cells["groups"] > 8 and 0 < cells["images_in_classes"] <= 24000
    looks = report["results"]["looks"]["looks"]
    assert looks["groups"] == 9 and all(500 < images <= 2000 for images in looks["images_in_classes"])


@pytest.mark.long
def test_mining_finds_the_same_triplets_as_faiss(tmp_path):
    report = run("mining", tmp_path, "--queries", 60, "--database", 2400, "--dimension", 16)
    assert (report["queries"], report["database"], report["dimension"], report["k"]) == (60, 2400, 16, 10)
    assert {"jax", "faiss-cpu"} <= set(report["versions"])
    for result, case in zip(report["results"], mining.CASES, strict=True):
        assert result["case"] == case and result["agree"] and result["equal_rows"] > 0.99
        assert 20 < result["images within 25 m"] < 100 and 12 < result["positives"] < result["images within 25 m"]
        others = {"faiss", "product alone"} if case == mining.WHOLE else {"faiss"}
        for key in ("seconds", "first_call_seconds", "cpu_seconds", "mib_before", "peak_mib", "on"):
            assert set(result[key]) == {"jaxvpr", *others}, key
        assert all(result["peak_mib"][side] >= result["mib_before"][side] > 10 for side in ("jaxvpr", "faiss"))
        assert set(result["times_faster"]) == others and min(result["times_faster"].values()) > 0


@pytest.mark.long
def test_a_search_finds_the_same_on_the_host_on_the_devices_and_in_two_processes(tmp_path):
    report = run("search", tmp_path, "--database", 3000, "--dimensions", 16, "--queries", 50, "--rounds", 1)
    assert (report["queries"], report["database"], report["k"]) == (50, 3000, 100)
    [result] = report["results"]
    assert result["agree"] and min(result["equal_rows"].values()) > 0.99
    for key in ("seconds", "first_call_seconds", "grown_mib", "on", "largest_difference"):
        assert set(result[key]) == {"host", "mesh", "mesh, two processes"}, key
    assert result["times_the_host's_time"]["host"] == 1 and result["on"]["mesh, two processes"]["devices"] == 2


@pytest.mark.long
def test_seqslam_finds_the_same_as_numpy(tmp_path):
    report = run("seqslam", tmp_path, "--cases", "tiny", "--rounds", 1)
    [result] = report["results"]
    assert result["agree"] and result["trajectories"] == 5
    assert set(result["seconds"]) == {"jaxvpr", "NumPy, arrays", "NumPy, loops"}
    assert min(result["equal_clips"].values()) > 0.99 and result["times_our_time"]["jaxvpr"] == 1


def test_mining_that_finds_others_does_not_agree():
    found = [np.array([3, -1]), np.array([0.5, np.inf]), np.array([[1, 2], [3, 4]]), np.array([[0.1, 0.2], [0.3, 0.4]])]
    assert mining.agreement(found, found) == {"equal_rows": 1, "largest_difference": 0, "agree": True}
    near, far, none = ([*found[:3], found[3] + change] for change in (1e-6, 1e-4, [[0, np.inf], [0, 0]]))
    swapped = [*found[:2], found[2][:, ::-1], found[3]]
    assert mining.agreement(near, found)["agree"] and not mining.agreement(far, found)["agree"]
    assert not mining.agreement(none, found)["agree"]
    assert mining.agreement(swapped, found)["equal_rows"] == pytest.approx(1 / 3, abs=1e-6)


def test_the_loaders_read_every_image(tmp_path):
    arguments = "--cases", "tiny", "--rounds", 1, "--processes", 1
    report = run("loader", tmp_path, *arguments)
    [result] = report["results"]
    ours = {"threads", "workers", "threads, linear"}
    both = ours | {"torch DataLoader"} if report["torchvision"] else ours
    assert result["case"] == "tiny" and result["images_per_round"] == 16
    for key in ("images_per_second", "median_images_per_second", "cpu_ms_per_image", "ms_to_first_batch"):
        assert set(result[key]) == both, key
    assert min(min(rates) for rates in result["images_per_second"].values()) > 0


def test_the_readers_give_the_same_pixels(tmp_path):
    report = run("decoding", tmp_path, "--cases", "tiny", "--rounds", 2)
    [result] = report["results"]
    assert (result["case"], result["images"], result["rounds"]) == ("tiny", 64, 2)
    assert set(result["cpu_ms_per_image"]) == set(result["ratio_to_opencv"]) == {"jaxvpr", "OpenCV", "Pillow"}
    assert min(result["cpu_ms_per_image"].values()) > 0 and result["ratio_to_opencv"]["OpenCV"] == 1
    # Pillow's may be another release of libjpeg-turbo.
    apart = result["largest_difference_of_a_pixel"]
    assert apart["jaxvpr"] == apart["OpenCV"] == 0 and apart["Pillow"] <= 1 and "simplejpeg" in report["versions"]


@pytest.mark.long
def test_records_hold_the_images_of_the_files_also_when_their_writer_was_killed(photo_tree, tmp_path):
    pytest.importorskip("tensorflow_datasets")
    both = ["--images", photo_tree, "--records", tmp_path / "records"]
    found = run("killed_records", tmp_path, *both, "--shards", 5, "--workers", 1, "--kills", 1, "--seconds", 1)[
        "results"
    ]
    assert (found["images_compared"], found["images_that_differ"], found["left_over"]) == (200, 0, [])
    assert found["verified"]["images"] == 200 and not found["kills"][0]["still_writing"]
    report = run("records", tmp_path, *both, "--rows", 40, "--rounds", 1)
    sides = {"files", "records", "records, groups of 32"}
    assert [one["what"] for one in report["results"]] == ["bytes", "pixels"]
    assert all(set(one["microseconds_per_image"]) == sides for one in report["results"])
    assert (report["files"]["files"], report["records"]["files"]) == (200, 5)


def test_each_round_starts_with_the_next_side():
    assert "".join(side_by_side.turns("abc", 4)) == "abcbcacababc"


def test_ratios_are_taken_within_a_round():
    rounds = {"ours": [10.0, 2.0, 30.0], "peer": [5.0, 1.0, 10.0]}
    assert side_by_side.ratios(rounds, "peer") == {"ours": 2.0, "peer": 1.0}
    assert side_by_side.medians(rounds) == {"ours": 10.0, "peer": 5.0}


def test_a_side_that_fails_stops_the_benchmark(capfd):
    with pytest.raises(subprocess.CalledProcessError):
        side_by_side.in_own_process("benchmarks.partition", "--side", "nobody")
    assert "invalid choice: 'nobody'" in capfd.readouterr().err


@pytest.mark.long
def test_one_photo_alone_and_in_a_whole_batch_is_described_alike(tmp_path):
    [result] = run("one_photo", tmp_path, "--cases", "tiny", "--rounds", 2)["results"]
    assert (result["case"], result["batch"], result["image"]) == ("tiny", 64, [32, 32])
    assert set(result["milliseconds"]) == set(result["first_call_seconds"]) == {"alone", "in a whole batch"}
    assert min(result["milliseconds"].values()) > 0 and result["times_faster"] > 0
    assert result["largest_difference"] < 1e-6 and result["on"]["devices"] == 1


@pytest.mark.long
@pytest.mark.torch
def test_own_photos_are_found_by_both_sides(tmp_path):
    pytest.importorskip("efficientnet_lite_pytorch")
    result = run("own_photos", tmp_path, "--places", 6, "--photos", 3, "--rounds", 1)["results"]
    sides = {"localize, nothing compiled", "localize, compiled before", "pytorch"}
    assert (result["places"], result["photos"], result["same_answers"]) == (6, 3, 1)
    assert result["right"] == dict.fromkeys(sides, 1) and result["ratio_to_pytorch"]["pytorch"] == 1
    assert result["seconds"].keys() == result["cpu_seconds"].keys() == sides
    assert min(*result["seconds"].values(), *result["extract"].values()) > 0
