"""What users get wrong with their data, through the door: a message that names it, status 2, no traceback."""

import gc
import json
import os
import re
import shutil
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

# What the door imports late is here before rights are given up: the interpreter may lie where nobody else may look.
import jaxvpr.verbs.export
import jaxvpr.verbs.localize
import jaxvpr.verbs.train  # noqa: F401
from jaxvpr.errors import UserError
from jaxvpr.runs import workdir

TRAIN = "images/train"


@pytest.fixture
def tree(photo_tree, tmp_path):
    """A copy of `photo_tree` to be spoilt."""
    return shutil.copytree(photo_tree, tmp_path / "photos")


@pytest.fixture
def command(tiny_recipe, photo_tree, tmp_path):
    """command(root, *more): the recipe trained, validated and tested on `root`, in a folder of its own."""

    def arguments(root, *more):
        roots = [f"--config.{group}.root={root}" for group in ("train_data", "val_data.val", "test_data.test")]
        return [f"--config={tiny_recipe}", *roots, f"--workdir={tmp_path / 'run'}", *more]

    return arguments


def photos(tree, folder=TRAIN):
    return sorted((tree / folder).iterdir())


def cut(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def test_no_folder(refused, command, tmp_path):
    said = refused(*command(tmp_path / "none"))
    assert re.findall(rf"config\.(\S+)\.root={re.escape(str(tmp_path / 'none'))}: no such folder", said) == [
        "train_data", "val_data.val", "test_data.test"
    ]  # fmt: skip


def test_empty_folder(refused, command, tree):
    for photo in photos(tree):
        photo.unlink()
    said = refused(*command(tree))
    assert re.search(rf"no image.*{re.escape(str(tree / TRAIN))}.*\.jpg", said)


def test_name_without_coordinates(refused, command, tree):
    photo = photos(tree)[7]
    photo.rename(photo.with_name("holiday.jpg"))
    assert f"{tree / TRAIN / 'holiday.jpg'}" in refused(*command(tree))


def test_mixed_zones(refused, command, tree):
    photo = photos(tree)[7]
    photo.rename(photo.with_name(photo.name.replace("@33@", "@32@")))
    said = refused(*command(tree))
    assert "2 UTM zones" in said and "@32@" in said and "@33@" in said


@pytest.mark.parametrize(
    ("folder", "zones"), [("images/test/queries", r"\b33\b.*\b32\b"), ("images/val/database", "@32@")]
)
def test_mixed_zones_of_the_images_to_measure_on(refused, command, tree, folder, zones):
    for photo in photos(tree, folder)[: 100 if "queries" in folder else 1]:
        photo.rename(photo.with_name(photo.name.replace("@33@", "@32@")))
    said = refused(*command(tree))
    assert re.search(rf"UTM zone.*{zones}", said)


def test_a_file_that_is_no_image(refused, command, tree):
    (tree / TRAIN / "film.mp4").write_bytes(b"0" * 99)
    said = refused(*command(tree))
    assert re.search(r"film\.mp4.*\bimages\b", said) and str(tree / TRAIN) in said


def test_classes_too_small_and_groups_too_many(refused, command, tree):
    said = refused(*command(tree, "--config.objective.partition.min_images=9"))
    assert re.search(r"class.*\b9 images.*\b25 classes.*\b75 images.*\b3\b.*min_images", said)
    said = refused(*command(tree, "--config.objective.partition.groups=9"))
    assert re.search(r"\bgroups=9\b.*\b4 groups.*\b1 to 4\b", said)


@pytest.fixture
def as_anybody(tmp_path, tiny_recipe):
    """A context without the superuser's rights, before whom every folder is open; the way to our own files stays."""
    if not hasattr(os, "geteuid"):
        pytest.skip("this system has no users")
    above = {*tmp_path.parents, tiny_recipe.parent, *tiny_recipe.parent.parents}
    ways = {folder: mode for folder in above if (mode := folder.stat().st_mode) & 0o005 != 0o005}

    @contextmanager
    def rights():
        was = os.geteuid()
        if not was:
            for folder in ways:
                folder.chmod(0o755)
            os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(was)
            for folder, mode in ways.items():
                folder.chmod(mode)

    return rights


@pytest.mark.parametrize("closed", ["", "images", TRAIN])
def test_unreadable_folder(refused, command, tree, tmp_path, as_anybody, closed):
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o777)
    tmp_path.chmod(0o755)
    tree.chmod(0o755)
    (tree / closed).chmod(0)
    try:
        with as_anybody():
            said = refused(*command(tree))
    finally:
        (tree / closed).chmod(0o755)
    assert f"{tree / closed}" in said and "ermission" in said


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (cut, "truncated"),
        (lambda file: file.write_bytes(b""), "empty"),
        (lambda file: file.write_text("not a photo"), "not an image"),
    ],
)
def test_unreadable_image_in_training(door, refused, command, tree, spoil, reason, tmp_path):
    """Fatal by default; with on_error=skip it is named in each batch, and counted at the end."""
    for photo in photos(tree)[::3]:
        spoil(photo)
    said = refused(*command(tree))
    assert reason in said and f"{tree / TRAIN}" in said and "--config.loader.on_error=skip" in said
    if reason.startswith("truncated"):
        status, _, err = door(*command(tree, "--config.loader.on_error=skip", "--config.eval.baselines=false"))
        assert status == 0, err
        named = [line for line in err.splitlines() if "left out of its batch: " in line]
        assert named and all(reason in line and f"{tree / TRAIN}" in line for line in named)
        # A batch names an image once, also where it was drawn twice.
        counted = re.search(r"(\d+) times an image could not be read and was left out of its batch", err)
        assert counted and int(counted[1]) >= len(named)


