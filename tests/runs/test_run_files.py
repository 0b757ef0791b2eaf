"""What a run left in its folder, damaged or edited: every reader of it answers, or names the file."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipelines.errors import DataError
from jaxvpr.cli.recipes import load_config
from jaxvpr.cli.sweep_file import Run, Sweep
from jaxvpr.errors import UserError
from jaxvpr.reports.html import write_report
from jaxvpr.reports.sweep_page import write_sweep
from jaxvpr.retrieval import metrics
from jaxvpr.retrieval.positives import from_lists
from jaxvpr.retrieval.protocol import protocol
from jaxvpr.retrieval.recall import recall
from jaxvpr.runs import workdir
from jaxvpr.training import logs
from jaxvpr.verbs import sweep as verb

CONFIG = load_config("configs/cosplace.py:tiny")
SWEEP = Sweep("s", "r", "", "", (Run("a", "a", 0, {}, CONFIG), Run("a", "b", 1, {}, CONFIG)))
LOG = [{"step": 0, "loss": 2.5, "grad_norm": 1.0}, {"step": 2, "epoch": 1, "val/R@1": 25.0}, {"step": 2, "ended": "x"}]
POSITIVES = from_lists([0, 1, 2, 2, 3], [0, 1, 2])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    found = {"25m": recall(np.array([[0, 1]] * 4), POSITIVES, (1, 2))}
    facts = protocol(
        dataset="city", split="test", queries=4, database=9, positives={"25m": POSITIVES}, image_size=(64, 96),
        resize="pil_bilinear", dimension=8,
    )  # fmt: skip
    for run in ("a", "b"):
        (folder / run).mkdir()
        costs = {"training_seconds": 3.5, "descriptor_bytes": 32}
        metrics.write_metrics(folder / run, [metrics.result(facts, found, {"thumbnail": found})], costs)
        (folder / run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG))
        (folder / run / "config.json").write_text(CONFIG.to_json())
    return folder


def everything(folder):
    """All that reads these files."""
    workdir.refuse_other(folder / "a", CONFIG)
    workdir._longer(folder / "a", CONFIG)
    verb._check(SWEEP.runs[0], folder / "a")
    write_sweep(folder / "tables", verb._document(SWEEP, folder))
    write_report(folder / "report.html", title="x", loss_log=logs.read(folder / "a"))


def test_whole_files_are_read(folder):
    everything(folder)
    (one, _) = json.loads((folder / "tables" / "sweep.json").read_text())["runs"]
    assert one["test"][0]["recall"] == {"1": 25.0, "2": 50.0} and one["validation"] == [LOG[1]]


DAMAGED = {
    "cut": lambda c: c[: len(c) // 2],
    "empty": lambda c: b"",
    "a brace": lambda c: b"{\n",
    "a list": lambda c: b"[1]\n",
    "a number": lambda c: b"7\n",
    "deep": lambda c: b"[" * 100_000 + b"\n",
    "no text": lambda c: b"\xff\xfe" + c,
    "junk in a line": lambda c: c.replace(b"2.5", b"2,5").replace(b"{", b"{{"),
    "other types": lambda c: c.replace(b'"step": 0', b'"step": "0"').replace(b'"results": [', b'"results": [3, '),
    "huge": lambda c: (
        c.replace(b"2.5", b"9" * 400).replace(b"25.0", b"9" * 400).replace(b'"seed": 0', b'"seed": 1e999')
    ),
}


@pytest.mark.parametrize("how", DAMAGED)
@pytest.mark.parametrize("name", ["config.json", "log.jsonl", "metrics.json"])
def test_damaged_files_are_named(folder, name, how):
    file = folder / "a" / name
    before = file.read_bytes()
    file.write_bytes(DAMAGED[how](before))
    changed = file.read_bytes() != before
    try:
        if not changed or (name == "log.jsonl" and how in ("cut", "empty")):  # a run may have been killed
            everything(folder)
        else:
            with pytest.raises((UserError, DataError), match=rf"a/{name}\b|a holds a run of another configuration"):
                everything(folder)
    finally:
        file.write_bytes(before)


@given(
    name=st.sampled_from(["config.json", "log.jsonl", "metrics.json", "failure.txt"]), at=st.integers(0, 5000),
    length=st.integers(0, 30), put=st.binary(max_size=8) | st.sampled_from([b"-1", b"null", b"{}", b"[]", b"1e999"]),
)  # fmt: skip
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_bytes_are_changed_it_is_read_or_named(folder, name, at, length, put):
    file = folder / "a" / name
    before = file.read_bytes() if file.exists() else b""
    at %= len(before) + 1
    file.write_bytes(before[:at] + put + before[at + length :])
    try:
        with warnings.catch_warnings(action="error"):
            everything(folder)
    except (UserError, DataError) as error:
        assert f"a/{name}" in str(error) or "holds a run of another configuration" in str(error)
    finally:
        file.write_bytes(before)


def test_a_number_that_is_more_than_a_float_is_named(tmp_path):
    """Of JSON's grammar, but Python reads an infinity, which no report could write again."""
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2.5}\n{"step": 2, "loss": 1e999}\n')
    with pytest.raises(DataError, match=r"log\.jsonl, line 2.*1e999 is more than a number can be"):
        logs.read(tmp_path)
