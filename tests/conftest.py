"""Settings that every test shares: eight simulated CPU devices, strict promotion, warnings as errors."""

import gc
import logging
import os
import threading
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
# What takes time here is compiling: it is done without most optimisations, unless this says 0, as .ci/run does for
# parity, resume and benchmarks. The flag halves it again. XLA ends a process over a flag that it does not know, as that
# of jaxlib 0.11 does with this one.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1" and version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", "-1")

import cv2
import jax
import numpy as np
import pytest
from lacking import (  # noqa: F401 (pytest finds its hooks here)
    pytest_addoption,
    pytest_make_collect_report,
    pytest_runtest_makereport,
    pytest_runtest_setup,
    pytest_terminal_summary,
)

from jaxvpr.cli.recipes import load_config
from jaxvpr.main import LOGGERS, main

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images beside the project; skips where it is absent."""
    folder = Path(os.environ.get("JAXVPR_REAL_DATA", SHARED / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder}; set JAXVPR_REAL_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """The folder of real weights beside the project; skips where it is absent."""
    folder = SHARED / "weights"
    if not folder.is_dir():
        pytest.skip(f"real weights not found at {folder}")
    return folder


@pytest.fixture(scope="session")
def quick_compiling() -> dict[str, str]:
    """The variables of processes that compile without most optimisations, whatever this one does."""
    flag = " --xla_cpu_use_fusion_emitters=false" * version("jaxlib").startswith("0.10.")
    return {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XLA_FLAGS": os.environ["XLA_FLAGS"].replace(flag, "") + flag}


@pytest.fixture(scope="session")
def photo_tree(tmp_path_factory) -> Path:
    """A tiny data set in the standard tree: 5 x 5 places 30 m apart, each with its own pattern, 32x32 JPEGs."""
    root = tmp_path_factory.mktemp("photos")
    parts = {"train": 3, "val/database": 1, "val/queries": 1, "test/database": 2, "test/queries": 1}
    noise = np.random.default_rng(0)
    for part, images in parts.items():
        (root / "images" / part).mkdir(parents=True)
        for x in range(5):
            for y in range(5):
                pattern = np.random.default_rng([x, y]).integers(0, 255, (4, 4, 3), dtype=np.uint8)
                for number in range(images):
                    east, north = 300_000 + 30 * x + noise.uniform(0, 8), 5_000_000 + 30 * y + noise.uniform(0, 8)
                    name = f"@{east:.2f}@{north:.2f}@33@U@@@{x}{y}{number}@@{10 + 30 * (x % 2):03d}@@@@2013@day_x@.jpg"
                    image = cv2.resize(pattern, (32, 32), interpolation=cv2.INTER_CUBIC) + noise.normal(
                        0, 25, (32, 32, 3)
                    )
                    cv2.imwrite(str(root / "images" / part / name), image.clip(0, 255).astype(np.uint8))
    return root


@pytest.fixture(scope="session")
def drive_tree(tmp_path_factory) -> Path:
    """Drives along one street of 24 stops, 8 m apart, as images in a table: two passes of the database and one of
    queries to train on, and one of each to validate and to test. Each stop has its own pattern; 32x32 JPEGs."""
    root = tmp_path_factory.mktemp("drives")
    noise, lines = np.random.default_rng(0), ["path,east,north,heading,sequence,frame,role,split"]
    parts = [("train", "database"), ("train", "database"), ("train", "query")]
    parts += [(split, role) for split in ("val", "test") for role in ("database", "query")]
    for sequence, (split, role) in enumerate(parts):
        for stop in range(24):
            pattern = np.random.default_rng(stop).integers(0, 255, (4, 4, 3), dtype=np.uint8)
            image = cv2.resize(pattern, (32, 32), interpolation=cv2.INTER_CUBIC) + noise.normal(0, 25, (32, 32, 3))
            name = f"{sequence}_{stop:02d}.jpg"
            cv2.imwrite(str(root / name), image.clip(0, 255).astype(np.uint8))
            east, north = 8 * stop + noise.uniform(0, 2), noise.uniform(0, 2)
            lines.append(f"{name},{east:.2f},{north:.2f},90,drive{sequence},{stop},{role},{split}")
    (root / "drives.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


RECIPE = """
from ml_collections import ConfigDict
from configs import common, cosplace


