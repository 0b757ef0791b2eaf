"""Tags, quotes and entities in every text that a page shows: they stay text, and none of it is lost."""

import html
import json
from html.parser import HTMLParser

import numpy as np

from jaxvpr.reports import sweep_page
from jaxvpr.reports.gallery import GalleryItem
from jaxvpr.reports.html import write_report
from jaxvpr.reports.map import MapData


class Page(HTMLParser):
    """Collects what a browser would make of a page: elements, attributes, and every text of it."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.attributes, self.texts = [""], [], []
        self.feed(str(text))
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.texts += [value for _, value in attrs if value]

    def handle_data(self, data):
        is_json = self.tags[-1] == "script" and data.startswith("[[")
        self.texts += [text for *_, text in json.loads(data)] if is_json else [data]


class Evil:
    """Texts that break out of an element, an attribute or a script where they are not escaped; each tells its field."""

    def __init__(self):
        self.made = []

    def __call__(self, field: str, end: str = "") -> str:
        text = f"""{field}'"></title></script></style><script>alert(1)</script><b onclick='alert(2)' x="&lt;"""
        self.made.append(text)
        return text + end


def check(text: str, evil: Evil, scripts: int) -> None:
    page = Page(text)
    assert page.tags.count("script") == scripts and "alert(1)</script" not in text
    assert not [name for name, value in page.attributes if name.startswith("on") or (name == "x" and "alert" in value)]
    assert all(
        value.startswith(("#", "data:image/jpeg;")) for name, value in page.attributes if name in ("href", "src")
    )
    shown = "\n".join(page.texts)
    assert [made for made in evil.made if made not in shown] == []
    assert html.unescape(shown) != shown, "what looks like an entity is shown as it was written"


def test_every_text_of_a_report_is_escaped(tmp_path):
    evil = Evil()
    recall = {"1": 50.0, "5": 75.0}
    threshold = evil("threshold")
    entry = {
        "dataset": evil("dataset"),
        "protocol": {
            "dataset": evil("dataset in the protocol"), "split": evil("split"), "queries": 4, "database": 9,
            "without_positive": {threshold: 1}, "image_size": [64, 64], "resize": evil("resize"), "multiple": 1,
            "cropped_from": evil("crop"), "dimension": 8, "index": evil("index"), "missing": 1,
        },
        "recall": {threshold: recall},
        "recall_answerable": {threshold: recall},
        "interval95": {threshold: {"1": [40.0, 60.0]}},
        "baselines": {evil("baseline"): {threshold: recall}},
        "conditions": {evil("condition"): {"queries": 4, "recall": {threshold: recall}}},
        "localization": {"classes": 3, "without_class": {threshold: 1}, "recall": {threshold: recall}},
    }  # fmt: skip
    log = [
        {"step": step, "loss": 2.0, evil("part", "_loss"): 1.0, evil("measure", "/R@1"): 40.0, evil("other", "/R@1"): 4}
        for step in (1, 2)
    ]
    item = GalleryItem(
        evil("query.jpg"), [evil("prediction.jpg")], [False], conditions=(evil("condition of a query"),),
        truth=evil("truth.jpg"), name=evil("name"),
    )  # fmt: skip
    # The path of a query that has a name is read, not shown.
    evil.made = [text for text in evil.made if not text.startswith("query.jpg")]
    at = np.zeros((1, 2))
    page = write_report(
        tmp_path / "report.html",
        title=evil("title"),
        config_text=evil("config"),
        results=[entry],
        costs={evil("cost"): evil("value of a cost")},
        loss_log=log,
        gallery=[item],
        map=MapData(at, at, np.array([False]), at, [evil("note on the map")]),
        notes=[evil("note")],
    )
    # The tips of the map and the script of the page.
    check(page.read_text(encoding="utf-8"), evil, scripts=2)


def test_every_text_of_a_sweep_is_escaped():
    evil = Evil()

    def run(state: str, failure: str | None = None) -> dict:
        measured = {"dataset": evil("dataset"), "threshold": evil("threshold"), "queries": 200,
                    "recall": {"1": 50.0}, "interval95": {"1": [40.0, 60.0]}}  # fmt: skip
        finished = state == "finished"
        return {
            "name": evil(f"{state} run"), "row": evil(f"{state} row"), "column": evil(f"{state} column"), "seed": 0,
            "folder": evil("folder") if failure else "", "changes": {}, "state": state, "failure": failure,
            "test": [measured] * finished, "seconds": 30.0 if finished else None, "planning_seconds": None,
            "validation": [{"step": 1, "epoch": 1, "val/R@1": 40.0}] * finished,
            "domain_accuracy": {"step": [1, 2], "percent": [50.0, 60.0], "last_fifth": 60.0} if finished else None,
        }  # fmt: skip

    runs = [run("finished")]
    at_hand = list(evil.made)
    runs.append(run("failed", evil("failure")))
    runs.append(run("waiting"))
    # A run without a figure is in the tables by its row and column, and named where it is waiting.
    unseen = ("dataset", "threshold", "failed run")
    evil.made = at_hand + [text for text in evil.made[len(at_hand) :] if not text.startswith(unseen)]
    page = sweep_page.html(
        {"name": evil("name"), "recipe": evil("recipe"), "rows": evil("rows"), "columns": evil("columns"), "runs": runs}
    )
    check(page, evil, scripts=1)
