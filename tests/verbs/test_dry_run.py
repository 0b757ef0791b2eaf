"""`--dry-run`: what it shows is what the command does, and nothing but a picture is written."""

import io
import os
import re
import shutil

import clip_recipes
import jax
import numpy as np
import pytest
from PIL import Image

from data_pipelines.loaders import loading_options
from jaxvpr.errors import UserError
from jaxvpr.parallel.mesh import batch_sharding
from jaxvpr.reports.contact_sheet import Tile, contact_sheet, in_rows
from jaxvpr.training import rehearsal, settings
from jaxvpr.training.feed import Feed
from jaxvpr.training.state import planned
from jaxvpr.training.step import Turn, make_step
from jaxvpr.verbs import preview, train
from jaxvpr.weights.safetensor_files import load


@pytest.fixture
def shown(door):
    """shown(*arguments) -> {what: text} of a dry run that ended well."""

    def run(*arguments):
        status, out, err = door(*arguments, "--dry-run")
        assert status == 0, err
        return dict(re.findall(r"^  (\S+(?: \S+)*)  +(\S.*)$", out, re.MULTILINE))

    return run


def content(folder):
    return {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.rglob("*") if file.is_file()}


def test_a_training_in_hand_known_numbers(shown, tiny_recipe, tmp_path):
    """25 places of 3 images to train on, 1 database image and 1 query to validate on, 2 and 1 to test on."""
    facts = shown(f"--config={tiny_recipe}", f"--workdir={tmp_path / 'run'}")
    assert facts["training images"].split(", ")[0].endswith(": 75 images")
    assert facts["validation val"] == "25 queries, 25 database images; 25m: 0 queries without positive; val"
    assert facts["test test"] == "25 queries, 50 database images; 25m: 0 queries without positive; test"
    assert facts["steps"] == "12: 2 epochs of 6; 8 images a step, 1.28 draws of each image"
    assert re.fullmatch(r"2 groups of \d+ to \d+ classes, \d+ images", facts["learned"])
    assert facts["folder"] == f"{tmp_path / 'run'}: a new run"
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["first_batch.png"]
    with Image.open(facts["first batch"]) as picture:
        assert picture.format == "PNG" and picture.width > 3 * picture.height, "8 images in a row"


@pytest.mark.long
def test_a_training_on_images_and_clips(tiny_config, drive_tree, tmp_path):
    """16 images and 8 queries of 4 clips with 3 frames a step; a clip is a row of the picture."""
    config = clip_recipes.both(tiny_config, drive_tree).lock()
    with jax.numpy_dtype_promotion("standard"):
        facts = preview.training(config, tmp_path / "run", *train.prepared(config)).facts
    assert facts["steps"].startswith("12: 2 epochs of 6; 112 images a step, ")
    assert facts["validation val"].startswith("22 queries, 22 database clips of 3 frames")
    assert "database clips of 3 frames" in facts["learned"] and "2 groups of" in facts["learned"]
    file, _, why = facts["first batch"].partition(" (")
    with Image.open(file) as picture:
        assert why.startswith("mined with random") and picture.height > 20 * picture.width / 8


def test_queries_without_a_positive_are_counted(shown, tiny_recipe):
    """No database image is as near as that; a name has two decimals."""
    facts = shown(f"--config={tiny_recipe},val_data.val.thresholds=('25m','0.001m')")
    assert facts["validation val"].endswith("25m: 0 queries without positive; 0.001m: 25 queries without positive; val")


def test_a_part_of_the_map_held_out_is_said_and_serves_as_the_test_too(shown, tiny_recipe):
    """75 images, three of a spot, within 120 m; their names tell no two days apart."""
    changes = "val_data={},test_data={},train_data.hold_out=0.3,train_data.gap=20,objective.partition.min_images=1"
    facts = shown(f"--config={tiny_recipe},{changes}")
    asked, known = map(int, re.match(r"(\d+) queries, (\d+) database images; ", facts["validation held_out"]).groups())
    trained = int(re.search(r": (\d+) images", facts["training images"])[1])
    assert facts["validation held_out"].endswith("; train (0.3 held out, gap 20 m, queries by image)")
    assert facts["test held_out"] == facts["validation held_out"]
    assert 15 <= asked + known <= 30 and trained < 75 - asked - known