def test_not_one_image_of_the_training_can_be_read(refused, command, tree):
    """Six batches of eight are an epoch: the first epoch ends the run, not the last."""
    for photo in photos(tree):
        cut(photo)
    said = refused(*command(tree, "--config.loader.on_error=skip"))
    assert re.search(r"step 5: none of the images of the last 6 batches could be read.*root", said), said


def test_unreadable_image_to_measure_on(door, refused, tree, tiny_recipe, trained_run, tmp_path):
    run = shutil.copytree(trained_run, tmp_path / "run")
    database, query = photos(tree, "images/test/database")[0], photos(tree, "images/test/queries")[0]
    cut(database)
    cut(query)
    folders = [f"--database={database.parent}", f"--queries={query.parent}", f"--workdir={run}"]
    assert str(database) in refused("evaluate", f"--config={tiny_recipe}", *folders)
    status, out, err = door("evaluate", f"--config={tiny_recipe},loader.on_error=skip,eval.baselines=false", *folders)
    assert status == 0, err
    for photo, count in ((database, "1 of 50"), (query, "1 of 25")):
        assert sum(str(photo) in line for line in err.splitlines()) == 1
        assert f"{count} images could not be read" in err
    assert "2 unreadable images" in out


def test_images_of_other_sizes_are_resized(door, tree, command):
    for number, photo in enumerate(photos(tree)):
        image = cv2.imread(str(photo))
        cv2.imwrite(str(photo), cv2.resize(image, (40 + number, 31), interpolation=cv2.INTER_LINEAR))
    grey = photos(tree, "images/val/queries")[0]
    cv2.imwrite(str(grey), np.full((7, 90), 128, np.uint8))
    status, _, err = door(*command(tree, "--config.eval.baselines=false"))
    assert status == 0 and "could not be read" not in err, err


def test_a_run_of_before_a_key_came_to_be_has_its_default(tiny_config, trained_run, tmp_path):
    run = shutil.copytree(trained_run, tmp_path / "run")
    saved = json.loads((run / "config.json").read_text())
    del saved["model"]["l2_after"], saved["domain"], saved["train_data"]["clips"], saved["objective"]["head_steps"]
    for spec in saved["val_data"].values():
        del spec["clips"], spec["role"]
    (run / "config.json").write_text(json.dumps(saved))
    workdir.refuse_other(run, tiny_config)
    other = tiny_config.copy_and_resolve_references().unlock()
    other.model.l2_after, other.model.batch_norm_images, other.train_data.clips.length = False, 4, 5
    differ = r"model\.batch_norm_images: 0 there, 4 now\n +model\.l2_after: True there, False now\n"
    with pytest.raises(UserError, match=differ + r" +train_data\.clips\.length: 0 there, 5 now\nGive"):
        workdir.refuse_other(run, other)


def test_folder_of_another_configuration(refused, door, tiny_recipe, trained_run, tmp_path):
    run = shutil.copytree(trained_run, tmp_path / "run")
    said = refused(f"--config={tiny_recipe}", "--config.optimizer.rate=0.5", "--config.seed=3", f"--workdir={run}")
    assert re.search(r"optimizer\.rate.*\b0\.004\b.*\b0\.5\b", said) and re.search(r"\bseed\b.*\b0\b.*\b3\b", said)
    assert "--workdir" in said


