"""The launcher of one host: what is run again, what is not, and what a signal does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import until

RESTART = Path(__file__).resolve().parents[2] / "launch" / "restart.py"
# Ends with the statuses given, one a run; a negative one is a signal. Each run adds a line to a file.
PROGRAM = """
echo run >>runs
shift $(($(wc -l <runs) - 1))
case "$1" in -*) kill "$1" $$ ;; *) exit "$1" ;; esac
"""


def launch(folder, *arguments, pause="0", **options):
    command = [sys.executable, str(RESTART), f"--pause={pause}", *arguments]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize(
    ("statuses", "runs", "status"),
    [
        ((0,), 1, 0),
        ((75, 1, -signal.SIGKILL, 139, 0), 5, 0),
        ((75, 2, 0), 2, 2),
        ((130, 0), 1, 130),
        ((-signal.SIGINT, 0), 1, 130),
        ((127, 0), 1, 127),
        ((75, 1, 75, 75, 75, 1, 0), 6, 1),
        ((1, 1, 1, 1, 1, -signal.SIGSEGV, 0), 6, 139),
    ],
)
def test_what_passes_is_run_again_and_nothing_else(tmp_path, statuses, runs, status):
    host = launch(tmp_path, "--times=5", "--", "sh", "-c", PROGRAM, "sh", *map(str, statuses))
    said = host.communicate(timeout=60)[1]
    assert host.returncode == status and (f"ended with status {status}; is not" in said or not status), said
    assert len((tmp_path / "runs").read_text().splitlines()) == runs
    assert said.count("starts again") == runs - 1


def test_a_command_that_is_none_is_a_mistake(tmp_path):
    host = launch(tmp_path, "--", "no-such-program")
    assert "no-such-program: No such file" in host.communicate(timeout=60)[1] and host.returncode == 2


# Says that it is there, and on SIGTERM writes what a run would save.
SAVES = """
import pathlib, signal, sys, time
def leave(*_):
    pathlib.Path("saved").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, leave)
pathlib.Path("there").touch()
time.sleep(60)
"""


def test_told_to_stop_it_passes_that_on_and_is_done(tmp_path):
    host = launch(tmp_path, "--", sys.executable, "-c", SAVES)
    until((tmp_path / "there").exists)
    host.terminate()
    assert "as it was told to" in host.communicate(timeout=30)[1]
    assert host.returncode == 75 and (tmp_path / "saved").exists()


def test_told_to_stop_between_two_runs_it_starts_none(tmp_path):
    host = launch(tmp_path, "--", "sh", "-c", PROGRAM, "sh", "1", "0", pause="60")
    until((tmp_path / "runs").exists)
    assert "starts again in 60 s (1 of 10)" in host.stderr.readline()
    host.terminate()
    host.communicate(timeout=30)
    assert host.returncode == 1 and (tmp_path / "runs").read_text() == "run\n"


def test_ctrl_c_reaches_the_command_once(tmp_path):
    """A terminal sends it to both; the launcher must not send it again, which would end a run before it has saved."""
    counts = (
        "import pathlib, signal, time\nseen = []\nsignal.signal(signal.SIGINT, lambda *_: seen.append(1))\n"
        "pathlib.Path('there').touch()\nend = time.monotonic() + 1\nwhile time.monotonic() < end: time.sleep(0.05)\n"
        "pathlib.Path('seen').write_text(str(len(seen)))\nraise SystemExit(75)\n"
    )
    host = launch(tmp_path, "--", sys.executable, "-c", counts, process_group=0)
    until((tmp_path / "there").exists)
    os.killpg(host.pid, signal.SIGINT)
    host.communicate(timeout=30)
    assert host.returncode == 75 and (tmp_path / "seen").read_text() == "1"


FLAG = "--xla_gpu_enable_latency_hiding_scheduler=true"
PRINTS = "import os; print(os.environ.get('XLA_FLAGS'))"


@pytest.mark.parametrize(
    ("asked", "flags", "found"),
    [
        ("1", "--xla_cpu_enable_fast_math=false", f"--xla_cpu_enable_fast_math=false {FLAG}"),
        ("0", "--xla_cpu_enable_fast_math=false", "--xla_cpu_enable_fast_math=false"),
        ("1", FLAG.replace("true", "false"), FLAG.replace("true", "false")),
    ],
)
def test_overlap_is_a_flag_that_the_installed_xla_knows(tmp_path, asked, flags, found):
    environment = {**os.environ, "JAXVPR_OVERLAP": asked, "XLA_FLAGS": flags}
    host = launch(tmp_path, "--", sys.executable, "-c", PRINTS, stdout=subprocess.PIPE, env=environment)
    out, said = host.communicate(timeout=60)
    assert (out.strip(), said, host.returncode) == (found, "", 0)


def test_overlap_is_left_out_where_xla_does_not_know_the_flag(tmp_path):
    environment = {**os.environ, "JAXVPR_OVERLAP": "1", "XLA_FLAGS": "--xla_no_such_flag=1"}
    host = launch(tmp_path, "--", sys.executable, "-c", PRINTS, stdout=subprocess.PIPE, env=environment)
    out, said = host.communicate(timeout=60)
    assert out.strip() == "--xla_no_such_flag=1" and FLAG in said and "starts without it" in said