@pytest.mark.long
def test_the_first_batch_is_that_of_the_training_to_the_bit(tiny_config, tmp_path, monkeypatch):
    drawn, read, look = [], [], rehearsal.first_batch

    def stop(feed, local):
        read.append(local)
        raise UserError("that will do")

    monkeypatch.setattr(preview.rehearsal, "first_batch", lambda *given: drawn.append(look(*given)) or drawn[-1])
    preview.training(tiny_config, tmp_path / "a", *train.prepared(tiny_config))
    monkeypatch.setattr(Feed, "on_mesh", stop)
    with pytest.raises(UserError, match="that will do"):
        train.run(tiny_config, tmp_path / "b")
    shown, trained = drawn[0].read["source"], read[0]["source"]
    assert trained["image"].std() > 10 and not drawn[0].guessed
    for name, values in trained.items():
        assert np.array_equal(shown[name], values), name


def test_a_run_that_is_there_is_gone_on_with_and_left_as_it_is(shown, refused, tiny_recipe, trained_run, tmp_path):
    run = shutil.copytree(trained_run, tmp_path / "run")
    before, workdir = content(run), f"--workdir={run}"
    facts = shown(f"--config={tiny_recipe}", workdir)
    assert facts["folder"] == f"{run}: has ended; would measure again"
    weights = sum(
        value.size for name, value in load(run / "model.safetensors").items() if not name.endswith((".mean", ".var"))
    )
    assert facts["parameters"].startswith(f"{weights:,}, of which {weights:,} train; ")
    shutil.rmtree(run / "checkpoints" / "12")
    assert shown(f"--config={tiny_recipe}", workdir)["folder"] == f"{run}: would go on at step 6 of 12"
    assert "optimizer.rate" in refused(f"--config={tiny_recipe},optimizer.rate=1", workdir, "--dry-run")
    left = {file: value for file, value in before.items() if file.exists()}
    assert content(run) == {**left, run / "first_batch.png": content(run)[run / "first_batch.png"]}


def test_operations_in_order_are_asked_for_before_jax_starts_and_not_within_a_run(
    refused, tiny_recipe, trained_run, monkeypatch
):
    monkeypatch.setenv("XLA_FLAGS", os.environ["XLA_FLAGS"])
    said = refused(f"--config={tiny_recipe},deterministic=true", f"--workdir={trained_run}", "--dry-run")
    assert "deterministic: False there, True now" in said
    assert os.environ["XLA_FLAGS"].endswith(" --xla_gpu_deterministic_ops=true")


def test_mined_triplets_say_that_their_batch_is_a_guess(shown, photo_tree, tmp_path):
    """Places lie 22 m or more apart, images of one at most 11.4: each of 75 has a positive within 15 m."""
    sets = ",".join(
        f"{group}={{'{name}':{{'reader':'at_names','root':'{photo_tree}','split':'{name}'}}}}"
        for group, name in (("val_data", "val"), ("test_data", "test"))
    )
    own = f"train_data={{'reader':'at_names','root':'{photo_tree}','split':'train'}},{sets},image.size=(32,32)"
    mined = "objective.positive=15m,objective.refresh=24,objective.pool=30,batch=8,steps_per_epoch=3,clusters.images=0"
    recipe = f"configs/netvlad.py,init=,eval.recalls=(1,5),{own},{mined}"
    facts = shown(f"--config={recipe}", f"--workdir={tmp_path}")
    assert facts["learned"] == "triplets of 75 queries (0 more have no positive) and 75 database images"
    assert "56 images a step" in facts["steps"] and "random descriptors" in facts["first batch"]
    assert (tmp_path / "first_batch.png").is_file()


def test_every_run_of_a_sweep_is_a_line(shown, tiny_recipe, tmp_path):
    file = tmp_path / "sweep.py"
    runs = {"slow": {"epochs": 3}, "small": {"model.aggregator_options.dim": 8}}
    given = {"name": "two", "recipe": str(tiny_recipe), "runs": runs, "seeds": {"slow": 3}}
    file.write_text(f"def get_sweep(preset=''):\n    return {given!r}\n")
    out = tmp_path / "out"
    facts = shown("sweep", f"--config={file}", f"--workdir={out}")
    assert list(facts)[:2] == ["slow", "small"]
    slow, small = (re.split(r"  +", facts[name]) for name in runs)
    assert slow[:2] == ["3 seeds", "a new run"] and slow[3] == "18 steps" and small[3] == "12 steps"
    assert slow[2] == small[2] and re.fullmatch(r"2 groups of \d+ to \d+ classes, \d+ images", slow[2])
    numbers = [int(re.sub(r"\D", "", cells[4])) for cells in (slow, small)]
    assert numbers[0] - numbers[1] == 24 * (16 + 1 + 2), "a linear layer from 16 numbers, and its BatchNorm"
    assert sorted(content(out)) == [out / name / "first_batch.png" for name in runs]


