"""The recipe that docs/add_a_method.md adds, taken from that page, trains through the real door and is loaded again."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxvpr
from jaxvpr import families, models
from jaxvpr.cli.recipes import load_config
from jaxvpr.errors import UserError
from jaxvpr.training import logs
from jaxvpr.verbs import train

PAGE = Path(__file__).parents[2] / "docs" / "add_a_method.md"


@pytest.fixture
def own(tmp_path, tiny_config):
    """The file of the page, and its recipe on a few photos; what it adds to the package is gone afterwards."""
    known = dict(families.FAMILIES), dict(models.AGGREGATORS)
    file = tmp_path / "pairs.py"
    file.write_text(re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1])
    config = load_config(str(file))
    with config.unlocked():
        for key in ("image", "train_data", "val_data", "test_data", "eval"):
            config[key] = tiny_config[key]
        config.model.backbone_options = tiny_config.model.backbone_options
        config.epochs, config.steps_per_epoch = 2, 15
    yield file, config.lock()
    forget(known)


def forget(known):
    for table, before in zip((families.FAMILIES, models.AGGREGATORS), known, strict=True):
        for name in set(table) - set(before):
            del table[name]


def test_the_recipe_of_the_page_learns_and_its_run_is_loaded_by_it(own, tmp_path, photo_tree):
    file, config = own
    with jax.numpy_dtype_promotion("standard"):
        metrics = train.run(config, tmp_path / "run")
    losses = [record["loss"] for record in logs.read(tmp_path / "run") if "loss" in record]
    assert len(losses) == 30 and sum(losses[-5:]) < sum(losses[:5])
    assert metrics["results"][0]["protocol"]["queries"] == 25

    photo = sorted((photo_tree / "images" / "train").iterdir())[0]
    here = jaxvpr.load(tmp_path / "run").describe(photo)
    left = tmp_path / "run" / "model.safetensors"
    del models.AGGREGATORS["halves"]  # as in another process, which has not read the file
    with pytest.raises(UserError, match=r"'pairs'.*halves.*RECIPE\.py,init=.*model\.safetensors"):
        jaxvpr.load(tmp_path / "run")
    options = ",".join(f"{key}={value}" for key, value in changes(config))
    elsewhere = jaxvpr.load(f"{file},init={left},{options}").describe(photo)
    np.testing.assert_array_equal(here, elsewhere)


def changes(config):
    """What the test changed of the page's model and preprocessing."""
    size = tuple(config.image.size)
    return [
        ("image.size", size),
        *((f"model.backbone_options.{key}", value) for key, value in config.model.backbone_options.items()),
    ]
