"""CosPlace: classification of cells of the map (Berton et al., "Rethinking Visual Geo-localization for Large-Scale
Applications", CVPR 2022).

    python -m jaxvpr.main --config=configs/cosplace.py                 # the embedded city, minutes on a laptop
    python -m jaxvpr.main --config=configs/cosplace.py:city_large      # a larger city and the paper's margin
    python -m jaxvpr.main --config=configs/cosplace.py:sf_xl,data=/data,init=resnet18.pth   # the paper's training
    python -m jaxvpr.main --config=configs/cosplace.py:own,data=FOLDER     # one's own photos, docs/own_street.md

Measured results stand in docs/results.md.
"""

from ml_collections import ConfigDict

from configs import common, trainings


def city() -> ConfigDict:
    """The embedded city of 2 x 2 blocks: a small ResNet, from random weights, in some three minutes on two cores.

    Few images (75,000 in all) leave no time for the paper's settings: classes are few (N = L = 2), the scale is 20, and
    the margin grows from 0 to 0.2.
    """
    config = trainings.in_city("cosplace-city")
    config.model.aggregator_options = ConfigDict({"dim": 256, "fc_norm": True, "l2_before": False})
    config.objective = common.cells(N=2, min_images=3, scale=20.0, margin=0.2, margin_warmup=0.8)
    config.epochs, config.steps_per_epoch, config.every_epochs = 48, 25, 8
    config.batch = 64
    config.optimizer = common.optimizer("adam", 4e-3, schedule="cosine", warmup=60)
    config.optimizer_extra = common.optimizer("adam", 3e-2, schedule="cosine", warmup=60)
    return config


def tiny() -> ConfigDict:
    """One block at 32 pixels and a few steps: shows that everything runs, learns nothing. The tests use it."""
    config = city()
    config.name = "cosplace-tiny"
    config.image.size = (32, 32)
    config.city = ConfigDict({"blocks": 1, "size": 32, "test_queries": 24, "val_queries": 16, "database_spacing": 20.0})
    config.train_data.root = "data/minicity-tiny"
    _measure_on(config, "minicity", "data/minicity-tiny")
    config.model.backbone_options = ConfigDict({"widths": (8, 8, 16, 16)})
    config.model.aggregator_options.dim = 32
    config.objective.partition.groups = 2
    config.epochs, config.steps_per_epoch, config.every_epochs, config.batch = 2, 4, 1, 16
    config.optimizer.warmup = config.optimizer_extra.warmup = 2
    return config


def city_large() -> ConfigDict:
    """4 x 4 blocks at 96 pixels, queries shifted by up to 4 m and turned by up to 20 degrees, the paper's loss.

    Four times the classes of `city` and twice its steps.
    """
    config = city()
    config.name = "cosplace-city-large"
    config.city = ConfigDict({"blocks": 4, "size": 96, "query_shift": 4.0, "query_turn": 20.0, "test_queries": 1000})
    config.train_data.root = "data/minicity-large"
    _measure_on(config, "minicity_large", "data/minicity-large")
    config.image.size = (96, 96)
    config.objective.scale, config.objective.margin = 30.0, 0.4
    config.epochs, config.every_epochs = 96, 12
    return config


def sf_xl() -> ConfigDict:
    """The paper's training of a ResNet-18 on SF-XL: 8 of 50 groups, 10,000 steps each, 50 epochs.

    Wants `init=` with torchvision's ImageNet weights.
    """
    config = common.base()
    config.name = "cosplace-sf-xl"
    config.model.backbone_options = ConfigDict({"cut": "layer4"})
    config.model.aggregator_options = ConfigDict({"dim": 512})
    config.frozen = ("backbone/(conv1|bn1|layer1_|layer2_)",)
    config.augment.update(brightness=0.7, contrast=0.7, saturation=0.7, hue=0.5, scale=(0.5, 1.0))
    config.train_data = common.data("at_names", "data/sf_xl/processed", "train")
    config.val_data = ConfigDict({"sf_xl_val": common.data("at_names", "data/sf_xl/processed", "val")})
    config.test_data = ConfigDict({"sf_xl_v1": common.data("at_names", "data/sf_xl/processed", "test")})
    config.objective = common.cells()  # the paper's values
    return config


def own() -> ConfigDict:
    """The later blocks of EfficientNet-Lite0 on photos in the folder `data`, with cells chosen from them.

    Each group's head has 50 steps before the backbone moves.
    """
    config = trainings.tuned_on_own_photos("cosplace-own")
    config.model.aggregator_options = ConfigDict({"dim": 256, "fc_norm": True, "l2_before": False})
    config.objective = common.cells(
        M=20.0, alpha=90.0, N=1, L=1, groups=0, min_images=3, scale=20.0, margin=0.2, margin_warmup=0.8, head_steps=50
    )
    config.auto = (*trainings.OF_OWN_PHOTOS, *trainings.OF_CELLS)
    return config


def _measure_on(config: ConfigDict, name: str, root: str) -> None:
    """Validation and test of an embedded city."""
    config.val_data = ConfigDict({f"{name}_val": common.data("minicity", root, "val")})
    config.test_data = ConfigDict({name: common.data("minicity", root, "test")})


PRESETS = {"city": city, "tiny": tiny, "city_large": city_large, "sf_xl": sf_xl, "own": own}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(preset, PRESETS)
