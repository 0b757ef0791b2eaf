"""A run in the background: its folder, its console, a mistake that shows at once, and its end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import until

pytestmark = pytest.mark.long
PROGRAM = """
import pathlib, signal, sys, time
if "--config=no" in sys.argv:
    print("error: no such recipe", file=sys.stderr)
    sys.exit(2)
def leave(*_):
    pathlib.Path("saved").write_text(" ".join(sys.argv[1:]))
    sys.exit(75)
signal.signal(signal.SIGTERM, leave)
print("it trains", flush=True)
time.sleep(100)
"""


@pytest.fixture
def start(clone, tmp_path):
    folder = clone(PROGRAM)

    def run(*arguments):
        """From another folder, as somebody might."""
        return subprocess.run(
            [folder / "launch" / "workstation.sh", *arguments], cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "PYTHON": sys.executable}, timeout=60, check=False,
        )  # fmt: skip

    run.folder = folder
    return run


def test_a_run_in_the_background(start):
    work = start.folder / "runs" / "one"
    arguments = ["--config=x.py", "--workdir=runs/one", "--config.objective.name=a b"]
    began = start(*arguments)
    assert began.returncode == 0 and "follow it with: tail -f runs/one/console.log" in began.stdout, began
    until(lambda: "it trains" in (work / "console.log").read_text())
    again = start(*arguments)
    assert again.returncode == 2 and "a run is going on in runs/one already" in again.stderr
    pid = int((work / "pid").read_text())
    os.kill(pid, 15)
    until(lambda: not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes())
    assert (start.folder / "saved").read_text() == " ".join(arguments)
    assert "ended with status 75, as it was told to" in (work / "console.log").read_text()


def test_a_mistake_shows_at_once(start):
    done = start("--config=no", "--workdir=runs/no")
    assert done.returncode == 2 and "error: no such recipe" in done.stderr and done.stdout == ""
    done = start("--config=x.py")
    assert done.returncode == 2 and "usage:" in done.stderr
