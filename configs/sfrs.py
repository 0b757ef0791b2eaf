"""SFRS: NetVLAD that teaches itself which regions of difficult positives show the place (Ge et al., ECCV 2020).

    python -m jaxvpr.main --config=configs/cosplace.py                  # what the embedded city starts from
    python -m jaxvpr.main --config=configs/sfrs.py                      # the embedded city, minutes on a laptop
    python -m jaxvpr.main --config=configs/sfrs.py:pitts30k,data=/data,init=vgg16.pth

Training runs in generations, which begin at the epochs of `objective.generations`: each time the network starts anew,
with the last one as its teacher.
"""

from ml_collections import ConfigDict

from configs import common, trainings


def city() -> ConfigDict:
    """A small ResNet with NetVLAD on the embedded city of 2 x 2 blocks, three generations from CosPlace's network.

    `init` names what `configs/cosplace.py` left. Measured on 2026-11-21, one seed, 600 queries within 25 m: R@1 73.8,
    and 70.2 before training.
    """
    config = trainings.in_city("sfrs-city")
    config.init = "runs/cosplace-city/model.safetensors:backbone"
    config.model.aggregator = "netvlad"
    config.model.aggregator_options = ConfigDict({"clusters": 8})
    config.clusters.images = 200
    config.objective = sfrs(
        generations=(0, 1, 3), temperatures=(0.07, 0.07, 0.06), difficult=4, difficult_pool=8, reciprocal=10,
        negatives=4, pool=500, refresh=500, positive="10m_30deg",
    )  # fmt: skip
    config.batch, config.epochs, config.steps_per_epoch = 10, 5, 50
    config.optimizer = common.optimizer("adam", 5e-4)
    return config


def pitts30k() -> ConfigDict:
    """The paper's: VGG-16, of which the last block trains, on Pitts30k, four generations of five epochs.

    An epoch takes 7,000 queries, nearly as many as there are; all images are described anew every 1,000. The authors'
    code ends the first generation after one epoch, `objective.generations=(0,1,6,11),epochs=16`. It starts from
    MatConvNet's VGG-16, so `init=` wants that in torchvision's names.
    """
    config = common.base()
    config.name = "sfrs-pitts30k"
    config.model.backbone, config.model.backbone_options = "vgg16", ConfigDict({"frozen_until": 23})
    config.model.aggregator = "netvlad"
    config.clusters.images = 500
    # Caffe's colours: the mean of each, and no other scale than 0 to 255.
    config.image = common.image(
        (480, 640), "pil_bilinear", mean=(123.68 / 255, 116.779 / 255, 103.939 / 255), std=(1 / 255, 1 / 255, 1 / 255)
    )
    config.augment.update(brightness=0.7, contrast=0.7, saturation=0.7, hue=0.5)
    config.train_data = common.data("at_names", "data/pitts30k", "train")
    config.val_data = ConfigDict({"pitts30k_val": common.data("at_names", "data/pitts30k", "val")})
    config.test_data = ConfigDict({"pitts30k": common.data("at_names", "data/pitts30k", "test")})
    config.objective = sfrs()
    config.batch, config.epochs, config.steps_per_epoch = 4, 20, 1750
    config.optimizer = common.optimizer("sgd", 1e-3, momentum=0.9, weight_decay=1e-3)
    config.pca.update(dim=4096, images=10_000, whiten=True)
    config.best.measure = "R@5"
    return config


def sfrs(**changes) -> ConfigDict:
    """The keys of the objective, with the published values; those of `common.mined_triplets` are among them.

    `generations` are the epochs at which they begin, `temperatures` those that the teacher's similarities of each are
    divided by; the student's are divided by the first. A query has `difficult` positives, chosen among the
    `difficult_pool` nearest by re-ranking with `reciprocal` neighbours (0: the nearest serve). The cross entropy with
    the teacher weighs `soft_weight`. Of descriptors of unit length, SARE's `temperature` of 0.14 is one of 0.07 on
    their dot products.
    """
    own = {
        "generations": (0, 5, 10, 15),
        "temperatures": (0.07, 0.07, 0.06, 0.05),
        "soft_weight": 0.5,
        "difficult": 10,
        "difficult_pool": 20,
        "reciprocal": 20,
    }
    chosen = {key: changes.pop(key, value) for key, value in own.items()}
    mined = {"mining": "full", "loss": "sare_independent", "loss_options": ConfigDict({"temperature": 0.14}), **changes}
    return ConfigDict({**common.mined_triplets(**mined), "name": "sfrs", **chosen})


PRESETS = {"city": city, "pitts30k": pitts30k}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(preset, PRESETS)
