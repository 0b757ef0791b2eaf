"""Every preset of every recipe in configs/: its keys fit together, and what it trains is what its paper trains."""

import re
import runpy
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from data_pipelines import readers
from data_pipelines.minicity import CityConfig, strip_size
from data_pipelines.places import Paths
from data_pipelines.readers.msls import CITIES
from jaxvpr import builders, weights
from jaxvpr.builders import datasets
from jaxvpr.builders.training_images import image_source
from jaxvpr.cli import checks, recipes, weight_source
from jaxvpr.families import FAMILIES, triplets
from jaxvpr.losses.metric import options_of
from jaxvpr.losses.triplets import LOSSES
from jaxvpr.objectives.place_heads import Choice
from jaxvpr.training.optimisers import from_keys, split_frozen

FOLDER = Path(__file__).resolve().parents[1] / "configs"
FILES = {file.stem: runpy.run_path(str(file)).get("PRESETS", {}) for file in sorted(FOLDER.glob("*.py"))}
RECIPES = [f"{name}:{preset}" for name, presets in FILES.items() for preset in presets]
ON_GSV_CITIES = ("gsv_cities:gsv_cities", "mixvpr:mixvpr", "salad:salad", "boq:dinov2", "cricavpr:cricavpr")


@cache
def recipe(name):
    """The recipe as the command line loads it; its file of weights, which is not here, left out."""
    file, _, preset = name.partition(":")
    config = recipes.load_config(f"{FOLDER / file}.py:{preset}").unlock()
    config.init = ""
    checks.check(config)
    return config.lock()


@cache
def made(name):
    """Shapes of the descriptor of one image, and of the model's variables."""
    config = recipe(name)
    return jax.eval_shape(builders.model(config).init_with_output, jax.random.key(0), builders.blank(config))


@cache
def parameters(name):
    """Shapes by path: those that train, and those that rest."""
    resting = builders.model(recipe(name)).frozen_paths()
    return split_frozen(made(name)[1]["params"], (*recipe(name).frozen, *resting))


def optimiser(keys, config):
    """As the loop builds it."""
    return from_keys(keys, total=config.epochs * config.steps_per_epoch, period=config.steps_per_epoch)


def count(shapes):
    return sum(leaf.size for leaf in shapes.values())


def data_sets(config):
    groups = (config.more_train_data, config.val_data, config.test_data)
    return [spec for spec in (config.train_data, *(s for group in groups for s in group.values())) if spec]


