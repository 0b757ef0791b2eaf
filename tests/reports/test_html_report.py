"""The report as a whole: well formed, self-contained, small, escaped, and saying what the figures say."""

import os
import pickle
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines.places import Paths, Places
from jaxvpr.reports.answers import gallery_items, map_data
from jaxvpr.reports.html import write_report
from jaxvpr.retrieval.metrics import result
from jaxvpr.retrieval.positives import within_metres
from jaxvpr.retrieval.protocol import protocol
from jaxvpr.retrieval.recall import recall

VOID = {"meta", "img", "input", "br", "link"}
ROOT = Path(__file__).resolve().parents[2]
EVIL = "<script>alert('1')</script>\"&"


class Checker(HTMLParser):
    """Collects tags, attributes and text, and insists that every element is closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.addresses, self.ids, self.text = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)


def parse(path):
    checker = Checker()
    checker.feed(path.read_text(encoding="utf-8"))
    checker.close()
    assert checker.open == []
    return checker


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A street of 60 places and 20 queries, every third of which finds its place only at rank 2."""
    folder = tmp_path_factory.mktemp("street")
    rng = np.random.default_rng(0)
    for name in [f"db{i}" for i in range(60)] + [f"q{i}" for i in range(20)]:
        colours = rng.integers(0, 256, (3, 4, 3), np.uint8)
        Image.fromarray(colours).resize((320, 240), Image.Resampling.BICUBIC).save(folder / f"{name}.jpg")
    east = np.arange(60) * 40.0
    database = Places.create("street", Paths.of((f"db{i}.jpg" for i in range(60)), folder), east=east, north=0.0)
    queries = Places.create(
        "street",
        Paths.of((f"q{i}.jpg" for i in range(20)), folder),
        east=east[:20] + 3,
        north=4.0,
        condition=1 + np.arange(20) % 2,
        conditions=("day", EVIL),
    )
    positives = within_metres(database, queries, 25)
    predictions = np.arange(20)[:, None] + np.arange(20)
    predictions[::3, :2] = predictions[::3, 1::-1]
    found = recall(predictions, positives, (1, 5, 20))
    facts = protocol(
        dataset="street",
        split="test",
        queries=20,
        database=60,
        positives={"25m": positives},
        image_size=(240, 320),
        resize="pil_bilinear",
        dimension=64,
    )
    conditions = {name: {"25m": found.take(queries.having(name))} for name in queries.conditions}
    entry = result(facts, {"25m": found}, {"thumbnail": {"25m": found}, "untrained": {"25m": found}}, conditions)
    log = [{"step": i, "loss": 5 / i} for i in range(1, 900)] + [{"step": 300, "val/R@1": 41.5, "loss": None}]
    return {
        "title": f"A street {EVIL}",
        "config_text": f"batch: 32\nnote: {EVIL}",
        "results": [entry],
        "costs": {"descriptor_bytes": 256, "flops_per_image": 17.29e9, "extraction_ms_per_image": 1.25},
        "loss_log": log,
        "gallery": gallery_items(database, queries, predictions, np.linspace(0, 1, 400).reshape(20, 20), positives),
        "map": map_data(database, queries, predictions, positives),
        "notes": [f"Took {EVIL} minutes."],
    }


def test_the_page_is_whole_and_needs_no_network(run, tmp_path):
    path = write_report(tmp_path / "deep" / "report.html", **run)
    page = parse(path)
    text = path.read_text(encoding="utf-8")
    links = [address[1:] for address in page.addresses if address.startswith("#")]
    pictures = [address for address in page.addresses if address.startswith("data:image/jpeg;base64,")]
    assert pictures and len(links) + len(pictures) == len(page.addresses)
    assert len(page.ids) == len(set(page.ids)) and set(links) <= set(page.ids)
    assert "http" not in re.sub(r"base64,[\w+/=]+", "", text).replace("http-equiv", "")
    assert path.stat().st_size < 1_500_000
    headings = ("Recall on street", "Training", "Costs", "Recipe", "Where it is right and wrong", "Queries and their")
    for heading in headings:
        assert heading in text


def test_figures_and_protocol_are_shown(run, tmp_path):
    text = " ".join(parse(write_report(tmp_path / "report.html", **run)).text)
    # 7 of 20 queries (0, 3, ..., 18) are wrong at first.
    for expected in ("65.0", "100.0", "17.3 GFLOPs", "256 B", "1.25 ms", "within 25 m", "R@20"):
        assert expected in text, expected
    assert "street test | 20 queries (0 without positive) | 60 database images | 25m | 240x320 pil_bilinear" in text
    assert "right queries (13)" in text and "wrong queries (7)" in text
    assert "wrong (7)" in text and "right (13)" in text
    assert "first right answer at rank 2" in text


