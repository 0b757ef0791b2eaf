"""Every command that the pages print is one that the command line takes."""

import re
import shlex
from pathlib import Path

import pytest

from jaxvpr.cli.arguments import parse

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"^(?:python -m jaxvpr\.main|jaxvpr) +([^`#\n]*--config=[^`#\n]*)", re.M)
# What a page leaves to the reader, and one that makes sense.
FOR_EXAMPLE = {
    "METHOD": "salad-dinov2b",
    ":SET": ":corridor",
    ".SET.": ".corridor.",
    "--config=FILE": "--config=zoo.py:sfrs",
    "--processes=N": "--processes=2",
    "--process=i": "--process=1",
    # Files that the pages add.
    "--config=pairs.py": "--config=cosplace.py",
    "--config=my_street.py": "--config=cosplace.py",
    "--config=my_sweep.py": "--config=sweeps/viewpoints.py",
}
RUNS = ("cosplace-city", "cosplace-by-day", "pretrain-city", "netvlad-city")


def commands():
    for page in PAGES:
        for found in COMMAND.finditer(page.read_text()):
            line = found[1]
            for placeholder, value in FOR_EXAMPLE.items():
                line = line.replace(placeholder, value)
            yield pytest.param(shlex.split(line), id=f"{page.name}: {line.strip()[:70]}")


def test_there_are_commands():
    assert len(list(commands())) > 30


@pytest.mark.parametrize("arguments", list(commands()))
def test_a_printed_command_is_understood(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for run in RUNS:
        (tmp_path / "runs" / run).mkdir(parents=True)
        (tmp_path / "runs" / run / "model.safetensors").touch()
    for file in re.findall(r"(?:init|weights)=([^,:/ ]+)[,: ]", " ".join(arguments) + " "):
        (tmp_path / file).touch()
    assert parse(arguments).config.name