def test_there_are_recipes():
    assert len(RECIPES) > 20 and set(ON_GSV_CITIES) < set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_what_decides_is_measured(name):
    config = recipe(name).copy_and_resolve_references().unlock()
    config.init = "of an earlier stage"
    checks.check_training(config)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_whole(name):
    config = recipe(name)
    for spec in data_sets(config):
        readers.check_options(spec.reader, spec.options.to_dict())
    learning, _ = parameters(name)
    assert learning
    if not config.train_data:
        return
    assert config.objective.name in FAMILIES
    image_source(config, Paths.of(["a.jpg"], "."), yaw=np.zeros(1, np.float32))
    total = config.epochs * config.steps_per_epoch
    for keys in (config.optimizer, config.optimizer_extra):
        tuner = optimiser(keys, config)
        rates = [float(tuner.rate(jax.numpy.asarray(step))) for step in (0, total // 2, total - 1)]
        assert max(rates) > 0 and min(rates) >= 0
    optimiser(config.optimizer, config).check(learning)
    assert config.batch % config.accumulate == config.batch % config.grad_cache == 0


@pytest.mark.parametrize("name", [name for name in RECIPES if recipe(name).objective.name == "places"])
def test_a_recipe_of_places_has_losses_miners_and_data_sets_that_exist(name):
    config = recipe(name)
    keys = config.objective
    assert config.batch == keys.P * keys.K and config.accumulate == 1
    Choice(keys.loss, keys.miner, keys.loss_options.to_dict(), keys.miner_options.to_dict()).check()
    sets = 1 + len(config.more_train_data)
    others = sets - len(keys.cliques.sets) if keys.cliques.share else sets
    assert len(keys.weights) in (0, others or sets) and all(number < sets for number in keys.cliques.sets)
    assert (keys.cliques.share * keys.P) % 1 == pytest.approx(0), "a whole number of cliques"


def mined(name):
    """The keys by which a recipe mines, of images or of clips beside images; None for another."""
    keys = recipe(name).objective
    return keys if "mining" in keys else keys.get("clips")


@pytest.mark.parametrize("name", [name for name in RECIPES if mined(name)])
def test_an_epoch_of_a_mined_recipe_is_a_whole_number_of_plans(name):
    config = recipe(name).copy_and_resolve_references().unlock()
    config.objective = mined(name)
    mining = triplets.settings(config)
    mining.check()
    assert config.steps_per_epoch % mining.steps == 0 and config.accumulate == 1
    options_of("loss", LOSSES, config.objective.loss, config.objective.loss_options.to_dict())


def test_the_benchmarks_recipes_have_its_parameters():
    """5,000 queries an epoch of 4 a step, 10 negatives of 1,000, Adam 1e-5, R@5 with patience 3."""
    for name in ("netvlad:pitts30k", "netvlad:msls"):
        config = recipe(name)
        keys = config.objective
        assert (keys.positive, keys.soft, keys.negatives, keys.pool, keys.refresh) == ("10m", "25m", 10, 1000, 1000)
        assert (config.batch, config.batch * config.steps_per_epoch) == (4, 5000)
        assert (config.optimizer.name, config.optimizer.rate) == ("adam", 1e-5)
        assert (config.best.measure, config.best.patience) == ("R@5", 3)
        assert keys.loss == "triplet" and keys.loss_options.to_dict() == {"margin": 0.1, "squared": False}
        assert tuple(config.image.size) == (480, 640)
    assert (recipe("netvlad:pitts30k").objective.mining, recipe("netvlad:msls").objective.mining) == ("full", "partial")
    assert recipe("netvlad:msls").objective.weighted


def test_recipes_of_clips_have_the_published_parameters():
    """Those of the code: clips of 5, 4 queries a step, 1,000 mined in one go; JIST mines ten times an epoch."""
    for name, negatives, epochs in (("seqvlad:msls", 10, 100), ("timesformer:msls", 5, 100), ("jist:sf_xl_msls", 5, 5)):
        config, keys = recipe(name), mined(name)
        assert (keys.positive, keys.soft, keys.negatives, keys.refresh) == ("10m", "25m", negatives, 1000)
        assert keys.loss_options.to_dict() == {"margin": 0.1, "squared": False}
        size = (224, 224) if name.startswith("timesformer") else (480, 640)
        assert (config.batch, config.epochs, tuple(config.image.size)) == (4, epochs, size)
        assert (config.optimizer.name, config.optimizer.rate) == ("adam", 1e-5)
        clips = [spec.clips.length for spec in data_sets(config) if spec.reader == "msls"]
        assert clips == [5] * 3
    learning, _ = parameters("seqvlad:msls")
    assert {path.split("/")[1].split("_")[0] for path in learning if "backbone" in path} == {"layer3"}
    learning, _ = parameters("jist:sf_xl_msls")
    parts = {path.split("/")[1].split("_")[0] for path in learning if "backbone" in path}
    assert parts == {"layer4"} and any(path.startswith("sequence/") for path in learning)
    config, keys = recipe("jist:sf_xl_msls"), recipe("jist:sf_xl_msls").objective
    assert (keys.batch, tuple(keys.size), tuple(keys.weights)) == (64, (512, 512), (100, 10_000))
    assert (config.optimizer_extra.rate, keys.clips.pool, keys.images.partition.M) == (1e-2, 3000, 10)
    cities = [config.val_data.msls_val.options.cities, config.more_train_data.msls.options.cities]
    assert sorted((*cities[0], *cities[1])) == sorted(CITIES["train"]), "validated on cities of their own"
    assert made("seqvlad:msls")[0].shape == (1, 16384) and made("jist:sf_xl_msls")[0].shape == (1, 512)
    assert made("timesformer:msls")[0].shape == (1, 768)


@pytest.mark.parametrize("name", ["jist:city", "seqvlad:city", "sequence_baselines:seqnet", "sequence_baselines:city"])
def test_recipes_of_clips_start_from_what_the_citys_recipe_leaves(name, tmp_path):
    images = made("cosplace:city")[1]
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), images)
    weights.write(tmp_path / "model.safetensors", weights.to_torch("jaxvpr", zeros))
    file, _, preset = name.partition(":")
    source = weight_source.parse(recipes.load_config(f"{FOLDER / file}.py:{preset}").init)
    assert source.file == Path("runs/cosplace-city/model.safetensors")
    filled = weights.init_from(made(name)[1], tmp_path / "model.safetensors", source.pattern or None)
    given = {path for path, leaf in flatten_dict(filled).items() if isinstance(leaf, np.ndarray)}
    assert given == {path for path in flatten_dict(images) if re.search(source.pattern, "/".join(path[1:]))}


