"""SALAD: local features given to clusters by optimal transport (Izquierdo and Civera, CVPR 2024); CliqueMining of the
same authors (ECCV 2024).

    python -m jaxvpr.main --config=configs/salad.py                    # the embedded city, minutes on a laptop
    python -m jaxvpr.main --config=configs/salad.py:salad,data=/data,init=dinov2_vitb14.pth
    python -m jaxvpr.main --config=configs/salad.py:cliquemining,data=/data,init=dinov2_vitb14.pth

Trained at 224 pixels, the model is measured at 322 in the paper:

    python -m jaxvpr.main evaluate --config=configs/salad.py:salad,data=/data --config.image.size=322,322
"""

from ml_collections import ConfigDict

from configs import common, trainings


def city() -> ConfigDict:
    """The embedded city: a DINOv2 of 4 blocks, 16 clusters of 16 numbers beside a token of 64."""
    config = trainings.places_in_city("salad-city")
    trainings.small_dino(config)
    config.model.aggregator = "salad"
    config.model.aggregator_options = ConfigDict(
        {"clusters": 16, "cluster_dim": 16, "token_dim": 64, "hidden": 128, "dropout": 0.1}
    )
    return config


def city_cliques() -> ConfigDict:
    """The same, where half the places of a batch are cliques of similar places, found anew each epoch."""
    config = city()
    config.name = "salad-city-cliques"
    config.objective.cliques.update(share=0.5, angle=30.0)
    return config


def salad() -> ConfigDict:
    """The paper's training on GSV-Cities: the last four blocks and the norm of DINOv2-B, 8448 dimensions, four epochs.

    Wants `init=` with the weights of `facebookresearch/dinov2`.
    """
    config = trainings.places_of_gsv_cities("salad-gsv-cities", P=60, epochs=4)
    config.model.backbone = "dinov2_vitb14"
    config.model.backbone_options = ConfigDict({"train_blocks": 4})
    config.model.aggregator = "salad"
    config.model.aggregator_options = ConfigDict(
        {"clusters": 64, "cluster_dim": 128, "token_dim": 256, "dropout": 0.3, "iterations": 3}
    )
    config.image = common.image((224, 224), "pil_bilinear")
    config.optimizer = common.optimizer(
        "adamw", 6e-5, weight_decay=9.5e-9, schedule="linear", start=1.0, final=0.2, length=4000
    )
    return config


def cliquemining() -> ConfigDict:
    """SALAD from 30 places of GSV-Cities and 30 cliques of MSLS a batch: 4 images within 25 m, from 15 similar places.

    4,000 batches in all. MSLS is read from the tree with '@' names.
    """
    config = salad()
    config.name = "salad-cliquemining"
    msls = common.data("at_names", "data/msls", "train", partition={"by": "cell"})
    config.more_train_data = ConfigDict({"msls": msls})
    config.objective.cliques.update(share=0.5, sets=(1,), similar=15, distance=25.0)
    config.epochs, config.steps_per_epoch = 4, 1000
    return config


PRESETS = {"city": city, "city_cliques": city_cliques, "salad": salad, "cliquemining": cliquemining}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(preset, PRESETS)
