"""TimeSformer: clips described by a vision transformer with attention over time and space in turns (Bertasius et al.,
"Is Space-Time Attention All You Need for Video Understanding?", ICML 2021), as Mereu et al. (RA-L 2022) train it.

    python -m jaxvpr.main --config=configs/timesformer.py               # drives through the embedded city, from nothing
    python -m jaxvpr.main --config=configs/timesformer.py:msls,data=/data,init=vit_b16.pth
"""

from ml_collections import ConfigDict

from configs import common, trainings


def city() -> ConfigDict:
    """A small one on clips of 3 frames of the embedded city's drives, from random weights: places of 4 clips.

    They are told apart by prototypes: multi-similarity had not left, in 80 steps, the loss of descriptors that are all
    alike. Neither recall nor time is measured yet.
    """
    config = trainings.drives_in_city("timesformer-city", length=3)
    config.model.backbone = "timesformer_b16"
    config.model.backbone_options = ConfigDict(
        {"width": 96, "depth": 4, "heads": 3, "patch": 8, "side": 8, "frames": 3}
    )
    config.model.aggregator = "cls"
    config.objective = common.places(P=12, K=4, by="cell", min_distance=25.0)
    config.objective.loss, config.objective.miner = "cosface", "none"
    config.objective.loss_options = ConfigDict({"scale": 20.0, "margin": 0.1})
    config.batch = 48
    config.epochs, config.steps_per_epoch, config.every_epochs = 6, 100, 2
    config.optimizer = common.optimizer("adamw", 1e-3, schedule="cosine", warmup=60)
    return config


def msls() -> ConfigDict:
    """The authors' on MSLS: ViT-B/16 over 5 frames of 224 x 224 pixels, 4 queries of 7 clips a step.

    Wants `init=` with timm's ImageNet weights of ViT-B/16.
    """
    config = trainings.clips_of_msls("timesformer-msls", negatives=5)
    config.model.backbone, config.model.backbone_options = "timesformer_b16", ConfigDict({"frames": 5})
    config.model.aggregator = "cls"
    config.image = common.image((224, 224), "pil_bilinear")
    return config


PRESETS = {"city": city, "msls": msls}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(preset, PRESETS)
