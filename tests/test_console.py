"""What a whole run shows on a terminal, and that it changes nothing that is kept."""

import re

import pytest

from data_pipelines import progress

BARS = ("step ", "describing ")


@pytest.mark.long
def test_a_run_on_a_terminal_leaves_what_one_without_leaves(
    door, terminal, monkeypatch, tiny_recipe, trained_run, tmp_path
):
    run = tmp_path / "run"
    monkeypatch.setattr(progress, "AFTER", 0.0)  # everything shows
    close = terminal(NO_COLOR="1")
    answer = door(f"--config={tiny_recipe}", f"--workdir={run}")
    shown = close()
    assert answer.status == 0 and answer.err == "", shown
    for file in ("log.jsonl", "model.safetensors"):
        assert (run / file).read_bytes() == (trained_run / file).read_bytes()
    assert all(bar in shown for bar in BARS) and "/12" in shown and "loss " in shown
    assert shown.count("\x1b[?25h") == shown.count("\x1b[?25l") > 0 and progress._live is None
    assert "\x1b" not in answer.out and not any(bar in answer.out for bar in BARS)
    assert re.search(r"^  cosplace-tiny +R@1 +[\d.]+ \([\d.]+-[\d.]+\)\s+R@5", answer.out, re.M)
