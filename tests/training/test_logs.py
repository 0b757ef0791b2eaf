"""The log: what a resumed run keeps of it, and what the console says."""

import json
import logging
from types import SimpleNamespace

import pytest

from data_pipelines import progress
from data_pipelines.errors import DataError
from jaxvpr.training import logs
from jaxvpr.training.logs import Log, Progress


def test_what_lies_beyond_the_checkpoint_is_cut(tmp_path):
    first = Log(tmp_path)
    first.write(0, {"loss": 1.5, "ok": True})
    kept = first.offset()
    first.write(1, {"loss": 1.25})
    first.close()
    whole = (tmp_path / "log.jsonl").read_bytes()
    assert kept == len(whole.splitlines(keepends=True)[0])

    again = Log(tmp_path, kept, 1)
    assert again.offset() == kept
    again.write(1, {"loss": 1.25})
    again.close()
    assert (tmp_path / "log.jsonl").read_bytes() == whole
    assert logs.read(tmp_path) == [{"step": 0, "loss": 1.5, "ok": True}, {"step": 1, "loss": 1.25}]
    assert logs.read(tmp_path / "elsewhere") == []


def test_a_log_that_was_cut_short_is_not_filled_up(tmp_path, caplog):
    (tmp_path / "log.jsonl").write_text('{"step": 0}\n')
    caplog.set_level(logging.WARNING, "jaxvpr")
    log = Log(tmp_path, 500, 9)
    log.write(9, {"loss": 2.0})
    log.close()
    assert [record["step"] for record in logs.read(tmp_path)] == [0, 9] and "is shorter than it was" in caplog.text


@pytest.mark.parametrize("junk", [b"{,\n", b'{"step": -1}\n', b'{"step": 0, "loss": "low"}\n', b"7\n", b"\xff\n"])
def test_junk_is_named_before_the_work_but_not_what_is_cut_anyway(tmp_path, junk):
    good = b'{"step": 0, "loss": 1.5}\n'
    (tmp_path / "log.jsonl").write_bytes(good + junk + good)
    for read in (lambda: logs.read(tmp_path), lambda: Log(tmp_path, len(good + junk), 1)):
        with pytest.raises(DataError, match=r"log\.jsonl, line 2\b.*Without the line"):
            read()
    Log(tmp_path, len(good), 1).close()
    assert (tmp_path / "log.jsonl").read_bytes() == good


def test_other_processes_write_nothing(tmp_path):
    log = Log(None)
    log.write(0, {"loss": 1.0})
    log.clock(0, {"steps_per_second": 3.0})
    assert log.offset() == 0
    log.close()
    assert not list(tmp_path.iterdir())


def test_the_clock_goes_to_the_board_alone(tmp_path):
    log = Log(tmp_path)
    log.clock(0, {"steps_per_second": 3.0})
    log.write(0, {"loss": 1.0})
    log.close()
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [
        {"step": 0, "loss": 1.0}
    ]
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"steps_per_second" in content and b"loss" in content


def test_rates_by_hand(monkeypatch, caplog):
    """Of 10 steps of 32 images in 5 seconds, one of them waited for; 90 more take 45 seconds."""
    now = SimpleNamespace(seconds=0.0)
    clock = SimpleNamespace(monotonic=lambda: now.seconds)
    monkeypatch.setattr(logs, "time", clock)
    monkeypatch.setattr(progress, "time", clock)
    caplog.set_level(logging.INFO, "data_pipelines")
    shown = Progress(100, 32, every=4.0)
    shown.waited(50)
    now.seconds = 100.0
    assert shown.step(0, 9.0) == {}, "the first step compiles: rates start after it"
    shown.waited(1)
    now.seconds = 102.0
    assert shown.step(4, 8.0) == {}, "two seconds are too few"
    assert not caplog.records
    now.seconds = 105.0
    rates = shown.step(10, 7.0)
    shown.close()
    assert rates == pytest.approx({"steps_per_second": 2, "images_per_second": 64, "data_wait_percent": 20})
    assert caplog.messages == ["step 10/100  loss 7.000  64 images/s  data wait 20%  0:45 left"]
