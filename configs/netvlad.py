"""Mined triplets: the training of the Deep Visual Geo-localization benchmark (Berton et al., CVPR 2022), and NetVLAD's
own (Arandjelović et al., CVPR 2016).

    python -m jaxvpr.main --config=configs/netvlad.py                        # the embedded city, minutes on a laptop
    python -m jaxvpr.main --config=configs/netvlad.py:pitts30k,data=/data,init=resnet18.pth
    python -m jaxvpr.main --config=configs/netvlad.py:msls,data=/data,init=resnet18.pth   # partial mining, queries of
                                                              # the night and sideways ones drawn more often
    python -m jaxvpr.main --config=configs/netvlad.py:pitts250k,data=/data,init=vgg16.pth   # the PyTorch port's
    python -m jaxvpr.main --config=configs/netvlad.py:own,data=FOLDER        # one's own photos, docs/own_street.md
    python -m jaxvpr.main sweep --config=configs/sweeps/mining.py            # random, partial and full mining

The clusters of a NetVLAD come from k-means of training images, unless `init` brings them. Measured results stand in
docs/results.md.
"""

from ml_collections import ConfigDict

from configs import common, trainings


def city() -> ConfigDict:
    """A small ResNet with NetVLAD on the embedded city of 2 x 2 blocks, from CosPlace's network there.

    Every image is a query to whom all others are the database. `init=` (nothing) starts from random weights, from which
    triplets learn slowly.
    """
    config = trainings.in_city("netvlad-city")
    config.init = "runs/cosplace-city/model.safetensors:backbone"
    # Mined batches have more images by day than the city has: averages of theirs would undo what the network knows.
    config.model.backbone_options = ConfigDict({"frozen_bn": "all"})
    config.model.aggregator = "netvlad"
    config.model.aggregator_options = ConfigDict({"clusters": 16})
    config.clusters.images = 200
    config.objective = common.mined_triplets(negatives=5, pool=500, refresh=250, positive="5m_20deg")
    config.batch, config.epochs, config.steps_per_epoch = 10, 6, 50
    config.optimizer = common.optimizer("adam", 1e-4)
    config.best.measure, config.best.patience = "R@5", 3
    return config


def city_imagenet() -> ConfigDict:
    """SqueezeNet with GeM on the embedded city. Wants `init=` with torchvision's weights.

    The benchmark's start: a network that knows pictures, and no place yet.
    """
    config = city()
    config.name = "netvlad-city-imagenet"
    config.init = ""
    config.model.backbone, config.model.aggregator = "squeezenet", "gem"
    config.model.backbone_options = config.model.aggregator_options = ConfigDict({})
    config.clusters.images = 0
    config.objective.negatives = 10
    config.epochs, config.steps_per_epoch, config.batch = 2, 50, 5
    return config


def own() -> ConfigDict:
    """NetVLAD of 64 clusters on the later blocks of EfficientNet-Lite0, by triplets of photos in the folder `data`."""
    config = trainings.tuned_on_own_photos("netvlad-own")
    config.model.aggregator = "netvlad"
    config.clusters.images = 500
    config.objective = common.mined_triplets(negatives=5, pool=500, refresh=100)
    config.batch = 4
    config.auto = (*trainings.OF_OWN_PHOTOS, "optimizer.rate")
    return config


def pitts30k() -> ConfigDict:
    """The benchmark's ResNet-18 to conv4 with NetVLAD on Pitts30k: full mining, 4 queries of 12 images a step.

    Its figure is R@1 86.4. Wants `init=` with torchvision's ImageNet weights.
    """
    config = trainings.deep_vg("netvlad-pitts30k", "pitts30k", "data/pitts30k")
    _clusters(config)
    config.objective = common.mined_triplets(mining="full")
    return config


def msls() -> ConfigDict:
    """The same on MSLS in the '@' format, by partial mining; queries of the night and sideways ones more often."""
    config = trainings.deep_vg("netvlad-msls", "msls", "data/msls")
    _clusters(config)
    config.objective = common.mined_triplets(mining="partial", weighted=True)
    return config


def pitts250k() -> ConfigDict:
    """NetVLAD of VGG-16 to conv5 on Pitts250k, as its PyTorch port has it: SGD, halved every 5 of 30 epochs."""
    config = trainings.deep_vg("netvlad-pitts250k", "pitts250k", "data/pitts250k")
    config.model.backbone, config.model.backbone_options = "vgg16", ConfigDict({"frozen_until": 23})
    config.frozen = ()
    _clusters(config)
    config.objective = common.mined_triplets(mining="full")
    config.objective.loss_options.margin = 0.1**0.5
    config.optimizer = common.optimizer(
        "sgd",
        1e-4,
        momentum=0.9,
        weight_decay=1e-3,
        schedule="multi_step",
        per="epoch",
        milestones=(5, 10, 15, 20, 25),
        gamma=0.5,
    )
    config.epochs = 30
    return config


def _clusters(config: ConfigDict) -> None:
    config.model.aggregator, config.clusters.images = "netvlad", 500


PRESETS = {
    "city": city,
    "city_imagenet": city_imagenet,
    "pitts30k": pitts30k,
    "msls": msls,
    "pitts250k": pitts250k,
    "own": own,
}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(preset, PRESETS)
