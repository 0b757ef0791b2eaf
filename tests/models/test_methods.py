"""Every published method as it is described: its length, a free batch size, and names for all of its weights."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import models_page
from benchmarks.device.program import flops
from data_pipelines.shapes import common_size
from jaxvpr import models
from jaxvpr.cli.recipes import load_config
from jaxvpr.weights import FAMILIES
from jaxvpr.weights.tables import name_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
# Lengths that no name tells, from the papers.
LENGTHS = {
    "netvlad-vgg16": 64 * 512,
    "sfrs": 4096,
    "apgem-resnet101": 2048,
    "salad-dinov2s": 64 * 128 + 256,
    "salad-dinov2b": 64 * 128 + 256,
    "salad-dinov2l": 64 * 128 + 256,
    "salad-dinov2g": 64 * 128 + 256,
    "cricavpr": 14 * 768,
    "supervlad-dinov2b": 4 * 768,
    **{
        f"deepvg-{backbone}-{aggregator}": length
        for backbone, channels in {"vgg16": 512, "resnet18": 256, "resnet50": 1024, "resnet101": 1024}.items()
        for aggregator, length in {"gem": channels, "netvlad": 64 * channels}.items()
    },
    "megaloc": 8448,
}
# One of each: the others differ in the descriptor's length alone.
EACH = [names[-1] for names in models_page.grouped()]


@pytest.mark.parametrize("name", EACH)
def test_length_batch_and_names(name):
    method, described = models.build(name), models.description(name)
    shown = method.preprocess
    height, width = common_size(shown.size, shown.multiple, shown.crop) if shown.size else (112, 224)
    (batch,) = jax.export.symbolic_shape("batch")
    clips = (described.frames,) * bool(described.frames)
    images = jax.ShapeDtypeStruct((batch, *clips, height, width, 3), np.uint8)
    # Initialisation runs the whole model, so that one trace gives both.
    initialise = jax.make_jaxpr(method.module.init_with_output, return_shape=True)
    program, (described_images, variables) = initialise(jax.random.key(0), images)
    assert set(flops(program)) == {"float32 HIGHEST"}
    length = LENGTHS.get(name) or int(re.search(r"(\d+)$", name)[1])
    assert described_images.shape == (batch, length) and described_images.dtype == np.float32

    family = FAMILIES[described.family]
    paths = ["/".join(key.key for key in path[1:]) for path, _ in jax.tree.leaves_with_path(variables)]
    theirs = [name_of(family, path) for path in paths if path.startswith(family.covers)]
    assert theirs and None not in theirs and len(set(theirs)) == len(theirs)


def test_only_the_benchmarks_methods_and_those_of_clips_are_ranked_as_they_are():
    """Its `GeoLocalizationNet` has no L2 behind a pooling that has one before, and its `test` none behind a PCA."""
    raw = {name for name, described in models.METHODS.items() if not described.model.get("l2_after", True)}
    of_images = {name for name, described in models.METHODS.items() if not described.frames}
    assert raw & of_images == {name for name in models.METHODS if name.startswith("deepvg-")} != set()
    assert raw - of_images == set(models.METHODS) - of_images != set(), "vg-transformers and JIST neither"
    assert {name for name in models.METHODS if not load_config(f"configs/zoo.py:{name}").model.l2_after} == raw


def test_names_that_differ_in_length_alone_describe_models_that_do():
    for names in models_page.grouped():
        shapes = {name: models.description(name) for name in names}
        assert len({(d.model["backbone"], d.preprocess, d.family) for d in shapes.values()}) == 1
    grouped = [name for names in models_page.grouped() for name in names]
    assert sorted(grouped) == sorted(models.METHODS)


def test_an_unknown_method_lists_what_there_is():
    with pytest.raises(ValueError, match=r"method.*'salat'.*\['anyloc.*'salad-dinov2b'"):
        models.build("salat")


def test_the_page_is_up_to_date():
    """All of it but the costs of methods, which take long to count: those of a few."""
    page = PAGE.read_text()
    rest = [name for name in models_page.TABLES if name != "methods"]
    assert models_page.updated(page, rest) == page, "run: python -m benchmarks.models_page --out docs/models.md"
    for names in models_page.grouped():
        assert f"| `{models_page.label(names)}` |" in page
        if "resnet18" in names[0] and (not models.METHODS[names[0]].frames or names[0] == "jist-resnet18-512"):
            assert models_page.method_row(names) in page


def test_rows_are_whole():
    """Each row is one line with a cell for every column, also of modules that hold another one."""
    tables = re.findall(r"<!-- table: \w+ -->\n(\|.*?)<!-- end -->", PAGE.read_text(), re.S)
    assert len(tables) == 5
    for title, *rows in (table.splitlines() for table in tables):
        assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {title.count("|")}
        assert all(re.fullmatch(r"\| .* \|", row) for row in rows)
    assert "| inner={'aggregator': 'gem'}, dim=512, l2=False, conv=False |" in tables[2]


def test_a_table_without_a_place_is_an_error():
    with pytest.raises(ValueError, match="<!-- table: names -->"):
        models_page.updated("<!-- table: name --><!-- end -->", ["names"])
