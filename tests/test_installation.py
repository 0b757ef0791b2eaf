"""What an installation gives: a package that is found wherever one stands, and nothing else of the checkout."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("configs", "data_pipelines", "jaxvpr")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """What a build takes of the checkout, in a folder named as a clone is: like the package."""
    folder = tmp_path_factory.mktemp("work") / "jaxvpr"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests").mkdir()
    (folder / "tests" / "__init__.py").touch()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def built(clone, kind, where):
    """The files of a wheel of that kind, unpacked as an installer does it."""
    where.mkdir()
    program = f"from setuptools import build_meta; build_meta.build_{kind}({str(where)!r})"
    done = subprocess.run([sys.executable, "-c", program], cwd=clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = where.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(where / "site")
        return where / "site", packed.namelist()


def test_the_package_is_found_from_the_folder_above_a_clone(clone, tmp_path):
    """There the clone itself is a folder `jaxvpr` without an `__init__.py`: a package, if no better one is found."""
    site, _ = built(clone, "editable", tmp_path / "built")
    program = f"import site; site.addsitedir({str(site)!r}); import {', '.join(PACKAGES)}; print(jaxvpr.__file__)"
    done = subprocess.run(  # without the environment's own packages, of which jaxvpr may be one
        [sys.executable, "-S", "-c", program], cwd=clone.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == clone / "jaxvpr" / "__init__.py"


def test_a_wheel_holds_the_three_packages(clone, tmp_path):
    _, names = built(clone, "wheel", tmp_path / "built")
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    modules = {str(file.relative_to(ROOT)) for package in PACKAGES for file in (ROOT / package).rglob("*.py")}
    assert modules == {name for name in names if name.endswith(".py")}