def test_eigenplaces_has_the_papers_parameters_and_the_citys_recipe_sees_as_many_images_as_cosplaces():
    config = recipe("eigenplaces:sf_xl")
    keys = config.objective
    assert (keys.M, keys.N, keys.groups, keys.distance, keys.min_images) == (15, 3, 0, 10, 5)
    assert (keys.scale, keys.margin, tuple(keys.weights)) == (100, 0.4, (1, 1))
    assert (config.batch, config.epochs, config.steps_per_epoch) == (32, 40, 5000)
    assert (config.optimizer.name, config.optimizer.rate) == ("adam", 1e-5)
    assert (config.optimizer_extra.name, config.optimizer_extra.rate) == ("adam", 1e-2)
    jitter = config.augment
    assert (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) == (0.7, 0.7, 0.7, 0.5)
    assert tuple(jitter.scale) == (0.5, 1) and tuple(config.image.size) == (512, 512)
    assert (tuple(config.panorama.size), config.panorama.view) == ((512, 3328), 512)
    learning, resting = parameters("eigenplaces:sf_xl")
    assert {path.split("/")[1].split("_")[0] for path in learning if "backbone" in path} == {"layer3", "layer4"}
    assert made("eigenplaces:sf_xl")[0].shape == (1, 512) and resting
    for name in ("eigenplaces:city", "eigenplaces:city_panoramas"):
        ours, theirs = recipe(name), recipe("cosplace:city")
        assert ours.model == theirs.model and ours.augment == theirs.augment
        seen = [c.epochs * c.steps_per_epoch * c.batch * kinds for c, kinds in ((ours, 2), (theirs, 1))]
        assert seen[0] == seen[1]
    height, width = strip_size(CityConfig())
    cut = recipe("eigenplaces:city_panoramas").panorama
    assert tuple(cut.size) == (height, width) and cut.view == width * CityConfig().fov / 360


def test_schedules_are_the_papers():
    """Rates at the beginnings of epochs (counted from 0), worked out from the published settings."""
    rates = {
        "gsv_cities:gsv_cities": {0: 0, 4: 2e-4, 5: 6e-5, 9: 6e-5, 10: 1.8e-5, 25: 2e-4 * 0.3**4},
        "mixvpr:mixvpr": {4: 0.05, 5: 0.015, 45: 0.05 * 0.3**5},
        "salad:salad": {0: 6e-5, 2: 6e-5 * (1 - 0.8 * 2 * 1041 / 4000)},
        "boq:dinov2": {0: 0, 5: 5e-5, 10: 1e-5, 20: 1e-6},
        "cricavpr:cricavpr": {0: 1e-4, 3: 5e-5, 6: 2.5e-5, 9: 1.25e-5},
    }
    for name, expected in rates.items():
        config = recipe(name)
        tuner = optimiser(config.optimizer, config)
        for epoch, rate in expected.items():
            at = float(tuner.rate(jax.numpy.asarray(epoch * config.steps_per_epoch)))
            assert at == pytest.approx(rate, rel=1e-4, abs=1e-12), (name, epoch)


def test_trainings_on_gsv_cities_take_4_images_of_places_of_one_city_and_rand_augment():
    for name in ON_GSV_CITIES:
        config = recipe(name)
        assert (config.objective.K, config.objective.by_city, config.augment.randaugment) == (4, True, 3), name
        assert config.augment.magnitude == (15 if name.startswith("boq") else 9)
    assert [recipe(name).objective.P for name in ON_GSV_CITIES] == [100, 120, 60, 128, 72]


