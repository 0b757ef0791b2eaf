"""Position without a database: a head answers where a photo was taken from its descriptor alone (F. Gaza's thesis,
"Implicit Neural Representation in Visual Place Recognition", Politecnico di Torino, 2025).

    python -m jaxvpr.main --config=configs/cosplace.py                      # whose descriptors the heads learn from
    python -m jaxvpr.main --config=configs/implicit.py                      # cells of 10 m and 30 degrees
    python -m jaxvpr.main --config=configs/implicit.py:mixture              # and direct, hypersphere, ..., see PRESETS
    python -m jaxvpr.main --config=configs/implicit.py:live                 # augmented images in place of descriptors
    python -m jaxvpr.main --config=configs/implicit.py:sf_xl,data=/data,init=resnet50_2048.pth    # the thesis' own

The model that describes images rests, and what it gives of each is kept in `runs/features`, so that only the first
training looks at images. docs/positions.md has the heads, the losses and what was measured.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from ml_collections import ConfigDict

from configs import common, trainings

AREA = ("model.position_options.area", "model.position_options.metres")


def _city(name: str, position: str, loss: str, **options: Any) -> ConfigDict:
    """A head on the descriptors of CosPlace's network in the embedded city of 2 x 2 blocks.

    Adam with the thesis' weight decay and its rate's reduction by the loss of evaluation, but ten times its rate: the
    city has 7,488 images, a pass is 30 steps. The area is the box of the images.
    """
    config = trainings.in_city(f"implicit-{name}")
    config.init = "runs/cosplace-city/model.safetensors"
    config.model.aggregator_options = ConfigDict({"dim": 256, "fc_norm": True, "l2_before": False})
    config.augment = common.base().augment
    config.maps.cached = True
    config.model.position, config.model.position_options = position, ConfigDict(options)
    config.objective = common.positions(loss=loss)
    config.batch, config.epochs, config.every_epochs, config.steps_per_epoch = 256, 60, 2, 30
    config.steps_per_call = WHOLE
    config.optimizer = common.optimizer("adam", 1e-3, weight_decay=1e-5)
    config.plateau.factor, config.plateau.patience = 0.1, 5
    config.best.measure, config.best.patience = "25m", 8
    config.auto = (*AREA, "steps_per_epoch")
    return config


# Steps in one call: as many as an epoch has.
WHOLE = 1_000_000
# The city's area is about 160 m wide: 16 cells have 10 m.
CELLS: dict[str, Any] = {"position": "cells", "loss": "cross_entropy", "cells": 16}
CITY: dict[str, dict[str, Any]] = {
    "cells": CELLS,
    "soft_cells": {**CELLS, "soft": True},
    "direct": {"position": "direct", "loss": "l2", "ending": "softmax"},
    "direct_sigmoid": {"position": "direct", "loss": "l2", "ending": "sigmoid"},
    "direct_linear": {"position": "direct", "loss": "l2", "ending": "none"},
    "direct_l1": {"position": "direct", "loss": "l1", "ending": "none"},
    "direct_weighted": {"position": "direct", "loss": "weighted", "ending": "none"},
    "direct_haversine": {"position": "direct", "loss": "haversine", "ending": "none"},
    "direct_fourier": {"position": "direct", "loss": "l2", "ending": "none", "fourier": 256},
    "cells_fourier": {**CELLS, "fourier": 256},
    "hypersphere": {"position": "hypersphere", "loss": "l2"},
    "hypersphere_spread": {"position": "hypersphere", "loss": "l2", "projection": "spread"},
    "mixture": {"position": "mixture", "loss": "mixture", "components": 8},
    "mixture_fourier": {"position": "mixture", "loss": "mixture", "components": 8, "fourier": 256},
}


def live() -> ConfigDict:
    """Cells on live images: the last part of the network is trained with the head, and of two augmentations each image
    has one, stronger colours or a blur."""
    config = _city("live", **CELLS)
    config.maps.cached = False
    config.augment.update(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05, blur=2.0, one_of=True)
    config.model.backbone_options = ConfigDict({"frozen_until": "layer2", "frozen_bn": "all"})
    config.epochs, config.every_epochs, config.steps_per_call = 10, 2, 1
    config.optimizer.rate = 3e-4
    return config


def sf_xl() -> ConfigDict:
    """The thesis' trainings on SF-XL: CosPlace's ResNet-50 with 2,048 dimensions, two hidden layers, 100 x 100 cells of
    12 headings (120,000 classes), Adam 1e-4. Wants `init=` with CosPlace's weights.

    A part of the city by `train_data.options`, as the thesis learns parts; the queries of the same part are its
    evaluation.
    """
    config = _city("sf-xl", "cells", "cross_entropy", cells=100)
    config.name, config.init = "implicit-sf-xl", ""
    config.model.backbone, config.model.aggregator_options = "resnet50", ConfigDict({"dim": 2048})
    config.image = common.image((512, 512), "pil_bilinear")
    config.train_data = common.data("at_names", "data/sf_xl/processed", "train")
    config.val_data = ConfigDict({"sf_xl_val": common.data("at_names", "data/sf_xl/processed", "val")})
    config.test_data = ConfigDict({"sf_xl": common.data("at_names", "data/sf_xl/processed", "test")})
    config.epochs, config.every_epochs = 200, 1
    config.optimizer = common.optimizer("adam", 1e-4, weight_decay=1e-5)
    return config


PRESETS: dict[str, Callable[[], ConfigDict]] = {
    **{name: partial(_city, name, **keys) for name, keys in CITY.items()},
    "live": live,
    "sf_xl": sf_xl,
}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(preset, PRESETS)
