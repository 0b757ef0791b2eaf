"""Simulated hosts: started together, ended together, and with a launcher each, started again."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

SIMULATOR = Path(__file__).resolve().parents[2] / "launch" / "simulate_hosts.py"
pytestmark = pytest.mark.long
FIRST_LINES = """
import os, pathlib, signal, sys, time
me = int(sys.argv[-1].removeprefix("--process="))
"""


@pytest.fixture
def simulate(tmp_path):
    """simulate(program, *flags) -> how the hosts of a program that stands for `jaxvpr.main` end."""

    def run(program, *flags):
        main = tmp_path / "jaxvpr" / "main.py"
        main.parent.mkdir()
        main.with_name("__init__.py").touch()
        main.write_text(FIRST_LINES + program)
        command = [sys.executable, str(SIMULATOR), "--hosts=2", *flags, "--", "--config=x"]
        return subprocess.run(
            command, env={**os.environ}, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
        )

    return run


def test_it_starts_hosts_and_ends_those_left_behind(simulate):
    """One host that fails takes the other with it: it would wait for ever, and SIGTERM only asks it to save."""
    began = time.monotonic()
    done = simulate(
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(sys.argv[1:], os.environ['XLA_FLAGS'], flush=True)\n"
        "if me == 1: sys.exit(3)\n"
        "time.sleep(90)\n",
        "--devices=3",
    )
    assert done.returncode == 3 and time.monotonic() - began < 60
    for host in (0, 1):
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"[host {host}] ")]
        assert f"'--process={host}'" in line and "'--processes=2'" in line and "'--config=x'" in line
        assert "device_count=3" in line


def test_hosts_that_fail_alike_all_say_so(simulate):
    done = simulate("time.sleep(me)\nprint('no such key', flush=True)\nsys.exit(2)\n")
    assert done.returncode == 2
    assert sorted(done.stdout.splitlines()) == ["[host 0] no such key", "[host 1] no such key"]


def test_a_host_that_is_killed_comes_back(simulate, tmp_path):
    """The other one sees that and comes back too; both then end well."""
    program = (
        "there = pathlib.Path(f'there {me}')\n"
        "if there.exists(): sys.exit(0)\n"
        "there.touch()\n"
        "if me == 1: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.exit(75)\n"
    )
    done = simulate(program, "--restarts=2", "--pause=1")
    assert done.returncode == 0
    for host, status in ((0, 75), (1, 137)):
        assert f"[host {host}] restart.py: ended with status {status}; starts again in 1 s (1 of 2)" in done.stdout


def test_hosts_and_launchers_are_killed_together(simulate, tmp_path):
    """A host that hangs, below its launcher, outlives neither."""
    program = "pathlib.Path(f'pid {me}').write_text(str(os.getpid()))\ntime.sleep(90)\n"
    done = simulate(program, "--restarts=2", "--timeout=4")
    assert done.returncode == 1
    for host in (0, 1):
        left = Path("/proc", (tmp_path / f"pid {host}").read_text(), "cmdline")
        assert not left.exists() or not left.read_bytes()  # gone, or a zombie that nobody has waited for
