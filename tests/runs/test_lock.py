"""A folder has one run at a time, and a dead one does not block the next."""

import json
import os
import platform
import signal
import subprocess
import sys

import pytest

from jaxvpr.errors import UserError
from jaxvpr.runs import lock

HOLDS = """
import sys, time, pathlib
from jaxvpr.runs import lock
with lock.held(pathlib.Path(sys.argv[1])):
    print(1)
    time.sleep(99)
"""


def test_who_holds_a_folder_is_told_and_nothing_of_it_is_touched(refused, tiny_recipe, tmp_path):
    with lock.held(tmp_path):
        before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
        said = refused(f"--config={tiny_recipe}", f"--workdir={tmp_path}")
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert f"{tmp_path} is in use by process {os.getpid()} on {platform.node()} since 20" in said
    with lock.held(tmp_path):
        pass
    assert [file.name for file in tmp_path.iterdir()] == [lock.LOCK]


def test_a_sweep_holds_its_folder_too(refused, tmp_path):
    with lock.held(tmp_path):
        assert "is in use by process" in refused("sweep", "--config=configs/sweeps/losses.py", f"--workdir={tmp_path}")


def test_a_killed_process_holds_nothing(tmp_path):
    holder = subprocess.Popen([sys.executable, "-u", "-c", HOLDS, tmp_path], stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout.readline() == b"1\n"
        with pytest.raises(UserError, match=rf"\bprocess {holder.pid} on "), lock.held(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
    assert json.loads((tmp_path / lock.HOLDER).read_text())["process"] == holder.pid
    with lock.held(tmp_path):
        assert json.loads((tmp_path / lock.HOLDER).read_text())["process"] == os.getpid()


def test_of_another_host_nobody_knows_whether_it_is_dead_until_the_user_says_so(tmp_path):
    holder = tmp_path / lock.HOLDER
    holder.write_text('{"host": "node7", "process": 12, "since": "2026-11-27T10:00:00+00:00"}')
    said = r"process 12 on node7 since 2026-11-27T10.*\.run\.json says.*delete that file.*--workdir"
    for _ in range(2):
        with pytest.raises(UserError, match=said), lock.held(tmp_path):
            pass
    holder.unlink()
    with lock.held(tmp_path):
        assert holder.is_file()


def test_a_holder_cut_short_by_a_crash_holds_nothing(tmp_path):
    (tmp_path / lock.HOLDER).write_text("{")
    with lock.held(tmp_path):
        pass
