"""How tests wait for what other processes do."""

import time


def until(condition, seconds=30):
    """Waits until something holds, and returns it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found