def test_map_and_list_lead_to_each_other_by_the_number_of_a_query(run, tmp_path):
    # Of query 3 it is not known where it was taken.
    at = np.where(np.arange(20)[:, None] == 3, np.nan, run["map"].queries)
    given = run | {"map": replace(run["map"], queries=at), "gallery": run["gallery"][:5], "queries": 20}
    path = write_report(tmp_path / "report.html", **given)
    page, text = parse(path), path.read_text(encoding="utf-8")
    # Queries 0, 3, ..., 18 are wrong and so come first.
    assert [name for name in page.ids if name.startswith("query-")] == [f"query-{n}" for n in (0, 3, 6, 9, 12)]
    assert [name for name in page.ids if name.startswith("map-")] == [f"map-{n}" for n in (0, 6, 9, 12)]
    assert sorted(a[1:] for a in page.addresses if a.startswith("#map-")) == ["map-0", "map-12", "map-6", "map-9"]
    marks = re.findall(r'<a id="map-(\d+)" class="wrong"[^>]* href="#query-(\d+)" aria-label="query (\d+): wrong', text)
    assert marks == [(n, n, n) for n in ("0", "6", "9", "12")]
    assert "5 of 20 queries, a sample: 5 wrong ones first, then 0 right ones" in " ".join(text.split())
    everything = write_report(tmp_path / "all.html", title="t", gallery=run["gallery"]).read_text(encoding="utf-8")
    assert "All 20 queries, wrong ones first." in everything and "#map-" not in everything


def test_all_text_is_escaped(run, tmp_path):
    text = write_report(tmp_path / "report.html", **run).read_text(encoding="utf-8")
    assert "alert(" in text and "<script>alert" not in text
    # The sheet of tips and the script of the page, and no third.
    assert text.count("<script") == 2 and text.count("</script>") == 2


def test_parts_without_data_are_left_out(run, tmp_path):
    page = parse(write_report(tmp_path / "empty.html", title="Nothing yet"))
    assert "svg" not in page.tags and "section" not in page.tags and "table" not in page.tags
    only = parse(write_report(tmp_path / "log.html", title="t", loss_log=run["loss_log"]))
    assert only.tags.count("svg") == 2


def test_other_thresholds_and_missing_baselines(run, tmp_path):
    entry = dict(run["results"][0], baselines={}, conditions={})
    for threshold, words in (("1m_5deg", "within 1 m and 5°"), ("1frame", "within 1 frame"), ("label", "same place")):
        changed = entry | {key: {threshold: entry[key]["25m"]} for key in ("recall", "interval95", "recall_answerable")}
        changed["protocol"] = entry["protocol"] | {"without_positive": {threshold: 2}}
        text = " ".join(parse(write_report(tmp_path / "report.html", title="t", results=[changed])).text)
        assert words in text and "also the 2 without any positive" in text and "thumbnail" not in text
        assert "the upper bound is 90.0." in text  # 18 of 20


def test_broken_pictures_do_not_stop_a_report(run, tmp_path):
    item = run["gallery"][0]
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    broken = type(item)(tmp_path / "cut.jpg", [tmp_path / "absent.jpg", item.query], [False, True])
    page = parse(write_report(tmp_path / "report.html", title="t", gallery=[broken]))
    assert page.text.count("not readable") == 2 and page.tags.count("img") == 1


DRAW = """
import pickle, sys
from pathlib import Path
from configs import cosplace, salad
from jaxvpr.reports.html import write_report
from jaxvpr.reports.sweep_page import write_sweep

write_report("report.html", **pickle.loads(Path("run.pickle").read_bytes()))
write_sweep(Path("sweep"), {"name": "s", "recipe": "r.py", "rows": "", "columns": "", "runs": []})
print(sys.modules["jaxvpr"].__file__, cosplace.get_config("tiny").name, salad.get_config().name)
"""


def isolation() -> list[str]:
    """For pip: builds with the setuptools that is here where it reads our pyproject.toml; else pip fetches one."""
    try:
        return ["--no-build-isolation"] * (int(version("setuptools").partition(".")[0]) >= 77)
    except PackageNotFoundError:
        return []


@pytest.mark.long
def test_an_installed_wheel_draws_the_same_report_without_the_clone(run, tmp_path):
    clone, installed, elsewhere = tmp_path / "clone", tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    rooms = ("jaxvpr", "data_pipelines", "configs")
    for room in rooms:
        shutil.copytree(ROOT / room, clone / room, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, clone)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", *isolation(), f"--wheel-dir={tmp_path}", str(clone)]
    subprocess.run(build, check=True, cwd=elsewhere)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", f"--target={installed}", str(wheel)], check=True, cwd=elsewhere)
    came = {path.relative_to(installed) for room in rooms for path in (installed / room).rglob("*.*")}
    assert {path.relative_to(clone) for room in rooms for path in (clone / room).rglob("*.*")} <= came

    (elsewhere / "run.pickle").write_bytes(pickle.dumps(run))
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    drawn = subprocess.run(
        [sys.executable, "-c", DRAW], check=True, cwd=elsewhere, env=environment, capture_output=True, text=True
    )
    assert drawn.stdout.split() == [str(installed / "jaxvpr" / "__init__.py"), "cosplace-tiny", "salad-city"]
    here_drawn = write_report(tmp_path / "here.html", **run)
    assert (elsewhere / "report.html").read_bytes() == here_drawn.read_bytes()
    assert "<h1>s</h1>" in (elsewhere / "sweep" / "sweep.html").read_text(encoding="utf-8")
