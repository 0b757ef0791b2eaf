"""JIST: one model of images and clips, trained on both at once (Berton et al., "JIST: Joint Image and Sequence Training
for Sequential Visual Place Recognition", RA-L 2023).

    python -m jaxvpr.main --config=configs/cosplace.py                  # what the embedded city starts from
    python -m jaxvpr.main --config=configs/jist.py                      # the city and drives through it

Each step sees a batch of single images, told apart by cells of the map, and triplets of clips. A clip's descriptor is
the generalised mean of its frames', so that the images teach what describes the frames.
"""

from ml_collections import ConfigDict

from configs import common, cosplace, trainings


def city() -> ConfigDict:
    """CosPlace's network of the embedded city learns on from the city's images and from its drives."""
    config = trainings.drives_in_city("jist-city")
    config.init = "runs/cosplace-city/model.safetensors"
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


PRESETS = {"city": city}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(preset, PRESETS)
