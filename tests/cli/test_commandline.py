"""The command line: what it understands, and that a mistake is answered by name with what exists."""

import re

import pytest
from ml_collections import ConfigDict

from jaxvpr.cli import arguments, checks
from jaxvpr.cli.arguments import parse, usage
from jaxvpr.cli.overrides import override
from jaxvpr.cli.recipes import load_config
from jaxvpr.errors import UserError


def test_verb_flags_and_changes(tiny_recipe):
    command = parse(
        ["evaluate", f"--config={tiny_recipe},batch=16", "--workdir", "some/where", "--config.optimizer.rate=1",
         "--config.image.size=(48,64)", "--config.eval.recalls=5", "--config.val_data.val.thresholds=25m,10m",
         "--config.loader.on_error=skip", "--config.model.backbone_options.frozen_bn=fixed"]
    )  # fmt: skip
    config = command.config
    assert (command.verb, command.flags["workdir"], command.flags["checkpoint"]) == ("evaluate", "some/where", "best")
    assert (config.batch, config.image.size, config.eval.recalls) == (16, (48, 64), (5,))
    assert config.optimizer.rate == 1.0 and isinstance(config.optimizer.rate, float)
    assert config.val_data.val.thresholds == ("25m,10m",) and config.loader.on_error == "skip"
    assert config.model.backbone_options.frozen_bn == "fixed", "a group of free options takes a new key"
    assert config.is_locked and config.model.backbone_options.is_locked
    assert parse([f"--config={tiny_recipe}"]).verb == "train"


def test_shipped_recipes_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("configs/cosplace.py:tiny", "cosplace.py:tiny"):
        assert load_config(name).name == "cosplace-tiny"
    assert all(flag in usage() for flag in arguments.FLAGS) and "configs/cosplace.py" in usage()


@pytest.mark.parametrize("verb_first", [[], ["-h"], ["train", "--help"]])
def test_help_needs_nothing(door, verb_first):
    status, out, _ = door(*verb_first)
    assert status == 0 and "--workdir" in out


