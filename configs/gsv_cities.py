"""Conv-AP: metric learning on places (Ali-bey et al., "GSV-Cities: Toward Appropriate Supervised Visual Place
Recognition", Neurocomputing 2022).

    python -m jaxvpr.main --config=configs/gsv_cities.py               # the embedded city, minutes on a laptop
    python -m jaxvpr.main --config=configs/gsv_cities.py:gsv_cities,data=/data,init=resnet50.pth
    python -m jaxvpr.main --config=configs/gsv_cities.py:own,data=FOLDER    # one's own photos, docs/own_street.md

Any loss of `jaxvpr.losses.metric` or, over a prototype of each place, of `jaxvpr.losses.margins`, and any miner:
`objective.loss=contrastive,objective.miner=pair_margin`, with `objective.loss_options.NAME=VALUE` over their defaults.
"""

from ml_collections import ConfigDict

from configs import common, trainings


def city() -> ConfigDict:
    """The embedded city of 2 x 2 blocks: a small ResNet and Conv-AP from random weights.

    Measured on 2026-11-21, one seed: R@1 70.0 of 600 queries within 25 m, in 2 min 43 s on two cores.
    """
    config = trainings.places_in_city("convap-city")
    config.model.aggregator = "convap"
    config.model.aggregator_options = ConfigDict({"dim": 64, "rows": 2, "columns": 2})
    return config


def tiny() -> ConfigDict:
    """The city at 48 pixels and 240 steps: half a minute on two cores. The grids of configs/sweeps train it."""
    config = city()
    config.name = "convap-tiny"
    config.city = ConfigDict({"size": 48, "test_queries": 600, "val_queries": 200})
    config.image.size = (48, 48)
    for data in (config.train_data, config.val_data.minicity_val, config.test_data.minicity):
        data.root = "data/minicity-48"
    config.model.aggregator_options.dim = 32
    config.epochs, config.steps_per_epoch, config.every_epochs = 6, 40, 1
    config.optimizer.rate, config.optimizer.warmup = 5e-3, 20
    return config


def own() -> ConfigDict:
    """GeM on the later blocks of EfficientNet-Lite0, tuned on pairs of photos in the folder `data` that are near each
    other."""
    config = trainings.tuned_on_own_photos("gem-own")
    config.model.aggregator = "gem"
    config.objective = trainings.near_places(P=16, K=2)
    config.batch = 32
    config.auto = (*trainings.OF_OWN_PHOTOS, *trainings.OF_NEAR_PLACES, "optimizer.rate")
    return config


def gsv_cities() -> ConfigDict:
    """The paper's training on GSV-Cities: ResNet-50, 1024 channels in 2 x 2 parts, 100 places of 4 images.

    Wants `init=` with torchvision's ImageNet weights, whose first two stages rest.
    """
    config = trainings.places_of_gsv_cities("convap-gsv-cities", P=100, epochs=30)
    config.model.backbone = "resnet50"
    config.model.backbone_options = ConfigDict({"frozen_until": "layer2"})
    config.model.aggregator = "convap"
    config.model.aggregator_options = ConfigDict({"dim": 1024, "rows": 2, "columns": 2})
    config.image = common.image((320, 320), "pil_bilinear")
    config.optimizer = common.optimizer(
        "adamw", 2e-4, schedule="multi_step", per="epoch", milestones=(5, 10, 15, 25), gamma=0.3, warmup=600
    )
    return config


def gsv_xs() -> ConfigDict:
    """GSV-XS, measured on SF-XS and Tokyo-XS: the recipe that the grids in configs/sweeps vary for it.

    The best of M. Sajjadi, A. Daneshvar and M. Samaei ("Image Geo-localization Through Retrieval"): ResNet-18 with GeM,
    contrastive loss with the margins 0 and 1, SGD at 0.0025 with momentum 0.9 and weight decay 0.001, ten epochs. They
    tell neither size nor batch: 320 pixels and 64 places of 4 are ours. Wants `init=` with torchvision's ImageNet
    weights. 62,514 places make 977 batches an epoch.
    """
    config = common.base()
    config.name = "gem-gsv-xs"
    config.model.backbone_options = ConfigDict({"cut": "layer4"})
    config.model.aggregator = "gem"
    config.image = common.image((320, 320), "pil_bilinear")
    config.train_data = common.data("at_names", "data/gsv_xs", "train")
    config.val_data = ConfigDict({"sf_xs_val": common.data("at_names", "data/sf_xs", "val")})
    config.test_data = ConfigDict(
        {
            "sf_xs": common.data("at_names", "data/sf_xs", "test"),
            "tokyo_xs": common.data("at_names", "data/tokyo_xs", "test"),
        }
    )
    config.objective = common.places(P=64, K=4, by="place")
    config.objective.loss, config.objective.miner = "contrastive", "none"
    config.objective.loss_options = ConfigDict({"positive_margin": 0.0, "negative_margin": 1.0})
    config.batch = 256
    config.epochs, config.steps_per_epoch = 10, 977
    config.optimizer = common.optimizer("sgd", 2.5e-3, weight_decay=1e-3)
    return config


PRESETS = {"city": city, "tiny": tiny, "gsv_cities": gsv_cities, "gsv_xs": gsv_xs, "own": own}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(preset, PRESETS)
