"""SeqVLAD: clips described by NetVLAD over the local features of all their frames (Mereu et al., "Learning Sequential
Descriptors for Sequence-Based Visual Place Recognition", RA-L 2022), from triplets of clips.

    python -m jaxvpr.main --config=configs/cosplace.py                  # what the embedded city starts from
    python -m jaxvpr.main --config=configs/seqvlad.py                   # drives through it, minutes on a laptop
    python -m jaxvpr.main --config=configs/seqvlad.py:msls,data=/data,init=resnet18.pth

A model of clips describes single images too, so that it can be trained on them (`train_data.clips.length=0`) and
measured on clips of any length (`test_data.NAME.clips.length=9`).
"""

from ml_collections import ConfigDict

from configs import common, trainings


def city() -> ConfigDict:
    """A small ResNet with NetVLAD on clips of 5 frames of the embedded city's drives, from CosPlace's network there.

    `init` names what `configs/cosplace.py` left. Measured on 2026-11-28, one seed, 578 query clips within 25 m:
    R@1 94.3, and 87.5 before training. It took 312 seconds of CPU time with its measurements.
    """
    config = trainings.drives_in_city("seqvlad-city")
    config.init = "runs/cosplace-city/model.safetensors:backbone"
    # Mined batches have more frames by day than the city has: averages of theirs would undo what the network knows.
    config.model.backbone_options = ConfigDict({"frozen_bn": "all"})
    config.model.aggregator, config.model.sequence = "netvlad", "joint"
    config.model.aggregator_options = ConfigDict({"clusters": 16})
    config.clusters.images = 200
    config.objective = common.mined_triplets(negatives=5, pool=300, refresh=200)
    config.batch, config.epochs, config.steps_per_epoch = 8, 4, 50
    config.optimizer = common.optimizer("adam", 1e-4)
    config.best.measure, config.best.patience = "R@5", 3
    return config


def msls() -> ConfigDict:
    """The authors' on MSLS: ResNet-18 to conv4, 64 clusters, 4 queries of 12 clips a step, 5,000 queries an epoch.

    Wants `init=` with torchvision's ImageNet weights.
    """
    config = trainings.clips_of_msls("seqvlad-msls", negatives=10)
    config.model.backbone_options = ConfigDict({"cut": "layer3"})
    config.model.aggregator, config.model.sequence = "netvlad", "joint"
    config.clusters.images = 500
    config.frozen = ("backbone/(conv1|bn1|layer1_|layer2_)",)
    config.image = common.image((480, 640), "pil_bilinear")
    return config


PRESETS = {"city": city, "msls": msls}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(preset, PRESETS)
