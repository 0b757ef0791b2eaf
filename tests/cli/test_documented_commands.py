"""Every command that the pages print is one that the command line takes."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from jaxvpr.cli.arguments import help_text, parse

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


def test_a_shell_reads_every_command():
    """Brackets without quotes are a mistake to a shell."""
    sources = [*(ROOT / "configs").rglob("*.py"), *(ROOT / "jaxvpr" / "cli").glob("*.py")]
    lines = [line for page in (*PAGES, *sources) for line in page.read_text().splitlines() if "--config=" in line]
    command = re.compile(r"(?:^\s*|`)((?:python -m jaxvpr|jaxvpr (?!VERB))[^`#\"<]*)")
    typed = [found for line in lines for found in command.findall(line)]
    typed += [line for line in help_text().splitlines() if line.startswith("  '--config")]
    assert len(typed) > 60
    for line in typed:
        done = subprocess.run(["bash", "-n", "-c", line], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("arguments", list(commands()))
def test_a_printed_command_is_understood(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for run in RUNS:
        (tmp_path / "runs" / run).mkdir(parents=True)
        (tmp_path / "runs" / run / "model.safetensors").touch()
    for file in re.findall(r"(?:init|weights)=([^,:/ ]+)[,: ]", " ".join(arguments) + " "):
        (tmp_path / file).touch()
    assert parse(arguments).config.name
