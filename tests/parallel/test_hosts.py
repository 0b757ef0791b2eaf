"""The order of the hosts, with the barrier between them made visible, and the way out of one that fails alone."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jaxvpr.parallel import hosts


@pytest.fixture
def events(monkeypatch):
    seen = []
    monkeypatch.setattr(hosts, "barrier", lambda name: seen.append(f"barrier {name}"))
    return seen


@pytest.mark.parametrize("first", [True, False])
def test_the_first_makes_it_before_the_others_look(events, monkeypatch, first):
    monkeypatch.setattr(hosts, "is_first", lambda: first)
    assert hosts.first_then_others("city", lambda: events.append("made") or 7) == 7
    assert events == (["made", "barrier city"] if first else ["barrier city", "made"])


@pytest.mark.parametrize("first", [True, False])
def test_an_error_on_the_first_leaves_nobody_waiting(events, monkeypatch, first):
    monkeypatch.setattr(hosts, "is_first", lambda: first)

    def fails():
        raise OSError("no such folder")

    with pytest.raises(OSError, match="no such folder"):
        hosts.first_then_others("city", fails)
    assert events == ["barrier city"]


FAILS_ALONE = """
import sys, time
from jaxvpr import main as door
from jaxvpr.parallel import joining

port, me, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
joining.start(f"127.0.0.1:{port}", 2, me)


def command(arguments):
    if me == 0:
        time.sleep(90)
    if kind == "bug":
        raise RuntimeError("alone")
    return 2


door.main = command
door.console()
"""


@pytest.mark.parametrize(("kind", "status"), [("mistake", 2), ("bug", 1)])
def test_a_host_that_fails_alone_does_not_wait_for_the_others(kind, status):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "JAX_PLATFORMS": "cpu"}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", FAILS_ALONE, str(port), str(me), kind],
            env=environment, stderr=subprocess.PIPE, text=True,
        )
        for me in (0, 1)
    ]  # fmt: skip
    try:
        said = both[1].communicate(timeout=60)[1]
    finally:
        for process in both:
            process.kill()
            process.wait()
        both[0].stderr.close()
    assert both[1].returncode == status, said
    assert ("RuntimeError: alone" in said) == (kind == "bug")
