"""Conv-AP: metric learning on places (Ali-bey et al., "GSV-Cities: Toward Appropriate Supervised Visual Place
Recognition", Neurocomputing 2022).

    python -m jaxvpr.main --config=configs/gsv_cities.py               # the embedded city, minutes on a laptop
    python -m jaxvpr.main --config=configs/gsv_cities.py:gsv_cities,init=resnet50.pth,train_data.root=/data/gsv_cities

Any loss of `jaxvpr.losses.metric` and any miner: `objective.loss=contrastive,objective.miner=pair_margin`, with
`objective.loss_options.NAME=VALUE` over their defaults.
"""

from ml_collections import ConfigDict

from configs import common


def city() -> ConfigDict:
    """The embedded city of 2 x 2 blocks: a small ResNet and Conv-AP from random weights.

    A place is a cell of 10 m and 30 degrees; places of a batch are at least 25 m apart.
    """
    config = common.base()
    config.name = "convap-city"
    config.model.backbone = "resnet_small"
    config.model.aggregator = "convap"
    config.model.aggregator_options = ConfigDict({"dim": 64, "rows": 2, "columns": 2})
    config.image = common.image((64, 64), "area")
    config.train_data = common.data("minicity", "data/minicity", "train")
    config.val_data = ConfigDict({"minicity_val": common.data("minicity", "data/minicity", "val")})
    config.test_data = ConfigDict({"minicity": common.data("minicity", "data/minicity", "test")})
    config.objective = places(P=16, K=4, by="cell", min_distance=25.0)
    config.augment.update(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05, scale=(0.75, 1.0))
    config.batch = 64
    config.epochs, config.steps_per_epoch, config.every_epochs = 12, 100, 2
    config.optimizer = common.optimizer("adamw", 2e-3, schedule="cosine", warmup=60)
    return config


def tiny() -> ConfigDict:
    """The city at 48 pixels and 300 steps: half a minute on two cores. The grids of configs/sweeps train it."""
    config = city()
    config.name = "convap-tiny"
    config.city = ConfigDict({"size": 48, "test_queries": 600, "val_queries": 200})
    config.image.size = (48, 48)
    for data in (config.train_data, config.val_data.minicity_val, config.test_data.minicity):
        data.root = "data/minicity-48"
    config.model.aggregator_options.dim = 32
    config.epochs, config.steps_per_epoch, config.every_epochs = 6, 50, 1
    config.optimizer.rate, config.optimizer.warmup = 5e-3, 20
    return config


def gsv_cities() -> ConfigDict:
    """The paper's training on GSV-Cities: ResNet-50, 1024 channels in 2 x 2 parts, 100 places of 4 images.

    Wants `init=` with torchvision's ImageNet weights. 62,000 places make some 620 batches an epoch. The paper also
    lowers the rate at epochs 5, 10, 15 and 25, and draws RandAugment; neither has a key yet.
    """
    config = common.base()
    config.name = "convap-gsv-cities"
    config.model.backbone = "resnet50"
    config.model.backbone_options = ConfigDict({"frozen_until": "layer2"})
    config.model.aggregator = "convap"
    config.model.aggregator_options = ConfigDict({"dim": 1024, "rows": 2, "columns": 2})
    config.image = common.image((320, 320), "pil_bilinear")
    config.train_data = common.data("gsv_cities", "data/gsv_cities")
    config.val_data = ConfigDict({"pitts30k_val": common.data("at_names", "data/pitts30k", "val")})
    config.test_data = ConfigDict({"pitts30k": common.data("at_names", "data/pitts30k", "test")})
    config.objective = places(P=100, K=4, by="place", by_city=True)
    config.batch = 400
    config.epochs, config.steps_per_epoch = 30, 620
    config.optimizer = common.optimizer("adamw", 2e-4, warmup=600)
    return config


def places(*, P: int, K: int, by: str, min_distance: float = 0.0, by_city: bool = False) -> ConfigDict:
    """The keys of the objective, with the paper's loss and miner."""
    return ConfigDict(
        {
            "name": "places",
            "P": P,
            "K": K,
            "partition": ConfigDict({"by": by, "M": 10.0, "alpha": 30.0}),
            "min_distance": min_distance,
            "by_city": by_city,
            "loss": "multi_similarity",
            "loss_options": ConfigDict({"alpha": 1.0, "beta": 50.0, "base": 0.0}),
            "miner": "multi_similarity",
            "miner_options": ConfigDict({}),
            "memory": 0,
        }
    )


PRESETS = {"city": city, "tiny": tiny, "gsv_cities": gsv_cities}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(preset, PRESETS)
