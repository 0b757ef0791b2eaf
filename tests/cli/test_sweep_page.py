"""docs/sweeps.md: the sweep file that it prints is valid, and its table of keys is complete."""

import re
from pathlib import Path

import pytest

from jaxvpr.cli import sweep_file

PAGE = (Path(__file__).parents[2] / "docs" / "sweeps.md").read_text()


@pytest.fixture
def example(tmp_path):
    """The file that the page tells its readers to save."""
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    file = tmp_path / "my_sweep.py"
    file.write_text(code)
    return file


def test_the_printed_file_asks_for_what_the_page_says(example):
    found = sweep_file.load(str(example))
    assert (found.name, found.rows, found.columns) == ("cell-by-margin", "cell", "margin")
    cells = {tuple(run.name.split("+")): run for run in found.runs}
    assert set(cells) == {(cell, margin) for cell in ("10m", "20m") for margin in ("0.0", "0.2", "0.4")}
    assert {key: (run.config.objective.partition.M, run.config.objective.margin) for key, run in cells.items()} == {
        (cell, margin): (float(cell[:-1]), float(margin)) for cell, margin in cells
    }
    seeds = [(run.folder, run.seed) for run in found.runs if run.name == "10m+0.2"]
    assert seeds == [("10m+0.2", 0), ("10m+0.2-seed1", 1), ("10m+0.2-seed2", 2)]
    assert len(found.runs) == 8, "the other five have one seed"


def test_the_printed_change_is_made_to_all_runs(example):
    (changes,) = set(re.findall(r"--config=my_sweep\.py(,\S+)", PAGE))
    assert changes == ",epochs=4"
    runs = sweep_file.load(f"{example}{changes}").runs
    assert {run.config.epochs for run in runs} == {4}
    assert {run.config.epochs for run in sweep_file.load(str(example)).runs} == {16}
    # A warm-up that is longer than the run is an error, but only when training begins.
    assert all(run.config.epochs * run.config.steps_per_epoch > run.config.optimizer.warmup for run in runs)


def test_every_key_is_explained():
    explained = {key for row in re.findall(r"^\| (`.+?) \|", PAGE, re.MULTILINE) for key in re.findall(r"`(\w+)`", row)}
    assert set(sweep_file.KEYS) <= explained