def test_a_folder_of_a_shorter_run(refused, tiny_config, tiny_recipe, trained_run, tmp_path, caplog):
    """More epochs are taken, with a word on what depends on their number; fewer are another run."""
    run = shutil.copytree(trained_run, tmp_path / "run")
    longer = tiny_config.copy_and_resolve_references().unlock()
    longer.epochs = 3
    caplog.set_level("INFO", "jaxvpr")
    workdir.claim(run, longer)
    assert re.search(
        r"2 epochs goes on to 3.*optimizer\.schedule=cosine, optimizer_extra.*objective\.margin_warmup$",
        caplog.text.strip(),
    )
    assert json.loads((run / "config.json").read_text())["epochs"] == 3
    assert re.search(r"epochs: 3 there, 2 now", refused(f"--config={tiny_recipe}", f"--workdir={run}"))
    caplog.clear()
    for group in ("optimizer", "optimizer_extra"):
        longer[group].update(schedule="multi_step", milestones=(1,))
    longer.objective.margin_warmup = 0.0
    (run / "config.json").write_text(longer.to_json())
    longer.epochs = 5
    workdir.claim(run, longer)
    assert caplog.text.strip().endswith("3 epochs goes on to 5, as if it had had them from the beginning")


def test_a_checkpoint_of_another_model(refused, tiny_recipe, trained_run, tmp_path):
    """What differs is named by key, before a file of the checkpoint is opened. What changes no parameter is taken."""
    (none := tmp_path / "none").mkdir()
    evaluate = ("evaluate", f"--workdir={trained_run}", f"--database={none}", f"--queries={none}")
    said = refused(*evaluate, f"--config={tiny_recipe},model.aggregator_options.dim=16,model.dtype=bfloat16")
    assert re.search(r"config\.model\.aggregator_options\.dim: 32 there, 16 now", said) and "--workdir" in said
    assert "model.dtype: 'float32' there, 'bfloat16' now" in said and "Requested shape" not in said
    said = refused(*evaluate, f"--config={tiny_recipe},model.dtype=bfloat16,model.backbone_options.frozen_until=stem")
    assert "none" in said and "another model" not in said


def test_a_folder_where_nothing_was_trained_is_free(refused, tiny_recipe, tmp_path):
    """A mistake in the first start must not bind the second to it."""
    run = f"--workdir={tmp_path / 'run'}"
    assert "lion" in refused(f"--config={tiny_recipe}", "--config.optimizer.name=lion", run)
    assert "['arcface'" in refused(f"--config={tiny_recipe},objective.loss=triplet", run)


def test_a_file_where_a_folder_must_be(refused, tiny_recipe, tmp_path):
    (tmp_path / "file").write_text("")
    assert f"{tmp_path / 'file'}" in refused(f"--config={tiny_recipe}", f"--workdir={tmp_path / 'file'}")


# What orbax leaves behind when a file is cut short: coroutines that were never awaited to their end.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_run_goes_on_from_the_checkpoint_before_one_cut_short(door, tiny_recipe, trained_run, tmp_path):
    run = shutil.copytree(trained_run, tmp_path / "run")
    (run / "model.safetensors").unlink()
    for file in (run / "checkpoints" / "12" / "state" / "d").iterdir():
        cut(file)
    status, _, err = door(f"--config={tiny_recipe}", f"--workdir={run}")
    assert status == 0 and "checkpoint 12 cannot be read" in err and "went back to checkpoint 6" in err, err
    assert "resumed at step 6 of 12" in err
    gc.collect()  # while the warnings of what orbax left behind belong to this test
    for name in ("model.safetensors", "log.jsonl"):
        assert (run / name).read_bytes() == (trained_run / name).read_bytes(), name


