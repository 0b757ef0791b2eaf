"""The log of a run: what a checkpoint knows of stays, what came after it goes, what was lost is not made up."""

import logging

from jaxvpr.training import logs
from jaxvpr.training.logs import Log, Progress


def written(folder, steps):
    log = Log(folder)
    for step in steps:
        log.write(step, {"loss": step / 2})
    log.close()


def test_resuming_cuts_what_the_checkpoint_does_not_know(tmp_path):
    log = Log(tmp_path)
    log.write(0, {"loss": 1.5})
    known = log.offset()
    log.write(1, {"loss": 1.25})
    log.close()
    resumed = Log(tmp_path, known, 1)
    assert resumed.offset() == known
    resumed.write(1, {"loss": 1.0})
    resumed.close()
    assert logs.read(tmp_path) == [{"step": 0, "loss": 1.5}, {"step": 1, "loss": 1.0}]


def test_a_log_that_lost_lines_is_not_filled_up(tmp_path, caplog):
    written(tmp_path, range(5))
    file = tmp_path / "log.jsonl"
    whole = file.stat().st_size
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:2]))
    with caplog.at_level(logging.WARNING, "jaxvpr"):
        resumed = Log(tmp_path, whole, 5)
    assert "log.jsonl is shorter than it was at step 5" in caplog.text
    resumed.write(5, {"loss": 2.5})
    resumed.close()
    assert [record["step"] for record in logs.read(tmp_path)] == [0, 1, 5]


def test_progress_speaks_of_the_time_since_it_last_spoke(monkeypatch, caplog):
    now = iter([0.0, 100.0, 104.0, 110.0])
    monkeypatch.setattr(logs.time, "monotonic", lambda: next(now))
    progress = Progress(total=120, images=8, every=10)
    with caplog.at_level(logging.INFO, "jaxvpr"):
        assert progress.step(1, 9.0) == {}, "the first step compiles"
        progress.waited(2.5)
        assert progress.step(11, 8.0) == {}, "too soon"
        rates = progress.step(21, 7.0)
    assert rates == {"steps_per_second": 2.0, "images_per_second": 16.0, "data_wait_percent": 25.0}
    (line,) = caplog.messages
    assert line == "step 21/120  loss 7.000  16 images/s  data wait 25%  0:50 left"
