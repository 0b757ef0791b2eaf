"""MixVPR: feature maps mixed by perceptrons over all their cells (Ali-bey et al., WACV 2023).

    python -m jaxvpr.main --config=configs/mixvpr.py                   # the embedded city, minutes on a laptop
    python -m jaxvpr.main --config=configs/mixvpr.py:mixvpr,data=/data,init=resnet50.pth

The weights belong to one size of the map: images are described at the size of the training.
"""

from ml_collections import ConfigDict

from configs import common, trainings


def city() -> ConfigDict:
    """The embedded city: maps of 8x8 cells after the third stage of a small ResNet, 256 dimensions."""
    config = trainings.places_in_city("mixvpr-city")
    config.model.backbone_options = ConfigDict({"cut": "layer3"})
    config.model.aggregator = "mixvpr"
    config.model.aggregator_options = ConfigDict({"dim": 64, "rows": 4, "cells": (8, 8)})
    return config


def mixvpr() -> ConfigDict:
    """The paper's training on GSV-Cities: ResNet-50 up to its third stage, 1024 x 4 dimensions, 120 places of 4.

    Wants `init=` with torchvision's ImageNet weights, whose first two stages rest.
    """
    config = trainings.places_of_gsv_cities("mixvpr-gsv-cities", P=120, epochs=80)
    config.model.backbone = "resnet50"
    config.model.backbone_options = ConfigDict({"cut": "layer3", "frozen_until": "layer2"})
    config.model.aggregator = "mixvpr"
    config.model.aggregator_options = ConfigDict({"dim": 1024, "rows": 4, "depth": 4, "cells": (20, 20)})
    config.image = common.image((320, 320), "pil_bilinear")
    config.optimizer = common.optimizer(
        "sgd", 0.05, momentum=0.9, weight_decay=1e-3,
        schedule="multi_step", per="epoch", milestones=(5, 10, 15, 25, 45), gamma=0.3, warmup=650,
    )  # fmt: skip
    return config


PRESETS = {"city": city, "mixvpr": mixvpr}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(preset, PRESETS)
