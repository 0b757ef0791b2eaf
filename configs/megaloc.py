"""MegaLoc: SALAD with a linear layer, from several data sets at once (Berton and Masone, CVPR 2025 workshops).

    python -m jaxvpr.main --config=configs/megaloc.py                  # two embedded cities, minutes on a laptop
    python -m jaxvpr.main --config=configs/megaloc.py:megaloc,data=/data,init=dinov2_vitb14.pth

`objective.weights` has a number a data set: `train_data` first, then those of `more_train_data` by name.
"""

from ml_collections import ConfigDict

from configs import common, trainings


def city() -> ConfigDict:
    """Two thirds of each batch from the embedded city that is tested, a third from a modern one."""
    config = trainings.places_in_city("megaloc-city")
    trainings.small_dino(config)
    config.model.aggregator = "megaloc"
    config.model.aggregator_options = ConfigDict(
        {"dim": 256, "clusters": 16, "cluster_dim": 32, "token_dim": 64, "hidden": 128, "dropout": 0.1}
    )
    other = common.data("minicity", "data/minicity-modern", "train")
    other.options.city = ConfigDict({"seed": 1, "style": "modern"})
    config.more_train_data = ConfigDict({"modern": other})
    config.objective.weights = (2.0, 1.0)
    return config


def megaloc() -> ConfigDict:
    """The paper's network from all its data sets: DINOv2-B and 8448 dimensions.

    GSV-Cities by its places, MegaScenes and ScanNet by folders of a class, SF-XL by cells of 10 m and 30 degrees, and
    cliques of MSLS: a fifth of each batch each. Shares, sizes and the optimiser are ours, after SALAD. Wants `init=`
    with the weights of `facebookresearch/dinov2`.
    """
    config = trainings.places_of_gsv_cities("megaloc", P=60, epochs=40)
    config.model.backbone = "dinov2_vitb14"
    config.model.backbone_options = ConfigDict({"train_blocks": 4})
    config.model.aggregator = "megaloc"
    config.model.aggregator_options = ConfigDict(
        {"dim": 8448, "clusters": 64, "cluster_dim": 256, "token_dim": 256, "hidden": 512, "dropout": 0.3}
    )
    config.image = common.image((224, 224), "pil_bilinear")
    config.more_train_data = ConfigDict(
        {
            "megascenes": common.data("classes", "data/megascenes"),
            "msls": common.data("at_names", "data/msls", "train", partition={"by": "cell"}),
            "scannet": common.data("classes", "data/scannet"),
            "sf_xl": common.data("at_names", "data/sf_xl/processed", "train", partition={"by": "cell"}),
        }
    )
    config.objective.by_city = False
    config.objective.cliques.update(share=0.2, sets=(2,))
    config.objective.weights = (1.0, 1.0, 1.0, 1.0)
    config.steps_per_epoch = 1000
    config.optimizer = common.optimizer("adamw", 6e-5, weight_decay=9.5e-9, schedule="linear", final=0.2)
    return config


PRESETS = {"city": city, "megaloc": megaloc}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(preset, PRESETS)
