"""JIST: one model of images and clips, trained on both at once (Berton et al., "JIST: Joint Image and Sequence Training
for Sequential Visual Place Recognition", RA-L 2023).

    python -m jaxvpr.main --config=configs/cosplace.py                  # what the embedded city starts from
    python -m jaxvpr.main --config=configs/jist.py                      # the city and drives through it
    python -m jaxvpr.main --config=configs/jist.py:sf_xl_msls,data=/data,\
init=cosplace-resnet18-512:resnet18_512.pth:'backbone|aggregator'

Each step sees a batch of single images, told apart by cells of the map, and triplets of clips. A clip's descriptor is
the generalised mean of its frames', so that the images teach what describes the frames.
"""

from ml_collections import ConfigDict

from configs import common, cosplace, trainings


def city() -> ConfigDict:
    """CosPlace's network of the embedded city learns on from the city's images and from its drives.

    Measured on 2026-11-28, one seed, 578 query clips within 25 m: R@1 96.0 (94.1 to 97.3), and 95.7 (93.7 to 97.1)
    before training. It took 127 seconds of CPU time with its measurements.
    """
    config = trainings.drives_in_city("jist-city")
    config.init = "runs/cosplace-city/model.safetensors:backbone|aggregator"
    config.model.backbone_options = ConfigDict({"frozen_bn": "all"})
    config.model.aggregator_options = cosplace.city().model.aggregator_options
    config.model.sequence, config.model.l2_after = "seqgem", False
    cells = common.cells(N=2, min_images=3, scale=20.0, margin=0.2, head_steps=10)
    config.objective = joint(cells, common.mined_triplets(negatives=3, pool=300, refresh=100), batch=32)
    config.more_train_data = ConfigDict({"drives": config.train_data})
    config.train_data = common.data("minicity", "data/minicity", "train")
    config.batch, config.epochs, config.steps_per_epoch, config.every_epochs = 4, 8, 25, 2
    config.optimizer = common.optimizer("adam", 1e-4)
    config.best.measure = "R@5"
    return config


def sf_xl_msls() -> ConfigDict:
    """The paper's: cells of SF-XL and triplets of clips of MSLS. Of CosPlace's ResNet-18 the last stage and the head
    train.

    64 images and 4 queries with 6 clips each a step; 2,500 steps an epoch, a tenth of them from one mining. Wants
    `init=` with CosPlace's weights, which have no head for clips: of them backbone and aggregator are taken.
    """
    config = trainings.clips_of_msls("jist-sf-xl-msls", negatives=5)
    config.model.aggregator_options = ConfigDict({"dim": 512})
    config.model.sequence = "seqgem"
    config.frozen = ("backbone/(conv1|bn1|layer1_|layer2_|layer3_)",)
    config.image = common.image((480, 640), "pil_bilinear")
    of_images = cosplace.sf_xl()
    config.augment = of_images.augment
    config.more_train_data = ConfigDict({"msls": config.train_data})
    config.train_data = of_images.train_data
    config.val_data.sf_xl_val = of_images.val_data.sf_xl_val
    config.objective.pool = 3000
    config.objective = joint(common.cells(), config.objective, batch=64, size=(512, 512))
    config.epochs, config.steps_per_epoch = 5, 2500
    config.best.measure, config.best.patience = "msls_val/R@5", 0
    return config


def joint(
    images: ConfigDict,
    clips: ConfigDict,
    *,
    batch: int,
    size: tuple[int, ...] = (),
    weights: tuple[float, float] = (100.0, 10_000.0),
) -> ConfigDict:
    """The keys of the objective `jist`: `images` are those of `cells`, `clips` those of `mined_triplets`.

    Every step sees `batch` images, of `size` where that is not the recipe's `image.size`, and the triplets of as many
    queries as the recipe's `batch` says. The loss is that of the images and that of the clips, times `weights`. The
    images are `train_data`, the clips are the data sets of `more_train_data` that say `clips.length`.
    """
    keys = {"name": "jist", "images": images, "clips": clips, "batch": batch, "size": size, "weights": weights}
    return ConfigDict(keys)


PRESETS = {"city": city, "sf_xl_msls": sf_xl_msls}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(preset, PRESETS)
