"""Tests that cannot run for want of something: said in one line each at the end, and failures with `--all-there`."""

import importlib.util
import re
from collections import Counter

import pytest

# What a machine may lack all the same: it cannot be had from a package registry.
MAY_LACK = re.compile(r"real (data|weights) not found|libtpu|GPU|gcloud is not installed")


def pytest_addoption(parser):
    parser.addoption("--all-there", action="store_true", help="a test that lacks something to run with fails")


def pytest_runtest_setup(item):
    if item.get_closest_marker("torch") and importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")


def _fail_if_it_lacks(report, config):
    """With `--all-there`, a skip is a failure."""
    if report.skipped and config.option.all_there and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2]
        if not MAY_LACK.search(reason):
            report.outcome, report.longrepr = "failed", f"{reason}; with --all-there nothing may be missing"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return _fail_if_it_lacks((yield), item.config)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return _fail_if_it_lacks((yield), collector.config)


def pytest_terminal_summary(terminalreporter):
    """One line for each thing that was lacking: how much did not run for want of it."""
    tests, files = Counter(), Counter()
    for report in terminalreporter.stats.get("skipped", ()):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        module = re.search(r"could not import '(\w+)'", reason)
        kind = tests if "::" in report.nodeid else files
        kind[f"{module[1]} is not installed" if module else reason] += 1
    for reason in sorted(tests | files):
        counts = {"test": tests[reason], "whole file": files[reason]}
        what = " and ".join(f"{number} {name}{'s' * (number > 1)}" for name, number in counts.items() if number)
        terminalreporter.write_line(f"not run: {what}: {reason}")
