"""Baselines that compare sequences without a model of clips: averages of aligned frames, SeqSLAM, and SeqNet's two
stages (Milford and Wyeth, "SeqSLAM", ICRA 2012; Garg and Milford, "SeqNet", RA-L 2021).

    python -m jaxvpr.main evaluate --config=configs/sequence_baselines.py:nordland,init=squeezenet1_0.pth,data=FOLDER
    python -m jaxvpr.main evaluate --config=configs/sequence_baselines.py:nordland_trained,data=FOLDER \
--workdir=runs/nordland-squeezenet

Each preset takes eval.sequence.score=average (mean distance of aligned frames) and two_stage (the first 20 by the mean
of the frames' descriptors, ranked again by the average) instead of seqslam.
"""

from ml_collections import ConfigDict

from configs import common, cosplace, squeezenet
from configs import nordland as railway


def city() -> ConfigDict:
    """CosPlace's network of the embedded city, and second passes of drives through it in other years and weather.

    A second in front of a light is a frame, so that velocities differ more than on a railway.
    """
    config = cosplace.city()
    config.name = "city"
    config.init = "runs/cosplace-city/model.safetensors"
    config.train_data, config.val_data = ConfigDict({}), ConfigDict({})
    config.eval.sequence.velocity, config.eval.sequence.velocities = (0.5, 2.0), 7
    where = {"thresholds": ("10m", "25m"), "drives": True}
    return _lengths(config, (1, 3, 5, 9, 15), "minicity", "data/minicity", "test", **where)


def nordland() -> ConfigDict:
    """SqueezeNet with ImageNet weights and GeM, never trained on places."""
    config = squeezenet.base()
    config.image.size = (160, 160)
    return _on_nordland(config)


def nordland_trained() -> ConfigDict:
    """The network that `configs/nordland.py` trained on the frames before 2,400."""
    config = railway.squeezenet()
    config.init = "runs/nordland-squeezenet/model.safetensors"
    config.train_data, config.val_data = ConfigDict({}), ConfigDict({})
    return _on_nordland(config)


def _on_nordland(config: ConfigDict) -> ConfigDict:
    """Winter asks for summer on the frames from 2,400 on."""
    where = {"thresholds": ("1frame",), "train": 2400}
    return _lengths(config, (1, 3, 5, 10, 20), "frames", "data/nordland", "test", **where)


def _lengths(config: ConfigDict, lengths: tuple[int, ...], reader: str, root: str, split: str, **data) -> ConfigDict:
    """Tests on clips of several lengths. Each ends at its query and is right where its last frame is: a longer one is
    not easier to hit."""
    config.test_data = ConfigDict({
        f"frames_{length:02d}": common.data(reader, root, split, clips={"length": length, "match": "last"}, **data)
        for length in lengths
    })  # fmt: skip
    config.eval.sequence.score = "seqslam"
    config.model.sequence = "mean"
    return config


PRESETS = {"city": city, "nordland": nordland, "nordland_trained": nordland_trained}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    config = common.choose(preset, PRESETS)
    config.name = f"sequence-baselines-{config.name}"
    return config
