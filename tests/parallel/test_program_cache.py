"""Compiled programs outlive the process that made them, within bounds, and nothing a run computes depends on them."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxvpr.parallel import program_cache

ROOT = Path(__file__).resolve().parents[2]
KEYS = (
    "jax_enable_compilation_cache",
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user without a cache yet, and JAX as it is for somebody who set none of its variables."""
    before = {key: jax.config.values[key] for key in KEYS}
    for key in KEYS:
        monkeypatch.delenv(key.upper(), raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    jax.config.update("jax_compilation_cache_dir", None)
    yield tmp_path
    for key, value in before.items():
        jax.config.update(key, value)


def now(key):
    return jax.config.values[key]


def test_programs_are_kept_in_the_users_cache(home):
    folder = program_cache.keep_programs()
    assert folder.parent == home / "cache" / "jaxvpr" / "compiled" and folder.is_dir()
    assert now("jax_compilation_cache_dir") == str(folder)
    assert now("jax_compilation_cache_max_size") == program_cache.LIMIT
    assert now("jax_persistent_cache_min_compile_time_secs") == program_cache.LEAST_SECONDS


def test_another_processor_has_a_folder_of_its_own(home, monkeypatch):
    folders = set()
    for flags in ("flags : sse avx", "flags : sse avx avx512", "Features : neon", "nothing of the kind"):
        (home / "cpuinfo").write_text(f"model name : x\n{flags}\n")
        monkeypatch.setattr(program_cache, "PROCESSORS", home / "cpuinfo")
        jax.config.update("jax_compilation_cache_dir", None)
        folders.add(program_cache.keep_programs())
    assert len(folders) == 4


def test_what_jax_was_told_stays(home, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_MAX_SIZE", "77")
    jax.config.update("jax_compilation_cache_max_size", 77)
    jax.config.update("jax_compilation_cache_dir", str(home / "mine"))
    assert program_cache.keep_programs() == home / "mine"
    assert now("jax_compilation_cache_dir") == str(home / "mine") and now("jax_compilation_cache_max_size") == 77
    jax.config.update("jax_enable_compilation_cache", False)
    jax.config.update("jax_compilation_cache_dir", None)
    assert program_cache.keep_programs() is None and now("jax_compilation_cache_dir") is None


def test_a_cache_that_cannot_be_written_is_none(home, caplog):
    (home / "cache").write_text("a file where the folder should be")
    assert program_cache.keep_programs() is None
    assert not now("jax_enable_compilation_cache")
    assert str(home / "cache") in caplog.text


def test_what_a_killed_process_left_is_dropped(home, monkeypatch):
    folder = program_cache.keep_programs()
    for name in ("whole-cache", "whole-atime", "cut-cache"):
        (folder / name).write_bytes(bytes(8))
    program_cache.keep_programs()
    assert {path.name for path in folder.iterdir()} - {".lockfile"} == {"whole-cache", "whole-atime"}
    # Without a bound JAX writes no times, and entries without one are whole.
    (folder / "unbounded-cache").write_bytes(bytes(8))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_MAX_SIZE", "-1")
    jax.config.update("jax_compilation_cache_max_size", -1)
    program_cache.keep_programs()
    assert (folder / "unbounded-cache").exists()


# A command that says how many programs it compiled, in the order of the arguments behind it.
COUNTED = """
import sys
import jax
compiled = []
def note(event, **_):
    if event.endswith("/cache_misses"):
        compiled.append(event)
jax.monitoring.register_event_listener(note)
from jaxvpr.main import main
status = main(sys.argv[1:])
print("compiled", len(compiled))
sys.exit(status)
"""


def compiled_by(home, *arguments):
    """How many programs a command compiles that the cache does not hold."""
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("JAX_COMPILATION", "JAX_PERSISTENT"))
    }
    environment = kept | {
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(home),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_NUMPY_DTYPE_PROMOTION": "standard",
    }
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, *map(str, arguments)],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "SIGILL" not in done.stderr and "persistent compilation cache" not in done.stderr
    return int(done.stdout.rpartition("compiled ")[2])


@pytest.mark.long
def test_a_second_start_compiles_nothing_and_computes_the_same(tiny_recipe, tmp_path):
    train = [f"--config={tiny_recipe}", "--config.epochs=1"]
    first = compiled_by(tmp_path, *train, f"--workdir={tmp_path / 'one'}")
    second = compiled_by(tmp_path, *train, f"--workdir={tmp_path / 'two'}")
    assert first > 10 and second == 0, (first, second)
    for name in ("log.jsonl", "model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    assert compiled_by(tmp_path, "evaluate", *train, f"--workdir={tmp_path / 'two'}") == 0