def get_config(preset=""):
    config = cosplace.get_config("tiny").unlock()
    config.city = ConfigDict({{}})
    config.model.backbone_options.update(widths=(8, 16, 16, 16), cut="layer2")
    for group, split in (("val_data", "val"), ("test_data", "test")):
        config[group] = ConfigDict({{split: common.data("at_names", {root!r}, split)}})
    config.train_data = common.data("at_names", {root!r}, "train")
    config.objective.partition.min_images = 2
    config.eval.recalls = (1, 5, 10)
    config.eval.batch = 16
    config.epochs, config.steps_per_epoch, config.batch = 2, 6, 8
    return config.lock()
"""


@pytest.fixture(scope="session")
def tiny_recipe(photo_tree, tmp_path_factory) -> Path:
    """A recipe file: the preset `tiny`, half as deep, on `photo_tree`; two groups, two epochs of six steps."""
    file = tmp_path_factory.mktemp("recipes") / "tiny.py"
    file.write_text(RECIPE.format(root=str(photo_tree)))
    return file


@pytest.fixture
def tiny_config(tiny_recipe):
    """The configuration of `tiny_recipe`."""
    return load_config(str(tiny_recipe))


class Answer(NamedTuple):
    """What a command answered: its status and what it printed."""

    status: int
    out: str
    err: str


@contextmanager
def console():
    """Leaves the program's loggers as they were: `main` binds them to the stderr of the moment."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(log.handlers, log.propagate, log.level) for log in loggers]
    try:
        yield
    finally:
        for log, (handlers, propagate, level) in zip(loggers, before, strict=True):
            log.handlers, log.propagate = handlers, propagate
            log.setLevel(level)


@pytest.fixture
def terminal(monkeypatch):
    """A real terminal as stderr. terminal(**environment) -> a function that closes it and returns what was sent to it.

    To be called in the test itself: pytest sets a stderr of its own between fixtures and test.
    """
    ours, theirs = os.openpty()
    stream, sent = os.fdopen(theirs, "w"), bytearray()

    def read() -> None:
        with suppress(OSError):  # EIO where the other side was closed
            while part := os.read(ours, 1 << 16):
                sent.extend(part)

    reader = threading.Thread(target=read, daemon=True)  # a terminal that nobody reads makes writers wait
    reader.start()

    def close() -> str:
        stream.close()
        reader.join(20)
        return sent.decode()

    def make(**environment):
        for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {"TERM": "xterm-256color", "COLUMNS": "80", **environment}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.stderr", stream)
        return close

    yield make
    close()
    os.close(ours)


@pytest.fixture(autouse=True)
def quiet_again():
    """A program that a test runs leaves the loggers to the next one as they were."""
    with console():
        yield


@pytest.fixture
def door(capsys):
    """`jaxvpr ARGUMENTS` in this process: door(*arguments) -> Answer."""

    def run(*arguments) -> Answer:
        capsys.readouterr()
        with console(), jax.numpy_dtype_promotion("standard"):
            status = main([str(argument) for argument in arguments])
        return Answer(status, *capsys.readouterr())

    return run


@pytest.fixture
def refused(door):
    """A command that must be refused: refused(*arguments) -> what it said, one line a kind of mistake."""

    def run(*arguments) -> str:
        status, _, err = door(*arguments)
        assert status == 2 and "error: " in err and "Traceback" not in err, err
        return err.partition("error: ")[2]

    return run


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory, worker_id) -> Path:
    """The folder of compiled programs that the tests of this worker and the processes they start share.

    It is the worker's own, since JAX writes its entries without a lock. Where JAX_COMPILATION_CACHE_DIR is set they
    lie below it and are found again the next time.
    """
    kept = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    folder = Path(kept, worker_id) if kept else tmp_path_factory.mktemp("compiled")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def survivors():
    """Collecting garbage looks at what a file of tests makes, not at all that the files before it left in JAX's caches:
    a second each time, and reading a checkpoint collects it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def trained_run(tiny_recipe, tmp_path_factory) -> Path:
    """The folder of a finished run of `tiny_recipe`; tests read it, or copy it before they change it."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    with console(), jax.numpy_dtype_promotion("standard"):
        assert main([f"--config={tiny_recipe}", f"--workdir={folder}"]) == 0
    return folder