WRONG = {
    "model.backbone=vgg": r"config\.model.*backbone.*'vgg'.*\['cct14_224'",
    "model.aggregator=netvlad9": r"config\.model.*aggregator.*'netvlad9'.*\['boq'",
    "model.dtype=float33": r"config\.model.*'float33'.*\['float32', 'bfloat16', 'float16'\]",
    "model.dtype=int8": r"config\.model.*'int8'.*\['float32', 'bfloat16', 'float16'\]",
    "model.aggregator_options.dim=0": r"config\.model: a size of 0.*'dim': 0",
    "model.backbone_options.widths=(8,0,8,8)": r"options\.widths=\(8, 0, 8, 8\) must be at least 1",
    "model.backbone_options.depth=3": r"option.*\['depth'\].*\['sizes'",
    "model.backbone_options.widths=8": r"config\.model.*\b4\b.*\bsizes\b.*\b1 widths",
    "objective.loss=triplet": r"objective\.loss='triplet'.*\['arcface', 'cosface'",
    "objective.name=pears": r"objective\.name='pears'.*\['cells'",
    "objective.partition.by=street": r"objective\.partition\.by='street'.*\['cell', 'place', 'square'",
    "optimizer.name=lion": r"optimizer\.name='lion'.*\['adam', 'adamw', 'asgd', 'radam', 'sgd'\]",
    "optimizer.schedule=step": r"schedule.*'step'.*\['constant', 'cosine'",
    "optimizer.warmup=100": r"warm-up.*\b100 steps.*\b12 steps",
    "train_data.reader=zip": r"config\.train_data\.reader.*'zip'.*\bat_names, baidu_mall",
    "train_data.options.depth=2": r"\bat_names\b.*option.*\['depth'\].*\['split'",
    "train_data.split=training": r"split.*'training'.*\['train', 'val', 'test'\]",
    "val_data.val.thresholds=25km": "threshold.*'25km'.*'25m'",
    "val_data.val.thresholds=25": "threshold.*'25'.*'25m'",
    "val_data.val.thresholds=list": r"list of positives.*ground_truth\.csv",
    "image.resize=cubic": "resize.*'cubic'.*pil_bilinear",
    "loader.threads=-1": r"config\.loader\.threads=-1\b.*\b0\b",
    "loader.on_error=ignore": "on_error='ignore'.*'raise'.*'skip'",
    "augment.hue=3.0": r"config\.augment.*\bhue=3\.0\b",
    "gradient_dtype=float16": r"gradient_dtype='float16'.*float32.*bfloat16",
    "model.batch_norm_images=5": r"model\.batch_norm_images=5 must divide the 8 images",
    "mesh.model=3": r"mesh\.model=3\b.*devices.*\b8\b",
    "batch=9": r"\bbatch=9\b.*\b8\b.*accumulate.*\b8 x 1\b",
    "frozen=backbone/layer9": "frozen.*'backbone/layer9'.*parameter",
    "eval.recalls=500": r"\b25 images.*eval\.recalls=\(500,\)",
}


MISNAMED = {
    "model.backbone": "vgg", "model.aggregator": "netvlad9", "objective.loss": "triplet", "optimizer.name": "lion",
    "optimizer_extra.schedule": "step", "optimizer_shared.per": "hour", "domain.method": "adda", "domain.on": "pixels",
    "objective.partition.by": "street", "loader.on_error": "ignore",
    "model.precision": "float32", "model.head_precision": "half", "train_precision": "tf32",
}  # fmt: skip


def test_every_name_that_does_not_exist_is_told_at_once_and_before_data_is_read(refused, tiny_recipe, tmp_path):
    run = f"--workdir={tmp_path / 'run'}"
    wrong = [f"--config.{key}={value}" for key, value in MISNAMED.items()]
    further = [
        "--config.val_data.val.thresholds=25km",
        "--config.train_data.options.depth=2",
    ]
    said = refused(f"--config={tiny_recipe}", *wrong, *further, run)
    told = re.findall(r"^  config\.(\S+)='(\w+)' does not exist; there are \['", said, re.MULTILINE)
    assert dict(told) == MISNAMED and len(told) == len(MISNAMED)
    assert "14 mistakes" in said and "config.val_data.val.thresholds: unknown" in said
    assert "depth" not in said and not (tmp_path / "run").exists(), "no data was read"


def test_options_of_losses_and_miners_are_told_before_data_is_read(refused, tiny_recipe):
    """A reader that does not take an option stands for data here: it would answer first."""
    places = "configs/gsv_cities.py:tiny,train_data.options.depth=2"
    said = refused(
        f"--config={places},objective.miner_options.margn=1,optimizer.options.b9=1,model.aggregator_options.x=1"
    )
    assert said.startswith("3 mistakes") and all(word in said for word in ("margn", "b9", "['x']"))


def test_what_a_measured_model_is_called_is_told_before_its_data_is_read(refused, tiny_recipe, tmp_path):
    wrong = ("--config.model.backbone=vgg", "--config.model.aggregator=neck", "--config.test_data.test.options.depth=2")
    said = refused("evaluate", f"--config={tiny_recipe}", *wrong, f"--workdir={tmp_path}")
    assert said.startswith("2 mistakes") and "'vgg'" in said and "'neck'" in said and "objective" not in said


@pytest.mark.parametrize("change", WRONG)
def test_names_and_values_that_do_not_exist(refused, tiny_recipe, tmp_path, change):
    said = refused(f"--config={tiny_recipe}", f"--config.{change}", f"--workdir={tmp_path / 'run'}")
    assert re.search(WRONG[change], said), said
