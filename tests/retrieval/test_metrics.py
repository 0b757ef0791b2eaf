"""The protocol line and metrics.json: what is written is what was measured, and mistakes are named by their key."""

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.clips import Cutting
from data_pipelines.errors import DataError
from jaxvpr.errors import UserError
from jaxvpr.retrieval.costs import costs
from jaxvpr.retrieval.metrics import read_metrics, result, validate, write_metrics
from jaxvpr.retrieval.positives import from_lists
from jaxvpr.retrieval.protocol import line, protocol
from jaxvpr.retrieval.recall import recall

POSITIVES = from_lists([0, 1, 2, 2, 3], [0, 1, 2])
PREDICTIONS = np.array([[0, 1], [0, 1], [0, 1], [0, 1]])


def facts(**changes):
    known = {"dataset": "minicity", "split": "test", "queries": 4, "database": 2232, "positives": {"25m": POSITIVES}}
    shape = {"image_size": (64, 96), "resize": "pil_bilinear", "dimension": 256}
    return protocol(**(known | shape | changes))


def document():
    found = {"25m": recall(PREDICTIONS, POSITIVES, (1, 2))}
    night = {"night": {"25m": found["25m"].take(np.array([0, 1]))}}
    return [result(facts(), found, {"thumbnail": found}, night)]


COSTS = {"descriptor_bytes": 1024, "extraction_ms_per_image": 1.5}


def test_the_line_carries_every_fact():
    assert line(facts(), "25m") == (
        "minicity test | 4 queries (1 without positive) | 2,232 database images | 25m | 64x96 pil_bilinear | 256-D | "
        "flat L2 (exact)"
    )
    assert line(facts(missing=2), "25m").endswith("256-D | flat L2 (exact) | 2 unreadable images")
    clips = facts(missing=2, cutting=Cutting(5))
    assert line(clips, "25m").endswith("256-D | flat L2 (exact) | 2 clips or frames that could not be read")
    fast = facts(missing=2, computed_in="bfloat16, head at default")
    assert line(fast, "25m").endswith("flat L2 (exact) | bfloat16, head at default | 2 unreadable images")
    old = {key: value for key, value in facts().items() if key != "computed_in"}
    assert line(old, "25m") == line(facts(), "25m")
    grouped = facts(batch_norm_images=32)
    assert line(grouped, "25m").endswith("| flat L2 (exact) | BatchNorm over 32 images in training")
    own = facts(image_size=(), resize="tensor_linear_antialias", multiple=14)
    assert own["image_size"] == [] and "| own size to multiples of 14 tensor_linear_antialias | 256-D" in line(
        own, "25m"
    )
    own = facts(image_size=())
    assert own["resize"] == "none" and "| own size | 256-D" in line(own, "25m")
    assert own["cropped_from"] == "none"
    cropped = facts(image_size=(476, 630), resize="tensor_linear", multiple=14, cropped_from=(480, 640))
    assert (cropped["cropped_from"], cropped["multiple"]) == ("480x640", 14)
    assert "| 476x630 of 480x640 tensor_linear | 256-D" in line(cropped, "25m")
    cropped = facts(image_size=(), resize="tensor_linear", multiple=14, cropped_from=())
    assert (cropped["cropped_from"], cropped["resize"]) == ("own size", "none")
    assert "| own size cropped to multiples of 14 | 256-D" in line(cropped, "25m")
    with pytest.raises(ValueError, match=r"positives.*\b4 queries.*\b5\b"):
        facts(queries=5)


