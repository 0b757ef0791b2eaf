"""Trainings that several recipes begin from: a data set, its sizes and its schedule, to which each adds its method."""

from ml_collections import ConfigDict

from configs import common


def deep_vg(name: str, dataset: str, root: str) -> ConfigDict:
    """What trainings of the Deep VG benchmark share: ResNet-18 to conv4, 480 x 640 pixels, 4 queries a step.

    An epoch has 5000 queries, and the run ends after 3 that bring R@5 no further. Aggregator and objective are the
    recipe's.
    """
    config = common.base()
    config.name = name
    config.model.backbone_options = ConfigDict({"cut": "layer3"})
    config.model.l2_after = False  # NetVLAD and CRN give unit vectors; a PCA of them is ranked as it is
    config.frozen = ("backbone/(conv1|bn1|layer1_|layer2_)",)
    config.image = common.image((480, 640), "pil_bilinear")
    config.train_data = common.data("at_names", root, "train")
    config.val_data = ConfigDict({f"{dataset}_val": common.data("at_names", root, "val")})
    config.test_data = ConfigDict({dataset: common.data("at_names", root, "test")})
    config.batch, config.epochs, config.steps_per_epoch = 4, 1000, 1250
    config.optimizer = common.optimizer("adam", 1e-5)
    config.best.measure, config.best.patience = "R@5", 3
    return config


def in_city(name: str) -> ConfigDict:
    """A small ResNet on the embedded city of 2 x 2 blocks: its data, 64 pixels, light augmentation."""
    config = common.base()
    config.name = name
    config.model.backbone = "resnet_small"
    config.image = common.image((64, 64), "area")
    config.train_data = common.data("minicity", "data/minicity", "train")
    config.val_data = ConfigDict({"minicity_val": common.data("minicity", "data/minicity", "val")})
    config.test_data = ConfigDict({"minicity": common.data("minicity", "data/minicity", "test")})
    config.augment.update(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05, scale=(0.75, 1.0))
    return config


def drives_in_city(name: str, length: int = 5) -> ConfigDict:
    """The same on clips of the drives through that city, frames of each second.

    Clips begin with every second frame, those to validate on where the last one ended: the frames of overlapping clips
    are described again for each.
    """
    config = in_city(name)
    train, val, test = (
        common.data("minicity", "data/minicity", split, drives=True, clips={"length": length, "stride": stride})
        for split, stride in (("train", 2), ("val", length), ("test", 2))
    )
    config.train_data = train
    config.val_data, config.test_data = ConfigDict({"drives_val": val}), ConfigDict({"drives": test})
    return config


# Of MSLS' cities to train on, the two that the authors of SeqVLAD validate on, since they test on those of validation.
MSLS_VAL = ("amsterdam", "manila")
MSLS_TRAIN = (
    "amman", "austin", "bangkok", "berlin", "boston", "budapest", "goa", "helsinki", "london", "melbourne", "moscow",
    "nairobi", "ottawa", "paris", "phoenix", "saopaulo", "tokyo", "toronto", "trondheim", "zurich",
)  # fmt: skip


def clips_of_msls(name: str, negatives: int, length: int = 5) -> ConfigDict:
    """Triplets of clips of MSLS as in the code of SeqVLAD: 4 queries a step, 1,000 of them from one mining.

    An epoch has 5,000 queries, and the run ends after 5 that bring R@5 no further. Images, model and what of it rests
    are the recipe's.
    """
    config = common.base()
    config.name = name
    config.model.l2_after = False  # what is ranked is what the heads give, of unit length where they say so
    clips = {"length": length}
    config.train_data = common.data("msls", "data/msls", "train", cities=MSLS_TRAIN, clips=clips)
    val = common.data("msls", "data/msls", "val", cities=MSLS_VAL, protocol="all", clips=clips)
    test = common.data("msls", "data/msls", "val", protocol="all", clips=clips)
    config.val_data, config.test_data = ConfigDict({"msls_val": val}), ConfigDict({"msls": test})
    config.objective = common.mined_triplets(negatives=negatives)
    config.batch, config.epochs, config.steps_per_epoch = 4, 100, 1250
    config.optimizer = common.optimizer("adam", 1e-5)
    config.best.measure, config.best.patience = "R@5", 5
    return config


