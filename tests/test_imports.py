"""Who may import whom (docs/architecture.md), and which library stands in one or two files alone."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(file for room in ("jaxvpr", "data_pipelines", "configs") for file in (ROOT / room).rglob("*.py"))
# Each room, from the ground up, and the rooms that it may import beside itself; `errors` may be imported by all.
BELOW = {
    "models": set(),
    "losses": {"models"},
    "parallel": set(),
    "weights": {"models"},
    "retrieval": {"models", "parallel"},
    "mining": {"retrieval", "parallel"},
    "fitting": {"retrieval", "models", "parallel"},
    "objectives": {"mining", "retrieval", "losses", "models"},
    "training": {"objectives", "retrieval", "models", "parallel"},
    "reports": {"retrieval"},
    "cli": {"training", "models"},  # JAX is not imported: of `training` only what says which measure decides
    "builders": {"cli", "fitting", "retrieval", "weights", "models", "parallel"},
    "runs": {"builders", "training", "cli", "fitting", "retrieval", "weights", "models", "parallel"},
    "families": {"runs", "builders", "training", "objectives", "mining", "retrieval", "models", "parallel"},
    "verbs": {
        "families", "runs", "builders", "training", "cli", "reports", "retrieval", "weights", "models", "parallel",
    },
    "model": {"runs", "builders", "models", "parallel"},
    "main": {"verbs", "runs", "cli", "parallel"},
    "__init__": {"model"},
    "errors": set(),
}  # fmt: skip
READS_DATA = set(BELOW) - {"models", "losses", "parallel", "errors", "__init__"}
# Rooms that read a recipe, and the loop, which does too: below them there are plain values.
READS_CONFIG = {"cli", "builders", "families", "runs", "verbs", "model"}
LOOP = {f"jaxvpr/training/{name}.py" for name in ("loop", "settings")}
OUTSIDE = {
    "models": {"jax", "flax", "numpy"},
    "losses": {"jax", "flax", "numpy"},
    "parallel": {"jax", "numpy", "filelock"},
}
ALONE = {
    "orbax": {"jaxvpr/training/checkpoint.py", "jaxvpr/training/items.py"},
    "tensorboardX": {"jaxvpr/training/logs.py"},
    "jinja2": {"jaxvpr/reports/render.py"},
    "rich": {"data_pipelines/progress.py", "jaxvpr/reports/terminal.py"},
    "faiss": {f"jaxvpr/{name}.py" for name in ("retrieval/search", "fitting/clusters", "fitting/pca")},
    "torch": {"jaxvpr/weights/files.py"},
    "fsspec": {"data_pipelines/image_bytes.py"},
    "array_record": {"data_pipelines/records/shards.py"},
    "tensorflow_datasets": {"data_pipelines/records/builder.py"},
    "simplejpeg": {"data_pipelines/images.py"},
    "scipy": {
        "data_pipelines/near_batches.py",
        "data_pipelines/place_table.py",
        "jaxvpr/reports/sweep_tables.py",
        "jaxvpr/retrieval/positives.py",
        "jaxvpr/retrieval/recall.py",
    },
    "safetensors": {"jaxvpr/weights/safetensor_files.py"},
}
DEPRECATED = ("jax.pmap", "jax.experimental.pjit", "jax.experimental.shard_map")
IMPORTS = (ast.Import, ast.ImportFrom)
STANDARD = set(sys.stdlib_module_names)


def imports(file: Path) -> set[str]:
    """Dotted names that a file imports, each with what it takes from there: `from a.b import c` gives a.b.c."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide the direction"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def attributes(file: Path) -> set[str]:
    """Dotted expressions such as jax.experimental.pjit."""
    return {ast.unparse(node) for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute)}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_directions(file):
    where = file.relative_to(ROOT)
    package, room = where.parts[0], where.parts[1].removesuffix(".py")
    named = imports(file)
    ours = {name.split(".")[1] for name in named if name.startswith("jaxvpr.")}
    libraries = {name.split(".")[0] for name in named} - STANDARD - {"__future__", "jaxvpr"}
    if package == "data_pipelines":
        assert not ours and not libraries & {"jax", "flax", "optax", "orbax", "ml_collections"}
    elif package == "configs":
        assert not ours and libraries <= {"ml_collections", "configs"}
    else:
        assert ours <= BELOW[room] | {room, "errors"}, f"{where} looks up"
        assert libraries <= OUTSIDE.get(room, libraries)
        assert "data_pipelines" not in libraries or room in READS_DATA
        assert "ml_collections" not in libraries or room in READS_CONFIG or where.as_posix() in LOOP


def test_every_room_has_a_rule_and_every_rule_a_room():
    rooms = {
        path.stem for path in (ROOT / "jaxvpr").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert rooms == set(BELOW)


def test_the_page_on_architecture_has_every_room_and_names_files_that_exist():
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = page[page.index("| room |") : page.index("A ConfigDict is read")]
    missing = [
        room for room in BELOW if room != "__init__" and f"`jaxvpr/{room}" not in table and f"`{room}" not in table
    ]
    assert not missing
    rooms = [ROOT, ROOT / "jaxvpr", ROOT / "jaxvpr" / "training"]  # walks name files from one of these
    for name in set(re.findall(r"`([\w/]+\.py)(?::\w+)?`", page)):
        assert any((room / name).is_file() for room in rooms), name


@pytest.mark.parametrize("library", ALONE)
def test_each_library_in_the_files_that_are_its_own(library):
    users = {f.relative_to(ROOT).as_posix() for f in FILES if library in {n.split(".")[0] for n in imports(f)}}
    assert users == ALONE[library]


def test_scipy_is_imported_where_it_is_used_since_it_takes_a_second():
    for file in ALONE["scipy"]:
        at_the_top = ast.Module([n for n in ast.parse((ROOT / file).read_text()).body if isinstance(n, IMPORTS)], [])
        assert "scipy" not in ast.unparse(at_the_top), file


def test_torch_is_imported_by_nobody_who_does_not_train():
    """Not by way of tensorboardX either, which imports it where it is installed: that takes seconds."""
    program = "import sys; from jaxvpr import model; from jaxvpr.verbs import localize, train; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    assert "jaxvpr.training.logs" in done.stdout.split()
    assert not {"tensorboardX", "torch"} & set(done.stdout.split())


def test_text_is_read_and_written_in_an_encoding_that_is_said():
    """Without one the locale of the moment decides, and in that of `C` a name with an umlaut ends the program."""
    for file in FILES:
        for call in (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func).rpartition(".")
            text = name[2] in ("read_text", "write_text") or (name[2] == "open" and name[0] not in ("Image", "os"))
            binary = any(isinstance(one, ast.Constant) and "b" in str(one.value) for one in call.args)
            said = any(key.arg in ("encoding", None) for key in call.keywords) or (name[2] == "read_text" and call.args)
            assert not text or binary or said, f"{file}:{call.lineno}: {ast.unparse(call)}"


def test_no_deprecated_api():
    programs = [*FILES, *(file for room in ("tests", "launch", "benchmarks") for file in (ROOT / room).rglob("*.py"))]
    for file in programs:
        used = {name for name in imports(file) | attributes(file) if name.startswith(DEPRECATED)}
        assert not used, f"{file}: {used}"


def test_the_parser_sees_what_it_must(tmp_path):
    file = tmp_path / "x.py"
    file.write_text("import a.b\nfrom jax.experimental import pjit\ndef f():\n    from c import d\n    jax.pmap(f)\n")
    assert imports(file) == {"a.b", "jax.experimental.pjit", "c.d"}
    assert "jax.pmap" in attributes(file)
