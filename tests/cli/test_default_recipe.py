"""A recipe that takes the defaults as they are: it trains, or a message says what is missing."""

import re

import pytest
from ml_collections import ConfigDict

from configs import common, objectives
from jaxvpr.cli import checks
from jaxvpr.errors import UserError

SMALL = (
    "model.backbone=resnet_small", "model.backbone_options={'widths':(8,8,16,16)}", "image.size=(32,32)",
    "model.aggregator_options={'dim':16}", "objective.partition.N=1", "objective.partition.L=1",
    "objective.partition.groups=1", "objective.partition.min_images=2", "epochs=1", "steps_per_epoch=2", "batch=8",
)  # fmt: skip


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """bare(line) -> a recipe of the defaults and one more line, in the working directory."""
    monkeypatch.chdir(tmp_path)

    def make(line=""):
        head = "from ml_collections import ConfigDict\nfrom configs import common\n\ndef get_config(preset=''):\n"
        file = tmp_path / "bare.py"
        file.write_text(f"{head}    config = common.base()\n    {line}\n    return config\n")
        return f"--config={file}"

    return make


def test_the_defaults_train_on_any_images(bare, door, refused, photo_tree, tmp_path):
    assert re.search("the recipe bare has no train_data", refused(bare()))
    data = f"train_data.root={photo_tree},train_data.split=train"
    status, _, err = door(f"{bare()},{data},{','.join(SMALL)}")
    assert status == 0, err
    assert (tmp_path / "runs" / "bare" / "model.safetensors").is_file(), "named after its file"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "config.objective = ConfigDict({'name': 'cells'})",
            r"lacks head_steps, loss, margin, .*, partition\.by, .*name='cells' .*common\.cells\(\.\.\.\)",
        ),
        (
            "config.objective = ConfigDict({'name': 'places', 'P': 3})",
            r"lacks K, by_city, .*partition\.by, .*common\.places\(",
        ),
        ("del config.unlock().objective.partition['L']", r"lacks partition\.L, which objective\.name='cells'"),
    ],
)
def test_a_key_that_the_objective_needs_is_named(bare, refused, line, said):
    found = refused(bare(line))
    assert re.search(said, found), found


def test_objectives_are_whole():
    for by in objectives.PARTITIONS:
        assert not objectives.lacking(common.cells(by=by))
    assert not objectives.lacking(common.places(P=2, K=2, by="place"))
    assert not objectives.lacking(common.mined_triplets(loss_options=ConfigDict({})))
    squares = common.cells(by="square")
    squares.partition.by = "cell"
    jist = ConfigDict({"name": "jist", "images": common.cells(), "clips": common.mined_triplets()})
    assert not objectives.lacking(jist)
    del jist.clips.pool, jist.images.partition.L
    assert objectives.lacking(jist) == ["images.partition.L", "clips.pool"]
    assert objectives.lacking(squares) == ["partition.L", "partition.alpha"]
    config = common.base().unlock()
    config.objective = ConfigDict({"name": "of_their_own"})
    checks.check_training(config)
    del config.objective["name"]
    with pytest.raises(UserError, match=r"lacks name\b"):
        checks.check_training(config)


def test_a_mistake_in_how_clips_are_cut_names_its_key():
    config = common.base().unlock()
    config.name, config.test_data = "clips", ConfigDict({"x": common.data("csv", "/x", clips={"length": 3})})
    checks.check(config)
    config.test_data.x.clips.task = "seq"
    with pytest.raises(UserError, match=r"config.test_data.x.clips.task='seq' does not exist; there are \['seq2seq'"):
        checks.check(config)
    with pytest.raises(ValueError, match=r"clips has no key \['len'\]; there are \['length'"):
        common.data("csv", "/x", clips={"len": 3})