MISTAKES = {
    "verb": (["trian"], r"'trian'.*\btrain\b.*\['train', 'evaluate', 'extract', 'loc"),
    "two verbs": (["train", "extract", "--config=R"], "verb.*'train extract'"),
    "flag": (["--confg=R"], r"--confg\b.*\bconfig\b.*--config, --workdir"),
    "flag without value": (["--config"], "--config=VALUE"),
    "flag eats no other flag": (["--workdir", "--config=R"], "--workdir=VALUE"),
    "no recipe": (["train"], r"--config=FILE.*configs/cosplace\.py"),
    "recipe": (["--config=no.py"], r"'no\.py'.*configs/cosplace\.py"),
    "preset": (["--config=configs/cosplace.py:town"], r"preset.*'town'.*\['city', 'tiny'"),
    "key": (["--config=R,bach=3"], r"config\.bach\b.*\bbatch\b.*\['accumulate'"),
    "key with another word": (["--config=R,weight=a.pth"], r"config\.weight\b.*\bweights\b.*\['accumulate'"),
    "inner key": (["--config=R", "--config.model.backbon=x"], r"config\.model\.backbon\b.*\bbackbone\b"),
    "outer key": (["--config=R", "--config.modle.backbone=x"], r"config\.modle\b.*\bmodel\b.*\['accumulate'"),
    "key below a value": (["--config=R", "--config.batch.size=3"], r"\bkey\b.*config\.batch\.size"),
    "value of another type": (["--config=R", "--config.batch=many"], r"config\.batch='many'.*\bint\b"),
    "bool for a number": (["--config=R", "--config.batch=true"], r"config\.batch='true'.*\bint\b"),
    "items of another type": (["--config=R", "--config.image.size=('a',3)"], r"config\.image\.size='a'.*\bint\b"),
    "a whole group": (["--config=R", "--config.loader=3"], r"config\.loader\b.*\['on_error'"),
    "change without value": (["--config=R,seed"], "key=value.*'seed'"),
    "too small": (["--config=R", "--config.accumulate=0"], r"config\.accumulate=0\b.*\b1\b"),
    "one number for a size": (
        ["--config=R", "--config.image.size=32"],
        r"config\.image\.size=\(32,\).*\(height, width\)",
    ),
    "three numbers for a size": (
        ["--config=R", "--config.image.size=(32,32,3)"],
        r"config\.image\.size=\(32, 32, 3\).*\(height, width\)",
    ),
    "resize rule": (
        ["--config=R", "--config.image.resize=tensor_cubic"],
        r"config\.image\.resize.*'tensor_cubic'.*pil_bilinear, .*, tensor_bicubic_antialias",
    ),
    "multiple": (["--config=R", "--config.image.multiple=0"], r"config\.image\.multiple=0\b.*\b1\b"),
    "too small to crop": (
        ["--config=R", "--config.image.size=(20,9)", "--config.image.multiple=14", "--config.image.crop=true"],
        r"config\.image\.crop=True.*\b14\b.*config\.image\.size=\(20, 9\)",
    ),
    "colours": (["--config=R", "--config.image.mean=0.5"], r"config\.image\.mean=\(0\.5,\).*\[0, 1\]"),
    "no spread": (
        ["--config=R", "--config.image.std=(1.0,0.0,1.0)"],
        r"config\.image\.std=\(1\.0, 0\.0, 1\.0\).*\[0, 1\].*\b0\b",
    ),
    "no recall": (["--config=R", "--config.eval.recalls=()"], r"config\.eval\.recalls=\(\).*recall@N"),
    "crop beyond the image": (["--config=R", "--config.augment.scale=(2,3)"], r"config\.augment\.scale=\(2"),
    "measure": (
        ["--config=R", "--config.best.measure=val/R@4"],
        r"config\.best\.measure='val/R@4'.*val/R@1, val/R@5, val/R@10.*\bR@N",
    ),
    "measure of another set": (
        ["--config=R", "--config.best.measure=test/R@5"],
        r"config\.best\.measure='test/R@5'.*val/R@1",
    ),
    "patience": (["--config=R", "--config.best.patience=-1"], r"config\.best\.patience=-1\b.*\b0\b"),
    "weights": (["--config=R", "--config.init=no.pth"], r"config\.init='no\.pth'.*no such file"),
    "broken pattern": (["--config=R", "--config.frozen=('(',)"], r"config\.frozen.*'\('.*regular expression"),
    "factors that are no pairs": (
        ["--config=R", "--config.optimizer.factors=('a',2)"],
        r"config\.optimizer\.factors.*pairs.*'a'",
    ),
    "number": (["localize", "--config=R", "--images=x", "--database=y", "--top=few"], "--top='few'.*whole number"),
    "hosts": (["--config=R", "--coordinator=localhost:1"], r"--coordinator=localhost:1\b.*--processes=N.*--process=0"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_answered_by_name(mistake, refused, tiny_recipe):
    arguments, answer = MISTAKES[mistake]
    said = refused(*(argument.replace("=R", f"={tiny_recipe}", 1) for argument in arguments))
    assert re.search(answer, said), said


def test_what_ends_a_run_is_looked_at_where_one_is_trained(tiny_recipe):
    for measure in ("", "R@5", "val/R@10"):
        assert parse([f"--config={tiny_recipe},best.measure={measure}"]).config.best.measure == measure
    assert parse(["evaluate", f"--config={tiny_recipe},best.measure=R@5,eval.recalls=1"]).config.eval.recalls == (1,)
    config = load_config(f"{tiny_recipe},best.patience=3").unlock()
    checks.check_training(config)
    config.val_data = ConfigDict({})
    with pytest.raises(UserError, match=r"config\.best\.patience=3\b.*val_data"):
        checks.check_training(config)
    config.best.patience, config.best.measure = 0, "R@5"
    with pytest.raises(UserError, match=r"'R@5'.*val_data"):
        checks.check_training(config)


def test_recipes_that_are_none(refused, tmp_path):
    for text, answer in (
        ("import nothere", "'nothere'"),
        ("def get_config(:", r"recipe\.py.*Python.*\bsyntax\b"),
        ("x = 1", r"recipe\.py.*get_config\(preset\)"),
    ):
        file = tmp_path / "recipe.py"
        file.write_text(text)
        assert re.search(answer, refused(f"--config={file}"))


def test_a_float_takes_a_whole_number_and_text_stays_text():
    config = ConfigDict({"rate": 0.5, "name": "x", "flag": False, "options": {}, "none": ()}).lock()
    for key, text in (("rate", "2"), ("name", "7"), ("flag", "True"), ("options.deep", "[1, 2]"), ("none", "a")):
        override(config, key, text)
    assert config.to_dict() == {"rate": 2.0, "name": "7", "flag": True, "options": {"deep": [1, 2]}, "none": ("a",)}
    with pytest.raises(UserError, match=r"\bkey\b.*config\.new\b"):
        override(config, "new", "1")
