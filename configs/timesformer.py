"""TimeSformer: clips described by a vision transformer with attention over time and space in turns (Bertasius et al.,
"Is Space-Time Attention All You Need for Video Understanding?", ICML 2021), as Mereu et al. (RA-L 2022) train it.

    python -m jaxvpr.main --config=configs/cosplace.py                  # the teacher
    python -m jaxvpr.main --config=configs/timesformer.py:vit_city      # of a vision transformer, from which begins
    python -m jaxvpr.main --config=configs/timesformer.py               # TimeSformer on drives through that city
    python -m jaxvpr.main --config=configs/timesformer.py:msls,data=/data,init=vit_b16.pth
"""

from ml_collections import ConfigDict

from configs import common, distill, trainings

SMALL = {"width": 96, "depth": 4, "heads": 3, "patch": 8, "side": 8}


def city() -> ConfigDict:
    """A small one on clips of 3 frames of the embedded city's drives, from `vit_city`: places of 4 clips.

    Measured on 2026-11-28, one seed, 290 query clips of 5 frames within 25 m: R@1 45.5, and 27.2 before training. It
    took 248 seconds of CPU time with its measurements, `vit_city` before it 226.
    """
    config = trainings.drives_in_city("timesformer-city", length=3)
    config.init = "run:runs/vit-city:backbone"
    config.model.backbone = "timesformer_b16"
    config.model.backbone_options = ConfigDict({**SMALL, "frames": 3})
    config.model.aggregator = "cls"
    config.objective = common.places(P=12, K=4, by="cell", min_distance=25.0)
    config.batch = 48
    config.epochs, config.steps_per_epoch = 2, 50
    config.optimizer = common.optimizer("adamw", 3e-4, schedule="cosine", warmup=10)
    return config


def vit_city() -> ConfigDict:
    """The vision transformer that `city` starts from: CosPlace's network of the embedded city teaches it.

    Measured on 2026-11-28, one seed, 600 queries within 25 m: R@1 18.7 after 468 steps, and 14.7 by CosPlace's cells
    after 500: without the weights of a larger set of images it is far below its teacher's 77.0.
    """
    config = distill.city()
    config.name = "vit-city"
    config.model.backbone, config.model.backbone_options = "vit_b16", ConfigDict(SMALL)
    config.model.aggregator, config.model.aggregator_options = "cls", ConfigDict()
    config.epochs, config.every_epochs = 4, 2
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


PRESETS = {"city": city, "vit_city": vit_city, "msls": msls}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(preset, PRESETS)
