"""What tests wait for that other processes do."""

import json
import time


def until(condition, seconds=30):
    """Waits until something holds, and returns it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def steps(folder):
    """The steps that the log of a run has."""
    log = folder / "log.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return [record["step"] for record in map(json.loads, lines) if "loss" in record]