def test_salad_trains_four_blocks_the_norm_and_its_head():
    learning, resting = parameters("salad:salad")
    # Attention 768 x 2304 + 2304 and 768 x 768 + 768, perceptron 768 x 3072 + 3072 and back, two norms, two scales.
    block = 1_771_776 + 590_592 + 2_362_368 + 2_360_064 + 2 * 1536 + 2 * 768
    hidden = 768 * 512 + 512
    head = 3 * hidden + (512 * 128 + 128) + (512 * 64 + 64) + (512 * 256 + 256) + 1
    assert count(learning) == 4 * block + 2 * 768 + head
    # DINOv2-B has 86,580,480 parameters, 768 of them the token that only its pre-training reads.
    assert count(resting) == 86_580_480 - 4 * block - 2 * 768


@pytest.mark.parametrize(
    ("name", "learning"),
    [
        ("gsv_cities:gsv_cities", r"layer3 layer4"),
        ("mixvpr:mixvpr", r"layer3"),
        ("boq:dinov2", r"blocks_10 blocks_11"),
        ("boq:resnet50", r"layer2 layer3"),
        ("megaloc:megaloc", r"blocks_8 blocks_9 blocks_10 blocks_11 norm"),
        ("apgem:landmarks", r"conv1 bn1 layer1 layer2 layer3 layer4"),
        ("netvlad:pitts30k", r"layer3"),
        ("netvlad:pitts250k", r"features"),
    ],
)
def test_what_learns_of_a_backbone(name, learning):
    trained, resting = parameters(name)
    found = {path.split("/")[1] for path in trained if path.startswith("backbone/")}
    stages = {part.split("_")[0] if part.startswith(("layer", "features")) else part for part in found}
    assert stages == set(learning.split())
    assert not any(path.startswith("aggregator/") for path in resting)


def test_cricavpr_trains_adapters_and_encoder_alone():
    trained, resting = parameters("cricavpr:cricavpr")
    assert {path.split("/")[2] for path in trained if path.startswith("backbone/")} == {"adapter"}
    assert not any("adapter" in path for path in resting) and count(resting) == 86_580_480
    assert sum(path.endswith("D_fc1/kernel") for path in trained) == 12


@pytest.mark.parametrize(
    ("name", "dim"),
    [
        ("gsv_cities:gsv_cities", 4096), ("mixvpr:mixvpr", 4096), ("salad:salad", 8448), ("salad:cliquemining", 8448),
        ("boq:dinov2", 8192), ("boq:resnet50", 16384), ("megaloc:megaloc", 8448), ("cricavpr:cricavpr", 10752),
        ("apgem:landmarks", 2048), ("netvlad:pitts30k", 16384), ("netvlad:pitts250k", 32768),
    ],
)  # fmt: skip
def test_descriptors_are_as_long_as_published(name, dim):
    assert made(name)[0].shape == (1, dim)


def test_a_second_embedded_city_has_settings_of_its_own(monkeypatch):
    monkeypatch.setattr(
        datasets.readers, "read", lambda reader, root, split, **options: (reader, root, options["city"])
    )
    config = recipe("megaloc:city")
    assert builders.places(config, config.train_data) == ("minicity", "data/minicity", {})
    other = builders.places(config, config.more_train_data.modern)
    assert other == ("minicity", "data/minicity-modern", {"seed": 1, "style": "modern"})


def test_divide_and_classify_trains_as_published():
    """EfficientNet-B0 from its sixth part on, the mean of the map and a layer of 1280; 4 groups in turns of 2,000."""
    name = "divide_and_classify:sf_xl"
    config, (training, resting) = recipe(name), parameters(name)
    keys = config.objective
    assert keys.partition.to_dict() == {"by": "square", "M": 20.0, "N": 2, "groups": 0, "min_images": 10}
    assert (keys.loss, keys.scale, keys.margin, keys.margin_warmup) == ("easy_arcface", 100.0, 0.2, 0.0)
    assert (config.batch, config.steps_per_epoch, config.epochs) == (64, 2000, 500)
    assert (config.optimizer.rate, config.optimizer_extra.rate) == (1e-4, 1e-2)
    assert made(name)[0].shape == (1, 1280)
    assert {path.split("/")[1].split("_")[1] for path in resting} == set("01234")
    own = {path: leaf.shape for path, leaf in training.items() if not path.startswith("backbone/features_")}
    assert sorted(own.values()) == [(1280,), (1280, 1280)]
    assert config.eval.localize and config.best.measure == "LR@1"
