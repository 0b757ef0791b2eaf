"""The method that docs/add_a_method.md adds, taken from that page, trains through the real door."""

import re
import runpy
from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict

from jaxvpr import families
from jaxvpr.training import logs
from jaxvpr.verbs import train

PAGE = Path(__file__).parents[2] / "docs" / "add_a_method.md"


@pytest.fixture
def pairs(tmp_path):
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    file = tmp_path / "pairs.py"
    file.write_text(code[1])
    return runpy.run_path(str(file))


def test_the_method_of_the_page_learns(pairs, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setitem(families.FAMILIES, "pairs", pairs["from_config"])
    config = tiny_config.copy_and_resolve_references().unlock()
    config.objective = ConfigDict({"name": "pairs", "M": 10.0, "temperature": 0.1})
    config.steps_per_epoch = 15
    with jax.numpy_dtype_promotion("standard"):
        metrics = train.run(config.lock(), tmp_path / "run")
    losses = [record["loss"] for record in logs.read(tmp_path / "run") if "loss" in record]
    assert len(losses) == 30 and sum(losses[-5:]) < sum(losses[:5])
    assert metrics["results"][0]["protocol"]["queries"] == 25
