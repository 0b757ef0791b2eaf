"""Names of files are bytes: those that are no UTF-8, that a locale of `C` cannot say, or as long as a system takes."""

import csv
import os
import shutil
import subprocess
import sys

import pytest

from data_pipelines.own_files import NAMES

PROGRAM = "import sys; from jaxvpr.main import main; sys.exit(max(main(part.split('\\t')) for part in sys.argv[1:]))"


@pytest.fixture
def photos(photo_tree, tmp_path):
    """Six photos: Latin-1, UTF-8 and 255 bytes long, twice: for the database and as queries."""
    for part in ("database", "queries"):
        (tmp_path / part).mkdir()
        for row, note in enumerate((b"caf\xe9", "café".encode(), b"")):
            photo = sorted((photo_tree / "images" / "test" / part).iterdir())[row]
            name = os.fsencode(photo.name).replace(b"day_x", b"day_" + note)
            name = name if note else name[:-4] + b"x" * (255 - len(name)) + name[-4:]
            shutil.copy(photo, tmp_path / part / os.fsdecode(name))
    return tmp_path


def commands(recipe, run, photos):
    model = [f"--config={recipe},eval.recalls=(1,)", f"--workdir={run}"]
    folders = [f"--database={photos / 'database'}", f"--queries={photos / 'queries'}", f"--out={photos / 'measured'}"]
    extract = ["extract", *model, f"--images={photos / 'database'}", f"--out={photos / 'db.npy'}"]
    localize = ["localize", *model, f"--images={photos / 'queries'}", f"--database={photos / 'db.npy'}"]
    return [extract, [*localize, f"--out={photos / 'found'}"], ["evaluate", *model, *folders]]


def assert_complete(photos):
    with (photos / "found" / "predictions.csv").open(newline="", **NAMES) as stream:
        rows = list(csv.DictReader(stream))
    for part, column in (("database", "path"), ("queries", "query")):
        assert {row[column] for row in rows} == {str(file) for file in (photos / part).iterdir()}
    pictures = sorted(picture.name for picture in (photos / "found").glob("*.png"))
    assert [picture[:5] for picture in pictures] == ["0000_", "0001_", "0002_"]
    page = (photos / "measured" / "report.html").read_bytes().decode()
    assert "day_caf\\xe9@" in page and "day_café@" in page and f"{'x' * 99}" in page
    assert (photos / "measured" / "metrics.json").is_file()


def test_photos_of_any_name(door, tiny_recipe, trained_run, photos):
    for command in commands(tiny_recipe, trained_run, photos):
        answer = door(*command)
        assert answer.status == 0, answer.err
    assert_complete(photos)


@pytest.mark.long
def test_photos_of_any_name_in_the_locale_c(tiny_recipe, trained_run, photos):
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "JAX_NUMPY_DTYPE_PROMOTION": "standard"}
    typed = ["\t".join(command) for command in commands(tiny_recipe, trained_run, photos)]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *typed], env={**os.environ, **locale}, capture_output=True)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
    assert b"caf\\udcc3\\udca9" in done.stdout and b"caf\\udce9" in done.stdout
    assert_complete(photos)
