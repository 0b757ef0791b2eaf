"""launch/tpu_pod.sh with a stand-in for the cloud: each of two machines is a folder, and Google's own gcloud reads the
command lines."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import until

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.long
# Lets the real gcloud read the arguments, which it does before it asks who is there; then does what the cloud would.
GCLOUD = """#!{python}
import os, pathlib, shutil, subprocess, sys
cloud, words = pathlib.Path({cloud!r}), sys.argv[1:]
real = subprocess.run([{real!r}, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL)
if "not currently have an active account" not in real.stderr:
    sys.exit("gcloud refuses " + repr(words) + ": " + real.stderr)
flags = dict(word[2:].split("=", 1) for word in words if word.startswith("--") and "=" in word)
plain = [word for word in words if not word.startswith("--")]
with (cloud / "calls").open("a") as calls:
    print(*plain[2:4], *sorted(words[4:]) if "create" in words else "", sep="|", file=calls)
states = (cloud / "states").read_text().split()
if "describe" in words:
    if states[0] == "NONE":
        sys.exit("not found")
    print(states[0])
    if len(states) > 1 and states[1] != "NONE":
        (cloud / "states").write_text(" ".join(states[1:]))
elif {{"create", "delete"}} & set(words):
    (cloud / "states").write_text(" ".join(states[1:]))
elif "scp" in words:
    source, (name, _, path) = plain[4], plain[5].partition(":")
    for worker in ("worker0", "worker1"):
        shutil.copy(source, cloud / worker / path)
elif "ssh" in words:
    for worker in ("worker0", "worker1"):
        home = {{"HOME": str(cloud / worker), "WORKER": worker, "PATH": f"{{cloud}}/bin:/usr/bin:/bin"}}
        subprocess.run(["bash", "-c", flags["command"]], cwd=cloud / worker, env=os.environ | home, check=True)
"""
# The Python of a machine: notes what is installed, and makes a virtual environment of the test's own Python.
REMOTE_PYTHON = """#!/usr/bin/env bash
echo "$*" >>"$HOME/python"
case "$*" in "-m uv venv"*) mkdir -p .venv/bin && ln -sf {python} .venv/bin/python ;; esac
"""
PROGRAM = """
import os, pathlib, sys, time
pathlib.Path("started").write_text(repr(sys.argv[1:]))
time.sleep(100)
"""


@pytest.fixture
def cloud(tool, clone, tmp_path, monkeypatch):
    """cloud(states) -> runs the script in a cloud whose queued resource has these states, one after another: `create`
    and `delete` go to the next."""
    real, folder = tool("gcloud"), tmp_path / "cloud"
    for name in ("bin", "worker0", "worker1"):
        (folder / name).mkdir(parents=True)
    for name, text in {
        "gcloud": GCLOUD.format(python=sys.executable, cloud=str(folder), real=real),
        "python3": REMOTE_PYTHON.format(python=sys.executable),
    }.items():
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    here = clone(PROGRAM)
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=x", "-c", "user.email=x", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=here, check=True)
    monkeypatch.setenv("PATH", f"{folder}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "nobody"))  # no account of whoever runs the tests

    def run(states, *arguments, **environment):
        (folder / "states").write_text(states)
        (folder / "calls").unlink(missing_ok=True)
        settings = {"PROJECT": "p", "ZONE": "us-central2-b", "TYPE": "v4-16", "WAIT": "0"}
        return subprocess.run(
            [here / "launch" / "tpu_pod.sh", *arguments], env=os.environ | settings | environment,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    run.folder = folder
    yield run
    for worker in ("worker0", "worker1"):
        if (pid := folder / worker / "jaxvpr" / "pid").exists():
            subprocess.run(["kill", "-TERM", pid.read_text().strip()], check=False)


def test_a_pod_is_asked_for_and_the_run_started_on_all_its_machines(cloud):
    arguments = ["pod", "--config=configs/cosplace.py,image.size=(48,48)", "--workdir=/mnt/it's a run"]
    done = cloud("NONE WAITING_FOR_RESOURCES ACTIVE", *arguments, CREATE="--spot", SETUP="touch mounted")
    assert done.returncode == 0, done.stderr
    calls = (cloud.folder / "calls").read_text().splitlines()
    assert [call.split("|")[:2] for call in calls if "describe" not in call] == [
        ["queued-resources", "create"], ["tpu-vm", "scp"], ["tpu-vm", "ssh"]
    ]  # fmt: skip
    (create,) = [call for call in calls if "create" in call]
    assert {"--spot", "--node-id=pod", "--accelerator-type=v4-16"} <= set(create.split("|"))
    for worker in ("worker0", "worker1"):
        home = cloud.folder / worker
        started = until((home / "jaxvpr" / "started").exists) and (home / "jaxvpr" / "started").read_text()
        assert started == repr([*arguments[1:], "--coordinator=auto"])
        assert (home / "mounted").exists()
        assert "-m uv pip install --quiet --editable .[tpu]" in (home / "python").read_text()

    # The same command again finds the pod and the run.
    again = cloud("ACTIVE", *arguments)
    assert again.returncode == 0 and again.stdout.count("it runs already") == 2, again.stderr


def test_a_pod_that_was_taken_away_is_asked_for_again(cloud):
    done = cloud("SUSPENDED NONE FAILED", "pod", "--config=x")
    assert done.returncode == 75 and "pod is FAILED; the same command asks for it again" in done.stderr, done
    words = (cloud.folder / "calls").read_text()
    assert words.index("delete") < words.index("create") and "ssh" not in words


def test_what_is_missing_is_said(cloud):
    assert "usage:" in cloud("NONE", "pod").stderr
    done = cloud("NONE", "pod", "--config=x", ZONE="")
    assert done.returncode != 0 and "ZONE: the zone" in done.stderr
