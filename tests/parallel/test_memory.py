"""A thread that allocates and frees 80 MB again and again gets the same pages, and no fresh ones from the kernel."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told")
ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import resource, sys, threading
import numpy as np
from jaxvpr.parallel import memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def work(counts):
    for _ in range(3):
        before = faults()
        np.ones(80 * 2**20, np.uint8)
        counts.append(faults() - before)

if sys.argv[1] != "leave":
    memory.keep_freed(anywhere=sys.argv[1] == "keep anywhere")
counts = []
thread = threading.Thread(target=work, args=(counts,))
thread.start()
thread.join()
print(*counts)
"""


def counts(how, platforms="cpu", plugins=ROOT):
    """Page faults of each of three rounds, where `JAX_PLATFORMS` is `platforms` and a folder `plugins` is installed."""
    environment = {**os.environ, "JAX_PLATFORMS": platforms, "PYTHONPATH": f"{ROOT}{os.pathsep}{plugins}"}
    command = [sys.executable, "-c", PROGRAM, how]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return [int(count) for count in done.stdout.split()]


@pytest.fixture
def accelerator(tmp_path):
    """A folder with a plugin of JAX for some accelerator, as a package of one is laid out."""
    (tmp_path / "jax_plugins" / "fake").mkdir(parents=True)
    return tmp_path


def test_freed_memory_is_kept(accelerator):
    """On a CPU that is asked for, whatever is installed besides."""
    first, *later = counts("keep", "cpu", accelerator)
    assert first > 10 * max(later)
    assert min(counts("leave")) > 10 * max(later)


@pytest.mark.parametrize("platforms", ["", "cuda,cpu", "fake"])
def test_nothing_changes_on_the_host_of_an_accelerator(platforms, accelerator):
    first, *later = counts("keep", platforms, accelerator)
    assert min(later) > first / 2


def test_it_can_be_kept_there_too(accelerator):
    first, *later = counts("keep anywhere", "", accelerator)
    assert first > 10 * max(later)


@pytest.mark.parametrize("plugin", ["jax_plugins", "libtpu"])
def test_without_a_plugin_it_is_a_cpu(plugin, monkeypatch, tmp_path):
    from jaxvpr.parallel import memory

    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr(memory, "find_spec", lambda name: None)
    assert memory._on_cpu()
    monkeypatch.setattr(memory, "find_spec", lambda name: name if name == plugin else None)
    assert not memory._on_cpu()
