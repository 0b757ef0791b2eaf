"""What a whole run shows on a terminal, and that it changes nothing that is kept."""

import os
import re
import threading
from contextlib import suppress

import pytest

from data_pipelines import progress

BARS = ("step ", "describing ")


@pytest.fixture
def terminal(monkeypatch):
    """A real terminal as stderr, on which all shows at once; a function that closes it and gives what was sent."""
    ours, theirs = os.openpty()
    stream = os.fdopen(theirs, "w")
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(progress, "AFTER", 0.0)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "120", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    sent = bytearray()
    reader = threading.Thread(target=_read, args=(ours, sent), daemon=True)  # else the run would wait for one
    reader.start()

    def read() -> str:
        stream.close()
        reader.join(20)
        return sent.decode()

    yield read
    stream.close()
    reader.join(20)
    os.close(ours)


def _read(terminal: int, sent: bytearray) -> None:
    with suppress(OSError):  # EIO where the other side was closed
        while part := os.read(terminal, 1 << 16):
            sent.extend(part)


def test_a_run_on_a_terminal_leaves_what_one_without_leaves(door, terminal, tiny_recipe, trained_run, tmp_path):
    run = tmp_path / "run"
    answer = door(f"--config={tiny_recipe}", f"--workdir={run}")
    shown = terminal()
    assert answer.status == 0 and answer.err == "", shown
    for file in ("log.jsonl", "model.safetensors"):
        assert (run / file).read_bytes() == (trained_run / file).read_bytes()
    assert all(bar in shown for bar in BARS) and "/12" in shown and "loss " in shown
    assert shown.count("\x1b[?25h") == shown.count("\x1b[?25l") > 0 and progress._live is None
    assert "\x1b" not in answer.out and not any(bar in answer.out for bar in BARS)
    assert re.search(r"^  cosplace-tiny +R@1 +[\d.]+ \([\d.]+-[\d.]+\)  R@5", answer.out, re.M)
