"""SqueezeNet 1.0 with ImageNet weights and GeM, never trained on places: what a network knows before any recipe.

    python -m jaxvpr.main evaluate --config=configs/squeezenet.py:corridor,init=squeezenet1_0.pth,\
test_data.corridor.root=FOLDER

Presets: corridor (VPR-Bench's corridor, its list of positives), nordland (winter to summer, every third frame, one
  frame of tolerance), ie_tower (floors of a building by label). `init` is torchvision's file. Measured results:
  docs/results.md.
"""

from ml_collections import ConfigDict

from configs import common


def base() -> ConfigDict:
    """SqueezeNet's last fire module, GeM with p = 3, images squashed by Pillow's bicubic filter."""
    config = common.base()
    config.model.backbone = "squeezenet"
    config.model.aggregator = "gem"
    config.image = common.image((224, 224), "pil_bicubic")
    return config


def corridor() -> ConfigDict:
    config = base()
    config.test_data = ConfigDict({"corridor": common.data("pairs", "data/corridor", thresholds=("list",))})
    return config


def nordland() -> ConfigDict:
    config = base()
    config.image.size = (160, 160)
    config.test_data = ConfigDict({"nordland": common.data("frames", "data/nordland", thresholds=("1frame",), every=3)})
    return config


def ie_tower() -> ConfigDict:
    config = base()
    columns = ConfigDict({"path": "image_path", "place": "label", "role": "split"})
    config.test_data = ConfigDict(
        {"ie_tower": common.data("csv", "data/ie_tower", thresholds=("label",), file="dataset.csv", columns=columns)}
    )
    return config


PRESETS = {"corridor": corridor, "nordland": nordland, "ie_tower": ie_tower}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    config = common.choose(preset, PRESETS)
    config.name = f"squeezenet-{config.name}"
    return config
