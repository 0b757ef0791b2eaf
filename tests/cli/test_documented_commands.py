"""Every command that the pages print is one that the command line takes."""

import ast
import re
import runpy
import shlex
import subprocess
from pathlib import Path

import pytest

from jaxvpr.cli import missing, weight_source
from jaxvpr.cli.arguments import help_text, parse
from jaxvpr.cli.overrides import data_sets
from jaxvpr.cli.recipes import load_config, shipped

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"^(?: {4})?(?:python -m jaxvpr\.main|jaxvpr) +([^`#\n]*--config=[^`#\n]*)", re.M)
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
    "--config=my_sweep.py": "--config=sweeps/viewpoints.py",
    # What the commands read, in the folder that a test runs in.
    "=/data": "=data",
}
READ = re.compile(r"(?:root=|data=|--(?:images|database|queries)=)([^, ]+)")
RUNS = (
    "vit-city",
    "cosplace-city",
    "nordland-squeezenet",
    "cosplace-by-day",
    "pretrain-city",
    "netvlad-city",
    "netvlad-pitts30k",
)


def texts():
    """The pages, and what the recipes say of themselves."""
    yield from ((page.name, page.read_text()) for page in PAGES)
    for file in (*shipped(), *shipped("sweeps/")):
        yield Path(file).stem, ast.get_docstring(ast.parse((ROOT / file).read_text())).replace("\\\n", "")


def commands():
    for name, text in texts():
        for found in COMMAND.finditer(text):
            line = found[1]
            if "RECIPE" in line or "..." in line:
                continue
            for placeholder, value in FOR_EXAMPLE.items():
                line = line.replace(placeholder, value)
            yield pytest.param(shlex.split(line), id=f"{name}: {line.strip()[:70]}")


def test_the_tests_that_pages_name_are_there():
    there = {file.name for file in (ROOT / "tests").rglob("*.py")}
    for page in PAGES:
        assert set(re.findall(r"\btest_\w+\.py\b", page.read_text())) <= there, page.name


def test_there_are_commands():
    assert len(list(commands())) > 80


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
def test_a_printed_command_is_understood_and_names_all_that_it_reads(arguments, tmp_path, monkeypatch):
    """Where it names the folder of one data set, it says where all of them are."""
    monkeypatch.chdir(tmp_path)
    typed = " ".join(arguments) + " "
    for run in RUNS:
        (tmp_path / "runs" / run).mkdir(parents=True)
        (tmp_path / "runs" / run / "model.safetensors").touch()
    for file in re.findall(r"(?:init|weights|teacher)=(?:[\w-]+:)?([^,: ]+)[,: ]", typed):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    for name, package in weight_source.PACKAGES.items():  # as if they were installed
        folder = tmp_path / "site" / package / weight_source.FOLDERS.get(name, "models")
        folder.mkdir(parents=True)
        (tmp_path / "site" / package / "__init__.py").touch()
        (folder / "weights.pth").touch()
    monkeypatch.syspath_prepend(tmp_path / "site")
    command = parse(arguments)
    assert command.config.name
    named = READ.findall(typed) or ["data"]
    for _, spec in (pair for config in recipes_of(command) for pair in data_sets(config)):
        if any(Path(spec.root).is_relative_to(folder) for folder in named):
            Path(spec.root).mkdir(parents=True, exist_ok=True)
    for folder in named:
        Path(folder).mkdir(parents=True, exist_ok=True)
    missing.check(command)


def recipes_of(command):
    return [run.config for run in command.config.runs] if command.verb == "sweep" else [command.config]


def test_the_page_names_every_folder_that_a_preset_reads():
    page = (ROOT / "docs" / "data_formats.md").read_text().partition("## Where they lie")[2].partition("\n## ")[0]
    presets = [f"{file}:{preset}" for file in shipped() for preset in runpy.run_path(ROOT / file).get("PRESETS", ())]
    sets = [spec for name in presets for _, spec in data_sets(load_config(str(ROOT / name)))]
    roots = {Path(spec.root).relative_to("data") for spec in sets if spec.reader != "minicity" and spec.root != "data"}
    assert "presets `own`" in page, "whose photos lie in `data` itself"
    assert len(roots) > 20
    for root in roots:
        first, _, rest = str(root).partition("/")
        assert f"`{root}`" in page or (f"`{first}`" in page and rest.split("/")[-1] in page), root
