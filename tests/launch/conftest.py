"""What tests of launch/ share: tools that may be missing, and a clone whose program is a stand-in."""

import os
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tool():
    """tool(name) -> its path; skips where it is not installed."""

    def find(name):
        beside = Path(sys.executable).parent
        found = shutil.which(name, path=f"{beside}:{os.environ['PATH']}:/usr/sbin")
        return found or pytest.skip(f"{name} is not installed")

    return find


@pytest.fixture
def clone(tmp_path):
    """clone(program) -> a folder with the real launch/ and, as `jaxvpr.main`, a program of a test."""

    def make(program):
        folder = tmp_path / "clone"
        shutil.copytree(ROOT / "launch", folder / "launch")
        (folder / "jaxvpr").mkdir()
        (folder / "jaxvpr" / "__init__.py").touch()
        (folder / "jaxvpr" / "main.py").write_text(program)
        return folder

    return make