def test_what_is_written_is_read_back(tmp_path):
    path = write_metrics(tmp_path / "run", document(), COSTS, extra={"difficulty": {"hash": "ab12"}})
    read = read_metrics(path)
    assert [file.name for file in path.parent.iterdir()] == ["metrics.json"]
    entry = read["results"][0]
    assert entry["recall"] == {"25m": {"1": 25.0, "2": 50.0}}
    assert entry["recall_answerable"] == {"25m": {"1": 33.3333, "2": 66.6667}}
    assert entry["protocol"]["without_positive"] == {"25m": 1} and entry["upper_bound"] == {"25m": 75.0}
    assert entry["conditions"]["night"] == {"queries": 2, "recall": {"25m": {"1": 50.0, "2": 100.0}}}
    low, high = entry["interval95"]["25m"]["1"]
    assert 0 < low < 25 < high < 100
    assert read["costs"] == COSTS and read["difficulty"] == {"hash": "ab12"}


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = write_metrics(tmp_path, document(), COSTS)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"costs\.extraction_ms_per_image.*finite"):
        write_metrics(tmp_path, document(), COSTS | {"extraction_ms_per_image": float("nan")})
    with pytest.raises(TypeError):
        write_metrics(tmp_path, document(), COSTS, extra={"not json": {1, 2}})
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["results"], None, "results.*list"),
        (["costs"], [], "costs.*object"),
        (["results", 0, "dataset"], 3, r"results\[0\]\.dataset.*\b3\b"),
        (["results", 0, "protocol", "queries"], "4", r"results\[0\]\.protocol\.queries.*\bint\b.*'4'"),
        (["results", 0, "protocol", "without_positive"], {}, r"results\[0\]\.recall\b.*thresholds.*\['25m'\]"),
        (["results", 0, "recall", "25m", "1"], 120.0, r"results\[0\]\.recall\.25m\.1\b.*\b120\.0\b"),
        (["results", 0, "recall", "25m", "2"], 10.0, r"recall\.25m\b.*\bfall\b"),
        (["results", 0, "recall", "25m"], {}, r"recall\.25m\b.*\bkey\b"),
        (["results", 0, "recall", "25m", "one"], 1.0, r"recall\.25m\b.*an integer N.*'one'"),
        (["results", 0, "interval95"], {}, r"results\[0\]\.interval95.*of the recall.*\{\}"),
        (["results", 0, "interval95", "25m"], {"1": [1.0, 2.0]}, r"interval95\.25m\b.*each N"),
        (["results", 0, "interval95", "25m", "1"], [1.0, 10**400], r"interval95\.25m\.1\b.*two numbers"),
        (["costs", "training_seconds"], [1.0, 2.0], r"costs\.training_seconds\b.*\[1\.0, 2\.0\]"),
        (["results", 0, "baselines", "thumbnail"], 5, r"baselines\.thumbnail.*\b5\b"),
    ],
)
def test_mistakes_are_named_by_their_key(keys, value, message):
    changed = {"results": copy.deepcopy(document()), "costs": dict(COSTS)}
    validate(changed)
    at = changed
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = value
    with pytest.raises(UserError, match=message):
        validate(changed)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("within", {}, r"positions\.within.*a key for each distance"),
        ("within", {"25m": 101.0}, r"positions\.within\.25m.*per cent"),
        ("interval95", {"1m": [0.0, 1.0]}, r"positions\.interval95.*those of the distances"),
        ("median_m", float("inf"), r"positions\.median_m.*at least 0"),
        ("retrieval", {"within": {"25m": -1.0}, "interval95": {}}, r"positions\.retrieval\.within\.25m.*per cent"),
    ],
)
def test_mistakes_in_the_figures_of_a_position_head_are_named(key, value, message):
    figures = {"within": {"25m": 60.0}, "interval95": {"25m": [55.0, 65.0]}, "outside": 1, "median_m": 3.0}
    entry = {**document()[0], "positions": figures | {"retrieval": figures}}
    validate({"results": [entry], "costs": COSTS})
    entry["positions"] = figures | {key: value}
    with pytest.raises(UserError, match=message):
        validate({"results": [entry], "costs": COSTS})


def test_unreadable_metrics(tmp_path):
    (tmp_path / "cut.json").write_text('{"results": [')
    for name in ("cut.json", "absent.json"):
        with pytest.raises(DataError, match=name):
            read_metrics(tmp_path / name)


def test_the_documented_example_is_valid():
    text = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text()
    validate(json.loads(re.search(r"```json\n(.*?)```", text, re.DOTALL)[1]))


def test_costs_by_hand():
    found = costs(database=2000, dimension=256, extraction_ms_per_image=5.0, parameters=7)
    assert found == {
        "descriptor_dimension": 256,
        "descriptor_bytes": 1024,
        "database_bytes": 2_048_000,
        "extraction_ms_per_image": 5.0,
        "parameters": 7,
    }
    validate({"results": [], "costs": found})
