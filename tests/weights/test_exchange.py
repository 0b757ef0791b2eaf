"""Weights in and out by command: import, export under the originals' names, StableHLO, and what goes with them."""

import json
import re

import jax
import numpy as np
import pytest

import jaxvpr
from jaxvpr import builders, weights
from jaxvpr.cli.arguments import parse
from jaxvpr.cli.recipes import load_config
from jaxvpr.errors import UserError
from jaxvpr.runs import model_file
from jaxvpr.verbs import export
from jaxvpr.weights import stablehlo

METHOD = "configs/zoo.py:cosplace-resnet18-32"
SMALL = ["--config.model.backbone_options.widths=(8,8,8,8)", "--config.model.backbone_options.sizes=(1,1,1,1)"]
SMALL += ["--config.image.size=(64,48)", "--config.image.resize=pil_bilinear"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A random initialisation of a small CosPlace, written by the command as a .safetensors file."""
    out = tmp_path_factory.mktemp("exported") / "model.safetensors"
    config = parse(["export", f"--config={METHOD}", *SMALL, f"--out={out}"]).config
    with jax.numpy_dtype_promotion("standard"):
        export.run(config, out.parent / "none", "best", out)
    return out


def test_a_method_fills_model_and_image():
    config = load_config("configs/zoo.py:cosplace-resnet18-64")
    assert config.model.backbone == "resnet18" and config.model.aggregator_options.dim == 64
    assert config.image.size == () and config.name == "cosplace-resnet18-64"
    changed = load_config("configs/zoo.py:cosplace-resnet18-64,model.aggregator_options.dim=7")
    assert changed.model.aggregator_options.dim == 7, "changes count after the method"
    other = load_config("configs/cosplace.py:tiny,method=cosplace-resnet18-64")
    assert other.model.backbone_options.to_dict() == {} and other.image.size == ()
    assert other.epochs == 2
    sfrs = load_config("configs/zoo.py:sfrs")
    assert sfrs.image.size == (480, 640) and sfrs.image.mean[0] == pytest.approx(123.68 / 255)
    assert sfrs.model.aggregator_options.inner.aggregator == "netvlad"


def test_export_carries_its_preprocessing_and_repeats(exported, door, tmp_path):
    report = json.loads(exported.with_name("model.safetensors.json").read_text())
    assert report["family"] == "cosplace" and report["weights"] == "random, seed 0"
    assert report["preprocess"]["size"] == [64, 48] and report["reads back"] == "bit for bit"
    notes = weights.read_metadata(exported)
    assert json.loads(notes["preprocess"]) == report["preprocess"] and notes["format"] == "pt"
    again = tmp_path / "again.safetensors"
    assert door("export", f"--config={METHOD}", *SMALL, f"--out={again}").status == 0
    assert weights.read(again).keys() == weights.read(exported).keys()
    for name, tensor in weights.read(again).items():
        np.testing.assert_array_equal(tensor, weights.read(exported)[name])
    door("export", f"--config={METHOD}", *SMALL, "--config.seed=1", f"--out={again}", "--overwrite")
    assert (weights.read(again)["backbone.0.weight"] != weights.read(exported)["backbone.0.weight"]).any()


@pytest.mark.torch
def test_the_original_loads_what_we_write_and_we_import_it(exported, door, tmp_path):
    import torch
    import torch_models as originals

    file = tmp_path / "best_model.pth"
    assert door("export", f"--config={METHOD}", *SMALL, f"--checkpoint={exported}", f"--out={file}").status == 0
    peer = originals.CosPlaceNet(originals.ResNet(originals.BasicBlock, (1,) * 4, (8,) * 4), 8, 32).eval()
    peer.load_state_dict(torch.load(file, weights_only=True), strict=True)

    run = tmp_path / "run"
    answer = door("import", f"--config={METHOD},weights={file}", *SMALL, f"--workdir={run}")
    assert answer.status == 0 and f"read {file}" in answer.out, answer.err
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 48, 3), np.uint8)
    with torch.no_grad():
        expected = peer(originals.normalised(images)).numpy()
    for source in (run, exported):
        np.testing.assert_allclose(jaxvpr.load(source).describe(images), expected, atol=1e-5)


def test_a_family_of_backbones_says_what_it_leaves_out(exported, door, tmp_path):
    out = tmp_path / "backbone.safetensors"
    answer = door("export", f"--config={METHOD}", *SMALL, f"--out={out}", "--family=torchvision_resnet")
    assert answer.status == 0 and "left out: aggregator/fc/bias, aggregator/fc/kernel" in answer.err
    assert {"aggregator/gem/p", "aggregator/fc/kernel"} <= set(json.loads(answer.out)["left out"])
    assert json.loads(exported.with_name("model.safetensors.json").read_text())["left out"] == []


def test_a_recipe_of_before_a_key_came_to_be_is_still_read(exported, tmp_path):
    notes = weights.read_metadata(exported)
    recipe = json.loads(notes["jaxvpr_config"])
    for key in ("multiple", "crop", "mean"):
        del recipe["image"][key]
    old = tmp_path / "old.safetensors"
    weights.write(old, weights.read(exported), {"jaxvpr_config": json.dumps(recipe)})
    images = np.random.default_rng(2).integers(0, 256, (2, 64, 48, 3), np.uint8)
    np.testing.assert_array_equal(jaxvpr.load(old).describe(images), jaxvpr.load(exported).describe(images))


def test_extract_closes_the_loop(exported, door, tmp_path, photo_tree):
    folder = photo_tree / "images/test/queries"
    out = tmp_path / "rows.npy"
    answer = door("extract", f"--config={METHOD},weights={exported}", *SMALL, f"--images={folder}", f"--out={out}")
    assert answer.status == 0, answer.err
    names = sorted(str(path) for path in folder.iterdir())
    np.testing.assert_allclose(np.load(out), jaxvpr.load(exported).describe(names), atol=1e-6)


def test_an_imported_run_is_measured_and_new_sets_can_be_named(exported, door, refused, tmp_path, photo_tree):
    run = tmp_path / "run"
    assert door("import", f"--config={METHOD},weights={exported}", *SMALL, f"--workdir={run}").status == 0
    answer = door(
        "evaluate", f"--config={METHOD},test_data.mine.root={photo_tree},test_data.mine.split=test", *SMALL,
        f"--workdir={run}", "--config.eval.recalls=(1,5)",
    )  # fmt: skip
    assert answer.status == 0, answer.err
    assert json.loads((run / "evaluate" / "metrics.json").read_text())["results"][0]["dataset"] == "mine"
    missing = refused("import", f"--config={METHOD}", *SMALL, "--checkpoint=no.pth", f"--workdir={run}")
    assert "--checkpoint=no.pth: no such file" in missing
    (run / "checkpoints" / "4").mkdir(parents=True)
    trained = refused("import", f"--config={METHOD},weights={exported}", *SMALL, f"--workdir={run}")
    assert f"{run} holds a training" in trained
    nowhere = refused("evaluate", f"--config={METHOD},weights={exported}", *SMALL)
    assert "--database" in nowhere and "test_data.NAME.reader=READER" in nowhere


def test_stablehlo_equals_the_model_for_any_batch(exported, door, tmp_path):
    out = tmp_path / "model.stablehlo"
    answer = door("export", f"--config={METHOD},weights={exported}", *SMALL, f"--out={out}")
    assert answer.status == 0, answer.err
    report = json.loads((tmp_path / "model.stablehlo.json").read_text())
    assert report["input"] == ["batch", 64, 48, 3] and report["platforms"] == ["cpu", "cuda", "tpu"]
    for batch in ("batch of 1", "batch of 3"):
        assert report["parity"][batch]["largest difference"] < 1e-6
    images = np.random.default_rng(1).integers(0, 256, (5, 64, 48, 3), np.uint8)
    program = jax.export.deserialize(bytearray(out.read_bytes()))
    assert report["computed in"] == "float32"
    products = re.findall(r"stablehlo\.(?:convolution|dot_general).*", program.mlir_module())
    assert products and all(line.count("HIGHEST") == 2 for line in products)
    describe = program.call
    np.testing.assert_allclose(describe(images), jaxvpr.load(exported).describe(images), atol=1e-6)


def test_parity_sees_other_weights(exported):
    config, variables = model_file.load_model(exported)
    apply = builders.apply(config)
    serialised = stablehlo.program(apply, variables, 64, 48)
    changed = jax.tree.map(lambda leaf: leaf, variables)
    changed["params"]["aggregator"]["fc"]["kernel"] = variables["params"]["aggregator"]["fc"]["kernel"][:, ::-1]
    found = stablehlo.parity(serialised, apply, changed, 64, 48)
    assert found["batch of 1"]["largest difference"] > 1e-2


MISTAKES = {
    "method": (["export", "--config=configs/zoo.py:salat", "--out=a.pth"], r"method.*'salat'.*cosplace-vgg16-64, "),
    "no method": (["export", "--config=configs/zoo.py", "--out=a.pth"], r"zoo\.py.*\bmethod\b.*\bcolon\b"),
    "method begun": (["export", "--config=configs/zoo.py:salad", "--out=a.pth"], "mean salad-dinov2s or salad-"),
    "own size": (["export", f"--config={METHOD}", "--out=a.stablehlo"], r"program.*--config\.image\.size="),
    "nothing to train on": (["train", f"--config={METHOD}"], r"train_data.*configs/cosplace\.py"),
    "no weights": (
        ["extract", f"--config={METHOD}", "--images=.", "--out=a.npy"],
        r"--checkpoint=FILE.*--config=RECIPE,weights=FILE",
    ),
    "type": (["export", f"--config={METHOD},model.dtype=float8", "--out=a.pth"], r"config\.model.*'float8'"),
    "patch": (
        ["export", "--config=configs/zoo.py:salad-dinov2s,image.size=()", "--out=a.pth"],
        r"\b14\b.*image\.multiple",
    ),
    "ending": (["export", f"--config={METHOD}", "--out=a.onnx"], r"--out=a\.onnx.*\.safetensors"),
    "no out": (["export", f"--config={METHOD}"], "needs --out"),
    "import what": (["import", f"--config={METHOD}"], "import.*weights=FILE"),
    "no such file": (["import", f"--config={METHOD},weights=no.pth"], r"no\.pth.*no such file"),
    "family": (
        ["export", f"--config={METHOD}", *SMALL, "--out=a.safetensors", "--family=rsnet"],
        r"family.*'rsnet'.*\['",
    ),
    "program of a family": (
        ["export", f"--config={METHOD}", *SMALL, "--out=a.stablehlo", "--family=cosplace"],
        r"--family=cosplace.*\.stablehlo",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes(case, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, expected = MISTAKES[case]
    assert re.search(expected, refused(*arguments), re.S)


def test_another_familys_file_says_what_is_missing_and_left_over(exported, refused, tmp_path):
    strange = weights.read(exported)
    strange["module_of_theirs.weight"] = strange.pop("backbone.0.weight")
    file = tmp_path / "strange.safetensors"
    weights.write(file, strange)
    said = refused("import", f"--config={METHOD},weights={file}", *SMALL)
    assert re.search(r"cosplace.*missing.*backbone\.0\.weight.*left over.*module_of_theirs\.weight", said)
    wide = refused("import", f"--config={METHOD},weights={exported},model.aggregator_options.dim=9", *SMALL)
    assert re.search(r"aggregation\.3\.weight.*\(32, 8\).*aggregator/fc/kernel.*\(8, 9\)", wide)


DAMAGED = [
    "", "x", "[]", "null", "[" * 100_000, '{"a":' * 2_000 + "1" + "}" * 2_000, '{"model": 3}',
    '{"model": {"backbone": 3}}',
    '{"image": {"size": "abc"}}', '{"image": {"size": [1e99, 3]}}', '{"seed": 1e400}', '{"a.b": 1}', '{"init": 3}',
    '{"seed": -1}',
]  # fmt: skip


@pytest.mark.parametrize("text", DAMAGED, ids=lambda text: text[:30])
def test_a_file_whose_recipe_is_damaged_is_named(text, exported, tmp_path):
    file = tmp_path / "strange.safetensors"
    weights.write(file, weights.read(exported), {"jaxvpr_config": text})
    for use in (jaxvpr.load, model_file.began_from):
        with pytest.raises(UserError, match=r"(?s)strange\.safetensors.*recipe in it is damaged.*--config=RECIPE\.py"):
            use(file)


def test_the_advice_for_a_damaged_recipe_works_as_printed(exported, tmp_path):
    file = tmp_path / "strange.safetensors"
    weights.write(file, weights.read(exported), {"jaxvpr_config": "x"})
    config = parse(["export", f"--config={METHOD}", *SMALL, f"--out={tmp_path / 'again.safetensors'}"]).config
    export.run(config, tmp_path / "none", str(file), tmp_path / "again.safetensors")
    np.testing.assert_equal(weights.read(tmp_path / "again.safetensors"), weights.read(exported))
