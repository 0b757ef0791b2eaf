"""Every family trains on two hosts what it trains on one: mined rows, generations, other domains, cliques, PCA, clips.

The runs are those of one sweep, on one host of four devices and on two of two: the same program on each device, so that
only the order in which gloo adds up is another.
"""

import json

import numpy as np
import pytest
from family_recipes import PRESETS
from family_recipes import __file__ as recipes
from host_processes import records, train

from jaxvpr import weights

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def environment(environment, quick_compiling):
    """Compiled without most optimisations also where other tests are not: most of the time goes there."""
    return environment | quick_compiling


@pytest.fixture(scope="module")
def command(photo_tree, drive_tree, tmp_path_factory):
    """The command of the sweep in a folder."""
    data = tmp_path_factory.mktemp("data")
    (data / "photos").symlink_to(photo_tree)
    (data / "drives").symlink_to(drive_tree)

    def command(folder):
        recipe = f"{recipes},data={data},maps.folder={folder}-features"
        return ["sweep", f"--config={recipe}", f"--workdir={folder}"]

    return command


@pytest.fixture(scope="module")
def swept(command, environment, tmp_path_factory):
    """The folders of the sweep on one host and on two."""
    folders = [tmp_path_factory.mktemp("swept") / name for name in ("one", "two")]
    train(environment, 1, 4, command(folders[0]), seconds=1200)
    train(environment, 2, 2, command(folders[1]), seconds=1200)
    return folders


@pytest.mark.parametrize("family", PRESETS)
def test_two_hosts_train_what_one_does(swept, family):
    one, two = (folder / family for folder in swept)
    assert sorted(file.name for file in one.iterdir()) == sorted(file.name for file in two.iterdir())
    results = [json.loads((folder / "metrics.json").read_text())["results"] for folder in (one, two)]
    assert results[0] == results[1]
    first, second = records(one), records(two)
    assert [sorted(record) for record in first] == [sorted(record) for record in second]
    for ours, theirs in zip(first, second, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    moved = sum(record["learning_rate"] * record["grad_norm"] for record in first if "loss" in record)
    assert moved > 0.05, "differences of 1e-6 say little about weights that hardly move"
    ours, theirs = (weights.read(folder / "model.safetensors") for folder in (one, two))
    assert sorted(ours) == sorted(theirs)
    for name, tensor in ours.items():
        # Whitening enlarges directions of little variance, and with them rounding.
        whitened = family == "triplets" and name.startswith("aggregator.fc.")
        np.testing.assert_allclose(tensor, theirs[name], rtol=1e-6, atol=1e-3 if whitened else 2e-6, err_msg=name)
