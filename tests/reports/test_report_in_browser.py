"""A report in a real browser, 400 pixels wide: what can be read, and where its links lead."""

import json
import re
import shutil
import subprocess
from html import unescape

import numpy as np
import pytest

from jaxvpr.reports.charts import Series, many_lines
from jaxvpr.reports.gallery import GalleryItem
from jaxvpr.reports.html import write_report
from jaxvpr.reports.map import MapData
from jaxvpr.reports.render import render

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.long, pytest.mark.skipif(BROWSER is None, reason="chromium not found")]

# The page lies in a frame of that width, as a window has a least width; `look` is a function of its window.
HARNESS = """<!doctype html><body><iframe style="width:%dpx;height:800px;border:0"></iframe><pre id="found"></pre>
<script>
const frame = document.querySelector('iframe'), wait = () => new Promise(done => setTimeout(done, 100));
frame.onload = async () => {
  let found;
  try { found = await (%s)(frame.contentWindow); } catch (error) { found = String(error); }
  document.getElementById('found').textContent = JSON.stringify(found);
};
frame.src = '%s';
</script>"""

TEXTS = """async page => [...page.document.querySelectorAll('svg text')].map(text => {
  const scale = Math.hypot(text.getScreenCTM().a, text.getScreenCTM().b);
  const inside = text.getBoundingClientRect(), around = text.ownerSVGElement.getBoundingClientRect();
  const sides = [around.left - inside.left, inside.right - around.right, around.top - inside.top,
                 inside.bottom - around.bottom];
  return {
    text: text.textContent, pixels: parseFloat(page.getComputedStyle(text).fontSize) * scale,
    cut: Math.max(...sides), wide: page.document.documentElement.scrollWidth,
  };
})"""

LINKS = """async page => {
  const get = id => page.document.getElementById(id), found = {};
  const click = element => element.dispatchEvent(new page.MouseEvent('click', { bubbles: true, cancelable: true }));
  const seen = element => {
    const box = element.getBoundingClientRect();
    return box.width > 0 && box.top < page.innerHeight && box.bottom > 0;
  };
  const now = element => ({ hash: page.location.hash, seen: seen(element) });
  get('map-1').scrollIntoView({ block: 'center' });
  const box = get('map-1').querySelector('.mark').getBoundingClientRect();
  // Eight pixels beside the middle of the mark, which itself is some seven wide.
  const hit = page.document.elementFromPoint(box.left + box.width / 2 - 8, box.top + box.height / 2);
  found.under_the_pointer = hit.closest('a').id;
  get('map-1').focus();
  found.focused = page.document.activeElement.id;
  page.document.querySelector('#gallery button[value=wrong]').click();
  found.hidden = get('query-1').hidden;
  click(get('map-1'));
  await wait();
  found.to_the_list = now(get('query-1'));
  const zoom = page.document.querySelector('.map button'), layer = page.document.querySelector('input[value=right]');
  for (const _ of '12345') zoom.click();
  layer.click();
  found.layer = get('map-1').style.display;
  click(get('query-1').querySelector('a'));
  await wait();
  found.to_the_map = now(get('map-1'));
  found.whole_map = get('map-1').ownerSVGElement.getAttribute('viewBox').startsWith('0 0 1000 ');
  return found;
}"""


FILTER = """async page => {
  const choice = page.document.querySelector('#gallery select'), found = {};
  for (const option of [...choice.options]) {
    choice.value = option.value;
    choice.dispatchEvent(new page.Event('change'));
    found[option.value] = [...page.document.querySelectorAll('#gallery .answer')].map(answer => answer.hidden);
  }
  return found;
}"""


def look(path, script: str, width: int = 400):
    """What `script` finds in a page of so many pixels."""
    harness = path.parent / "harness.html"
    harness.write_text(HARNESS % (width, script, path.name), encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
               "--allow-file-access-from-files", f"--user-data-dir={path.parent / 'profile'}",
               "--window-size=900,900", "--virtual-time-budget=5000", "--dump-dom", harness.as_uri()]  # fmt: skip
    shown = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    return json.loads(unescape(re.search(r'<pre id="found">(.*?)</pre>', shown, re.S)[1]))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Two queries, the second of which is right, 40 database images, a long log and four lines of recall."""
    rng = np.random.default_rng(0)
    queries = rng.uniform((300, 0), (600, 300), (9, 2))
    queries[0] = 900, 150  # at the edge of the map
    recall = {"25m": {"1": 50.0, "5": 60.0, "10": 61.0, "20": 99.0, "100": 100.0}}
    facts = {"dataset": "street", "split": "test", "queries": 9, "database": 40, "without_positive": {"25m": 0},
             "image_size": [64, 64], "resize": "area", "multiple": 1, "cropped_from": "none", "dimension": 8,
             "index": "exact", "missing": 0}  # fmt: skip
    entry = {
        "dataset": "street",
        "protocol": facts,
        "recall": recall,
        "baselines": {"untrained": recall, "thumbnail": recall},
    }
    return write_report(
        tmp_path_factory.mktemp("report") / "report.html",
        title="street",
        results=[entry],
        loss_log=[{"step": i, "loss": 5 / i, "domain_accuracy": 50.0, "reversal": i / 900} for i in range(1, 900)],
        gallery=[
            GalleryItem(f"{i}.jpg", ["a.jpg"] * 5, [i == 1] + [False] * 4, number=i, conditions=given)
            for i, given in enumerate([("day",), ("day", 'rain "&')])
        ],
        queries=9,
        map=MapData(rng.uniform(0, (900, 300), (40, 2)), queries, np.arange(9) == 1),
    )


def test_texts_of_charts_can_be_read_on_a_phone(report):
    found = look(report, TEXTS)
    assert len(found) > 40 and {"this model", "raw thumbnail", "50 % (fooled)", "loss"} <= {
        one["text"] for one in found
    }
    assert min(one["pixels"] for one in found) >= 11 and max(one["cut"] for one in found) < 1
    assert {one["wide"] for one in found} == {400}, "the page itself does not scroll sideways"


def test_texts_of_many_lines_can_be_read_on_a_phone(tmp_path):
    chart = many_lines([Series(f"loss {i}", [1, 2, 3], [0, i, 3 * i], "") for i in range(24)], x_label="x", y_label="y")
    empty = {"name": "s", "recipe": "r", "rows": "", "columns": "", "runs": []}
    values = {key: {} for key in ("domains", "tests", "failures", "waiting", "spent", "states")}
    page = render("sweep.html", title="s", sweep=empty, recall=chart, duration=str, positions="", **values)
    (tmp_path / "sweep.html").write_text(page, encoding="utf-8")
    found = look(tmp_path / "sweep.html", TEXTS)
    assert len(found) > 30 and min(one["pixels"] for one in found) >= 11 and max(one["cut"] for one in found) < 1
    assert {one["wide"] for one in found} == {400}


def test_map_and_list_lead_to_each_other(report):
    assert look(report, LINKS) == {
        "under_the_pointer": "map-1",
        "focused": "map-1",
        "hidden": True,
        "to_the_list": {"hash": "#query-1", "seen": True},
        "layer": "none",
        "to_the_map": {"hash": "#map-1", "seen": True},
        "whole_map": True,
    }


def test_the_gallery_shows_every_query_of_a_condition(report):
    assert look(report, FILTER) == {"": [False, False], "day": [False, False], 'rain "&': [True, False]}
