"""BoQ: a bag of learned queries looks at the local features, layer by layer (Ali-bey et al., CVPR 2024).

    python -m jaxvpr.main --config=configs/boq.py                      # the embedded city, minutes on a laptop
    python -m jaxvpr.main --config=configs/boq.py:dinov2,data=/data,init=dinov2_vitb14.pth
    python -m jaxvpr.main --config=configs/boq.py:resnet50,data=/data,init=resnet50.pth

The authors measure at larger images than they train with: `evaluate` with image.size=(322,322) for `dinov2`, (384,384)
for `resnet50`.
"""

from ml_collections import ConfigDict

from configs import common, trainings


def city() -> ConfigDict:
    """The embedded city: 2 x 16 queries after the third stage of a small ResNet, 256 dimensions."""
    config = trainings.places_in_city("boq-city")
    config.model.backbone_options = ConfigDict({"cut": "layer3"})
    config.model.aggregator = "boq"
    config.model.aggregator_options = ConfigDict({"dim": 64, "queries": 16, "rows": 4, "head_dim": 16})
    return config


def dinov2() -> ConfigDict:
    """The authors' training on GSV-Cities: the last two blocks of DINOv2-B, 64 queries in 2 layers, 8192 dimensions.

    Wants `init=` with the weights of `facebookresearch/dinov2`. The weights that were released have 12288 dimensions:
    `model.aggregator_options.dim=384,model.aggregator_options.rows=32`.
    """
    config = _authors("boq-dinov2", rows=16)
    config.model.backbone = "dinov2_vitb14"
    config.model.backbone_options = ConfigDict({"train_blocks": 2, "norm": False})
    config.image = common.image((224, 224), "pil_bicubic")
    return config


def resnet50() -> ConfigDict:
    """The same with the second and third stage of a ResNet-50, 320 pixels and 16384 dimensions.

    Wants `init=` with torchvision's ImageNet weights.
    """
    config = _authors("boq-resnet50", rows=32)
    config.model.backbone = "resnet50"
    config.model.backbone_options = ConfigDict({"cut": "layer3", "frozen_until": "layer1"})
    config.image = common.image((320, 320), "pil_bicubic")
    return config


def _authors(name: str, rows: int) -> ConfigDict:
    config = trainings.places_of_gsv_cities(name, P=128, epochs=40)
    config.model.aggregator = "boq"
    config.model.aggregator_options = ConfigDict({"dim": 512, "queries": 64, "layers": 2, "rows": rows})
    config.augment.magnitude = 15
    config.optimizer = common.optimizer(
        "adamw", 1e-4, weight_decay=1e-4,
        schedule="multi_step", per="epoch", milestones=(10, 20), gamma=0.1, warmup_epochs=10,
    )  # fmt: skip
    return config


PRESETS = {"city": city, "dinov2": dinov2, "resnet50": resnet50}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(preset, PRESETS)