def test_an_evaluation_and_an_extraction(shown, tiny_recipe, trained_run, photo_tree, tmp_path):
    model = f"--checkpoint={trained_run / 'model.safetensors'}"
    facts = shown("evaluate", f"--config={tiny_recipe}", model, f"--out={tmp_path / 'results'}")
    assert facts["test test"] == "25 queries, 50 database images; 25m: 0 queries without positive; searched on the host"
    assert facts["descriptors"] == "75 of 32 numbers, 0.0 MiB"
    assert facts["weights"] == str(trained_run / "model.safetensors")
    assert [file.name for file in (tmp_path / "results").iterdir()] == ["first_batch.png"]
    photos, out = photo_tree / "images" / "test" / "database", tmp_path / "places.npy"
    facts = shown("extract", f"--config={tiny_recipe}", model, f"--images={photos}", f"--out={out}")
    assert facts["images"].split(", ")[0].endswith(": 50 images") and facts["results"].startswith(f"{out}, ")
    assert facts["first batch"] == str(tmp_path / "places_first_batch.png") and not out.exists()


def test_images_to_measure_are_shown_as_the_model_sees_them(tiny_config, photo_tree, tmp_path):
    """Without augmentation and at their own size the pixels are those of the file."""
    config = tiny_config.copy_and_resolve_references().unlock()
    config.image.size = ()
    mesh, paths = preview.builders.mesh(config), preview.builders.places(config, config.train_data).path
    kept = []

    def sheet(title, rows):
        kept.extend(tile for row in rows for tile in row)
        return contact_sheet(title, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preview, "contact_sheet", sheet)
        preview._first_images(config, mesh, paths)
    assert len(kept) == 16
    for row, tile in enumerate(kept):
        with Image.open(paths[row]) as image:
            assert np.abs(tile.image.astype(int) - np.asarray(image)).max() <= 2, "decoders round differently"


@pytest.mark.long
@pytest.mark.parametrize(("batch", "fsdp_mib"), [(8, 0.0), (8, 0.001), (64, 0.0)])
def test_the_memory_is_about_what_the_compiled_step_takes(tiny_config, batch, fsdp_mib):
    config = tiny_config.copy_and_resolve_references().unlock()
    config.batch = batch
    recipe, mesh, *_ = train.prepared(config)
    settled = settings.settle(config, recipe, mesh)
    _, state = planned(
        recipe.model, recipe.objective, settled.groups, mesh, example=recipe.example, frozen=settled.frozen, seed=0,
        fsdp_mib=fsdp_mib,
    )  # fmt: skip
    feed = Feed(recipe.sources, mesh, seed=0, loader=loading_options(config.loader), by_image=settled.by_image)
    batch = rehearsal.first_batch(recipe.objective, feed, mesh, 0)
    takes = rehearsal.memory(recipe.objective, mesh, state, batch, frozen=settled.frozen)
    step = make_step(
        recipe.objective, settled.groups, mesh, jax.tree.map(lambda leaf: leaf.sharding, state), total=10, epoch=5
    )
    sharding = batch_sharding(mesh)
    batches = {
        name: {key: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding) for key, x in local.items()
               if key not in ("row", "bad")}
        for name, local in batch.read.items()
    }  # fmt: skip
    with jax.numpy_dtype_promotion("standard"):
        found = step.lower(state, batches, Turn(np.int32(0))).compile().memory_analysis()
    assert 0.5 < takes.total / (found.argument_size_in_bytes + found.temp_size_in_bytes) < 2


def test_a_sheet_shows_every_pixel_of_small_images_and_leaves_room_for_empty_places():
    image = np.zeros((4, 8, 3), np.uint8)
    image[1, 2] = 255, 0, 0
    rows = in_rows([Tile(image, "one"), Tile(None, "not readable"), *[Tile(image)] * 7])
    assert [len(row) for row in rows] == [8, 1]
    with Image.open(io.BytesIO(contact_sheet("a title that is far too long " * 20, rows, side=64))) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    red = (pixels == (255, 0, 0)).all(-1)
    assert red.sum() == 8 * 8 * 8, "8 images, each pixel as 8 x 8"
