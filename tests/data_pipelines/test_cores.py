"""How many cores a process may use, and how many threads read images where a recipe does not say."""

import os

import pytest

from data_pipelines import cores, loaders


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine on so many of whose cores a process may run, under a container's quota: machine(8, "150000 100000")."""

    def make(allowed, quota=""):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(allowed)), raising=False)
        monkeypatch.setattr(cores, "QUOTA", tmp_path / "cpu.max")
        if quota:
            cores.QUOTA.write_text(f"{quota}\n")

    return make


@pytest.mark.parametrize(
    ("allowed", "quota", "found"),
    [
        (8, "", 8),
        (8, "max 100000", 8),
        (8, "250000 100000", 2),
        (8, "50000 100000", 1),
        (2, "800000 100000", 2),
    ],
)
def test_cores_are_those_that_a_process_may_use(machine, allowed, quota, found):
    machine(allowed, quota)
    assert cores.cores() == found


def test_all_cores_where_the_system_does_not_say(machine, monkeypatch):
    machine(8)
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert cores.cores() == 5


@pytest.mark.parametrize(
    ("allowed", "threads", "workers", "found"),
    [
        (1, 0, 0, 1),
        (2, 0, 0, 2),
        (12, 0, 0, 12),
        (64, 0, 0, 16),
        (12, 0, 4, 3),
        (2, 0, 4, 1),
        (64, 3, 0, 3),
        (2, 5, 4, 5),
    ],
)
def test_threads_that_read_images(machine, allowed, threads, workers, found):
    machine(allowed)
    asked = {"threads": threads, "workers": workers, "prefetch": 4, "on_error": "skip"}
    assert loaders.loading_options(asked) == {"threads": found, "workers": workers, "prefetch": 4}
