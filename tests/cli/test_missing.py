"""All that a command reads and is not there is named in one message, and what the message advises works."""

import re

import pytest

from jaxvpr.cli import missing
from jaxvpr.cli.arguments import parse
from jaxvpr.errors import UserError

SALAD = "configs/salad.py:salad"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def named(said):
    return re.findall(r"^ *(?:config\.|--)([\w.]+)=", said.removeprefix("error: "), re.MULTILINE)


def test_data_sets_and_weights_in_one_message(refused):
    said = refused(f"--config={SALAD},init=dinov2_vitb14.pth")
    sets = ["train_data.root", "val_data.pitts30k_val.root", "test_data.pitts30k.root"]
    assert named(said) == ["init", *sets]


def test_the_advice_works_as_printed(refused, tmp_path):
    said = refused(f"--config={SALAD}")
    one, moved, dropped = re.search(r"comma: (\S+), or (\S+) for .*, or (\S+) to do", said).groups()
    assert (one, moved, dropped) == ("train_data.root=FOLDER", "data=FOLDER", "val_data.pitts30k_val={}")
    for name in ("gsv_cities", "pitts30k"):
        (tmp_path / "FOLDER" / name).mkdir(parents=True)
    missing.check(parse([f"--config={SALAD},{moved}"]))
    with pytest.raises(UserError) as error:
        missing.check(parse([f"--config={SALAD},{one},{dropped}"]))
    assert named(str(error.value)) == ["test_data.pitts30k.root"]


def test_the_runs_of_a_sweep_name_a_folder_once(refused):
    said = refused("sweep", "--config=configs/sweeps/losses.py:gsv_xs")
    sets = ["train_data", "val_data.sf_xs_val", "test_data.sf_xs", "test_data.tokyo_xs"]
    assert named(said) == [f"{name}.root" for name in sets]


def test_a_verb_looks_for_what_it_reads(refused, tiny_recipe):
    gone = f"--config={tiny_recipe},train_data.root=gone,val_data.val.root=gone,test_data.test.root=gone"
    assert named(refused("evaluate", gone)) == ["test_data.test.root"]
    assert named(refused("evaluate", gone, "--database=a", "--queries=b")) == ["database", "queries"]
    assert named(refused("extract", gone, "--images=a", "--out=a.npy")) == ["images"]
    assert named(refused("compress", f"{gone},pca.dim=4", "--out=a.safetensors")) == ["train_data.root"]
    target = f"--config={tiny_recipe},test_data={{}},val_data.val.root=gone,target_data.root=none"
    assert named(refused(target)) == ["val_data.val.root"]
    assert named(refused(f"{target},domain.method=grl")) == ["target_data.root", "val_data.val.root"]
    assert named(refused("--config=configs/distill.py"))[-1] == "objective.teacher"
    assert "root=: no such folder" in refused(
        "evaluate", f"--config={tiny_recipe},test_data={{'a':{{'reader':'csv'}}}}"
    )
