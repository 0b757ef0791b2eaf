"""CricaVPR: an encoder across the images of a batch, on a frozen DINOv2 with adapters (Lu et al., CVPR 2024).

    python -m jaxvpr.main --config=configs/cricavpr.py                 # the embedded city, minutes on a laptop
    python -m jaxvpr.main --config=configs/cricavpr.py:cricavpr,data=/data \\
        "--config.init=dinov2_vitb14.pth:^backbone/(?!.*adapter)"

A descriptor depends on the other images of its batch, in training as in evaluation: `eval.batch` is part of a figure.
"""

from ml_collections import ConfigDict

from configs import common, trainings


def city() -> ConfigDict:
    """The embedded city: all of a DINOv2 of 4 blocks learns, its adapters too, and one layer of the encoder."""
    config = trainings.places_in_city("cricavpr-city")
    trainings.small_dino(config, adapters=True)
    config.model.aggregator = "cricavpr"
    config.model.aggregator_options = ConfigDict({"layers": 1, "heads": 4, "hidden": 192, "cuts": ((4,), (3, 5))})
    config.eval.batch = 16
    return config


def cricavpr() -> ConfigDict:
    """The paper's training on GSV-Cities: adapters and encoder alone learn, 72 places of 4 images, 10752 dimensions.

    The weights of `facebookresearch/dinov2` hold all of the backbone but the adapters, as the pattern says. Here the
    encoder looks across all 288 images of a batch; the authors' looks across the 144 that each of two devices has.
    """
    config = trainings.places_of_gsv_cities("cricavpr-gsv-cities", P=72, epochs=10)
    config.model.backbone = "dinov2_vitb14"
    config.model.backbone_options = ConfigDict({"adapters": True, "adapters_only": True})
    config.model.aggregator = "cricavpr"
    config.image = common.image((224, 224), "pil_bilinear")
    config.eval.batch = 16
    config.optimizer = common.optimizer(
        "adam", 1e-4, schedule="multi_step", per="epoch", milestones=(3, 6, 9), gamma=0.5
    )
    return config


PRESETS = {"city": city, "cricavpr": cricavpr}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(preset, PRESETS)
