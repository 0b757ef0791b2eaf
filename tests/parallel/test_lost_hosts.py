"""A host that is killed: the others end in order, say who is gone and where a restart goes on."""

import re
import signal
import time

import pytest
from host_processes import records, start, train

pytestmark = pytest.mark.long


def until(condition, running, seconds=200):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end and all(host.poll() is None for host in running), "the hosts ended early"
        time.sleep(0.1)


@pytest.mark.parametrize("victim", [0, 1])
def test_the_others_end_within_a_minute_and_say_who_is_gone(victim, tiny_recipe, tmp_path, environment):
    folder = tmp_path / "run"
    many = f"--config={tiny_recipe},epochs=200,checkpoint.every_steps=2,eval.baselines=false,test_data={{}}"
    running = start(environment, 2, 1, [many, f"--workdir={folder}"])
    checkpoints = folder / "checkpoints"
    try:
        until(lambda: any(path.name.isdecimal() for path in checkpoints.glob("*")), running)
        running[victim].send_signal(signal.SIGKILL)
        began = time.monotonic()
        said = running[1 - victim].communicate(timeout=120)[0]
        took = time.monotonic() - began
    finally:
        for host in running:
            host.kill()
            host.communicate()
    assert running[1 - victim].returncode == 75 and "Check failure" not in said and "Traceback" not in said, said
    found = re.search(rf"error: process {victim} of 2 on \S+ is gone.* goes on from step (\d+), the last", said)
    assert found and took < 60, (took, said)
    assert int(found[1]) == max(int(path.name) for path in checkpoints.glob("*") if path.name.isdecimal())


def test_one_that_fails_alone_tells_the_others_why(tiny_recipe, tmp_path, environment):
    """Its status, where that is a mistake of the user: no launcher then starts it again."""
    both = [f"--config={tiny_recipe},epochs=1", f"--workdir={tmp_path / 'run'}"]
    for text in train(environment, 2, 1, both, "alone", status=2):
        assert "no such photo" in text and "Traceback" not in text, text


def test_a_late_host_is_waited_for_as_long_as_the_key_says(tiny_recipe, tmp_path, environment):
    both = [f"--config={tiny_recipe},epochs=1,hosts.wait=12", f"--workdir={tmp_path / 'run'}"]
    said = train(environment, 2, 1, both, "late", status=75)
    for text in said:
        assert re.search(r"the data set .*: process \[1\] of 2 did not come within 12 s", text), text
        assert "Traceback" not in text and "Check failure" not in text, text


def test_programs_are_kept_for_several_hosts(tiny_recipe, tmp_path, environment):
    """Also where one host has them and another compiles; the result is the same to the bit."""
    kept = {name: value for name, value in environment.items() if not name.startswith("JAX_COMPILATION")}
    own = [
        kept | {"XDG_CACHE_HOME": str(tmp_path / name), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        for name in ("shared", "empty")
    ]
    short = f"--config={tiny_recipe},epochs=1,eval.baselines=false,test_data={{}}"
    logs = []
    for number, homes in enumerate([(0, 0), (0, 0), (0, 1)]):
        folder = tmp_path / f"run {number}"
        train([own[home] for home in homes], 2, 1, [short, f"--workdir={folder}"])
        logs.append((records(folder), (folder / "model.safetensors").read_bytes()))
    kept = sum(1 for _ in (tmp_path / "shared").rglob("*-cache"))
    assert kept > 10 and not any((tmp_path / "empty").rglob("*-cache"))
    assert logs[1] == logs[0] and logs[2] == logs[0]
