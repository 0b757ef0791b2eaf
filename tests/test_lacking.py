"""What is missing is said, and counted as a failure where everything should be there."""

import importlib.util

import pytest

pytest_plugins = ["pytester"]
HOOKS = "from lacking import *\n"
TESTS = """
import pytest

@pytest.mark.torch
def test_parity():
    pass

def test_library():
    pytest.importorskip("no_such_library")

def test_photos():
    pytest.skip("real data not found at x")

def test_nothing_is_missing():
    pass
"""


@pytest.fixture
def project(pytester, monkeypatch):
    """A project of two files of tests in which much is missing, torch too."""
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == "torch" else found(name, *rest))
    pytester.makeini("[pytest]\nmarkers = torch")
    pytester.makeconftest(HOOKS)
    pytester.makepyfile(
        test_lacking_some=TESTS, test_lacking_whole="import pytest\npytest.importorskip('no_such_library')\n"
    )
    return lambda *flags: pytester.runpytest_inprocess("-q", *flags)


def test_each_thing_that_is_missing_is_one_line(project):
    done = project()
    done.assert_outcomes(passed=1, skipped=4)
    done.stdout.fnmatch_lines_random(
        [
            "not run: 1 test: torch is not installed",
            "not run: 1 test and 1 whole file: no_such_library is not installed",
            "not run: 1 test: real data not found at x",
        ]
    )


def test_with_all_there_only_what_no_registry_has_may_be_missing(project):
    done = project("--all-there", "--continue-on-collection-errors")
    done.assert_outcomes(passed=1, skipped=1, failed=1, errors=2)
    done.stdout.fnmatch_lines(["*torch is not installed; with --all-there nothing may be missing*"])