def places_in_city(name: str) -> ConfigDict:
    """Metric learning on places of the embedded city of 2 x 2 blocks, by a small ResNet from random weights.

    A place is a cell of 10 m and 30 degrees; a batch has 16 of them, at least 25 m apart, of 4 images. The aggregator
    is the recipe's to choose.
    """
    config = in_city(name)
    config.objective = common.places(P=16, K=4, by="cell", min_distance=25.0)
    config.batch = 64
    config.epochs, config.steps_per_epoch, config.every_epochs = 12, 100, 2
    config.optimizer = common.optimizer("adamw", 2e-3, schedule="cosine", warmup=60)
    return config


def small_dino(config: ConfigDict, **options) -> None:
    """Puts a DINOv2 of 4 blocks and 96 channels into a recipe of the embedded city, with random weights.

    A patch has 14 pixels whatever the model's size; images of 64 are enlarged to 112, so that it covers 8 of theirs.
    """
    config.model.backbone = "dinov2_vits14"
    config.model.backbone_options = ConfigDict({"width": 96, "depth": 4, "heads": 3, "side": 8, **options})
    config.image = common.image((112, 112), "linear")
    config.optimizer.rate = 1e-3


def places_of_gsv_cities(name: str, P: int, epochs: int) -> ConfigDict:
    """Training on GSV-Cities as its authors and those after them do it: P places of 4 images of one city.

    Multi-similarity loss and miner, RandAugment of 3 operations, validated on Pitts30k. Backbone, aggregator, size of
    the images and optimiser are the recipe's. An epoch is a pass over the 62,514 places.
    """
    config = common.base()
    config.name = name
    config.train_data = common.data("gsv_cities", "data/gsv_cities")
    config.val_data = ConfigDict({"pitts30k_val": common.data("at_names", "data/pitts30k", "val")})
    config.test_data = ConfigDict({"pitts30k": common.data("at_names", "data/pitts30k", "test")})
    config.objective = common.places(P=P, K=4, by="place", by_city=True)
    config.augment.randaugment = 3
    config.batch = 4 * P
    config.epochs, config.steps_per_epoch = epochs, 62_514 // P
    return config


# What recipes of a user's own photos leave to the data (`jaxvpr.builders.choices`).
OF_OWN_PHOTOS = (
    "train_data.reader", "train_data.options", "train_data.split", "train_data.hold_out", "val_data", "test_data",
    "image.size", "image.resize", "model.backbone_options", "epochs", "steps_per_epoch",
)  # fmt: skip
OF_NEAR_PLACES = ("objective.partition.by", "objective.partition.radius", "objective.partition.angle",
                  "objective.min_distance", "objective.P", "batch")  # fmt: skip
OF_CELLS = (
    "batch", "optimizer.rate",
    *(f"objective.partition.{key}" for key in ("by", "M", "alpha", "N", "L", "groups", "min_images")),
)  # fmt: skip


def small_lite(config: ConfigDict, **options) -> None:
    """Puts EfficientNet-Lite0 with its ImageNet weights into a recipe, to block 10: 112 channels at a sixteenth of the
    image's size."""
    config.init = "pip:efficientnet-lite0"
    config.model.backbone = "efficientnet_lite0"
    config.model.backbone_options = ConfigDict({"cut": 10, **options})
    config.image = common.image((224, 224), "pil_bicubic", mean=common.LITE_MEAN, std=common.LITE_STD)


def on_own_photos(name: str) -> ConfigDict:
    """EfficientNet-Lite0 to block 10 with its ImageNet weights, on photos in the folder `data`.

    A fifth of the map is held out to validate on where the photos have no split for it. The run ends after 4
    validations that are no better. Aggregator and objective are the recipe's, and `auto` begins with `OF_OWN_PHOTOS`.
    """
    config = common.base()
    config.name = name
    small_lite(config)
    config.train_data = common.data("folder", "data", hold_out=0.2)
    config.epochs, config.steps_per_epoch = 12, 50
    config.best.measure, config.best.patience = "R@1", 4
    return config


def tuned_on_own_photos(name: str) -> ConfigDict:
    """The same with its later blocks trained: those up to block 4 rest, and all averages of BatchNorm."""
    config = on_own_photos(name)
    config.model.backbone_options.update(frozen_until=4, frozen_bn="all")
    config.augment.update(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.05, scale=(0.75, 1.0))
    config.optimizer = common.optimizer("adam", 3e-4, warmup=20)
    return config


def near_places(P: int, K: int) -> ConfigDict:
    """Places by nearness, and the loss that suits few of them."""
    objective = common.places(P=P, K=K, by="near", min_distance=25.0)
    objective.loss_options.update(alpha=2.0, beta=40.0, base=0.5)
    return objective
