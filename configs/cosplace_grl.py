"""CosPlace adapted to its place of use by unlabelled images: gradient reversal (Ganin and Lempitsky, ICML 2015),
and what it is compared with in configs/sweeps/domains.py (docs/results.md).

    python -m jaxvpr.main --config=configs/cosplace_grl.py:by_day   # what the next two start from
    python -m jaxvpr.main --config=configs/cosplace_grl.py          # to queries by night and in rain
    python -m jaxvpr.main --config=configs/cosplace_grl.py:other    # to another city
    python -m jaxvpr.main --config=configs/cosplace_grl.py:sf_xs,data=/data,init=cosplace_r18_512.pth
    python -m jaxvpr.main --config=RECIPE,domain.method=coral,target_data.root=FOLDER   # any recipe, any images
"""

from ml_collections import ConfigDict

from configs import common, cosplace

# A city of old houses, in three conditions; and one of modern houses, by day.
HERE = {
    "seed": 21,
    "style": "old_town",
    "conditions": ("day", "night", "rain"),
    "test_queries": 900,
    "val_queries": 300,
}
THERE = {"seed": 22, "style": "modern", "conditions": ("day",), "train_years": (2016,), "test_queries": 400}
ROOT, OTHER_ROOT = "data/minicity-adapt", "data/minicity-adapt-other"
DARK_OR_WET = ("night", "rain")


def by_day() -> ConfigDict:
    """CosPlace from random weights by day: 800 steps of 64 images of 48 pixels, less than two minutes on two cores."""
    config = cosplace.city()
    config.name = "cosplace-by-day"
    config.image.size = (48, 48)
    config.city = ConfigDict(HERE)
    config.train_data = common.data("minicity", ROOT, "train", conditions=("day",))
    config.val_data = ConfigDict({"same_by_day": common.data("minicity", ROOT, "val", conditions=("day",))})
    config.test_data = ConfigDict(
        {
            "night_rain": common.data("minicity", ROOT, "test", conditions=DARK_OR_WET),
            "other_city": common.data("minicity", OTHER_ROOT, "test", city=THERE),
            "same_by_day": common.data("minicity", ROOT, "test", conditions=("day",)),
        }
    )
    config.epochs = 32
    config.eval.baselines = False
    return config


def night() -> ConfigDict:
    """From `by_day`, 20 epochs of 30 steps of 32 images, beside 8 of the 600 queries by night and in rain.

    The checkpoint is chosen by other queries by night and in rain, whose places are known: who has none picks the last.
    """
    config = by_day()
    config.name = "cosplace-grl-night"
    config.init = "runs/cosplace-by-day/model.safetensors"
    config.epochs, config.steps_per_epoch, config.every_epochs, config.batch = 20, 30, 5, 32
    config.optimizer = common.optimizer("adam", 5e-4, schedule="cosine")
    config.optimizer_extra = common.optimizer("adam", 3e-2, schedule="cosine")
    config.objective.margin_warmup = 0.0
    config.val_data.target = common.data("minicity", ROOT, "val", conditions=DARK_OR_WET)
    config.best.measure = "target/R@1"
    config.target_data = common.data("minicity", ROOT, "test", conditions=DARK_OR_WET, role="query")
    config.domain.update(method="grl", weight=10.0, gamma=10.0)
    return config


def other() -> ConfigDict:
    """The same to the queries of another city, by day."""
    config = night()
    config.name = "cosplace-grl-other"
    config.val_data.target = common.data("minicity", OTHER_ROOT, "val", city=THERE)
    config.target_data = common.data("minicity", OTHER_ROOT, "test", role="query", city=THERE)
    return config


def sf_xs() -> ConfigDict:
    """A published ResNet-18 with 512 dimensions goes on training on SF-XL, adapted to the queries that it is tested on.

    Settings of E. Chiavassa's grid (2024; configs/sweeps/domains.py), which gave R@1 70.5; the published network has
    67.7, and 69 after the first epoch, whose coefficient is 0. It does not say how large its classifier was.
    """
    config = cosplace.sf_xl()
    config.name = "cosplace-grl-sf-xs"
    _adapted_to(config, "sf_xs", "data/sf_xs")
    config.val_data = ConfigDict({"sf_xs_val": common.data("at_names", "data/sf_xs", "val")})
    config.epochs = 20
    config.domain.update(method="grl", weight=10.0, gamma=15.0)
    return config


def tokyo() -> ConfigDict:
    """The same from San Francisco to Tokyo 24/7: 86.0, where the published network has 81.9.

    As there, Tokyo-XS, a part of the test set, decides which checkpoint is kept.
    """
    config = sf_xs()
    config.name = "cosplace-grl-tokyo"
    _adapted_to(config, "tokyo_247", "data/tokyo247")
    config.val_data = ConfigDict({"tokyo_xs": common.data("at_names", "data/tokyo_xs", "test")})
    config.domain.gamma = 12.0
    return config


def tiny() -> ConfigDict:
    """A few steps at 32 pixels: shows that everything runs, learns nothing. The tests use it."""
    config = cosplace.tiny()
    config.name = "cosplace-grl-tiny"
    config.target_data = common.data("minicity", "data/minicity-tiny", "test", role="query")
    config.domain.method = "grl"
    return config


def _adapted_to(config: ConfigDict, name: str, root: str) -> None:
    """Adapts to the queries of a data set's test, and measures on it."""
    config.target_data = common.data("at_names", root, "test", role="query")
    config.test_data = ConfigDict({name: common.data("at_names", root, "test")})


PRESETS = {"night": night, "by_day": by_day, "other": other, "sf_xs": sf_xs, "tokyo": tokyo, "tiny": tiny}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(preset, PRESETS)
