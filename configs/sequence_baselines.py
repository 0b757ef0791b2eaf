"""Baselines that compare sequences by their frames: averages of aligned frames, SeqSLAM, and SeqNet's two stages
(Milford and Wyeth, "SeqSLAM", ICRA 2012; Garg and Milford, "SeqNet", RA-L 2021).

    python -m jaxvpr.main --config=configs/cosplace.py                 # what describes the frames of the embedded city
    python -m jaxvpr.main --config=configs/sequence_baselines.py       # trains SeqNet's first stage on drives there
    python -m jaxvpr.main evaluate --config=configs/sequence_baselines.py:city
    python -m jaxvpr.main evaluate --config=configs/sequence_baselines.py:nordland,init=squeezenet1_0.pth,data=FOLDER
    python -m jaxvpr.main evaluate --config=configs/sequence_baselines.py:nordland_trained,data=FOLDER   # trained there
                                                                       # by configs/nordland.py

eval.sequence.score chooses: "average" is the mean distance of aligned frames, "seqslam" what these presets have,
"two_stage" the first 20 by the mean of the frames' descriptors, ranked again by the average.

Cost: a minute of processor time for `nordland_trained`; four with a score that describes clips, and for `nordland`.
SeqNet's training and test took nine minutes on two cores that ten other programs used. Measured on 2026-11-28, R@1:
nordland_trained, average 39.5 / 67.0 / 76.4 / 85.1 / 91.6 at 1 / 3 / 5 / 10 / 20 frames, SeqSLAM 89.5 at 20; the city's
drives within 10 m, average 90.2 at one frame and 94.4 at five, with velocities (eval.sequence.window=0) 97.0, SeqNet's
two stages 94.4. More in docs/results.md.
"""

from ml_collections import ConfigDict

from configs import common, cosplace, squeezenet, trainings
from configs import nordland as railway


def seqnet() -> ConfigDict:
    """SeqNet on drives through the embedded city: a convolution over five frames, learned on top of CosPlace's network,
    which rests; of what it finds the first 20 are ranked again by the average of the frames.

    Garg and Milford rank by another network of theirs, trained on single frames; here they are CosPlace's.
    """
    config = trainings.drives_in_city("seqnet-city")
    config.init = "runs/cosplace-city/model.safetensors:^(backbone|aggregator)/"
    config.model.backbone_options = ConfigDict({"frozen_bn": "all"})
    config.model.aggregator_options = cosplace.city().model.aggregator_options
    config.model.sequence, config.model.sequence_options = "conv", ConfigDict({"width": 5})
    config.frozen = ("backbone/", "aggregator/")
    config.objective = common.mined_triplets(negatives=5, pool=300, refresh=200)
    config.batch, config.epochs, config.steps_per_epoch = 8, 6, 25
    config.optimizer = common.optimizer("adam", 1e-3)
    config.best.measure = "R@5"
    config.test_data = _lengths((5, 9, 15), "minicity", "data/minicity", "test", **DRIVES)
    config.eval.sequence.score = "two_stage"
    return config


def city() -> ConfigDict:
    """CosPlace's network of the embedded city, and second passes of drives through it in other years and weather.

    A second in front of a light is a frame, so that velocities differ more than on a railway.
    """
    config = cosplace.city()
    config.name = "city"
    config.init = "runs/cosplace-city/model.safetensors"
    config.eval.sequence.velocity, config.eval.sequence.velocities = (0.5, 2.0), 7
    return _untrained(config, _lengths((1, 3, 5, 9, 15), "minicity", "data/minicity", "test", **DRIVES))


def nordland() -> ConfigDict:
    """SqueezeNet with ImageNet weights and GeM, never trained on places."""
    config = squeezenet.base()
    config.image.size = (160, 160)
    return _untrained(config, _lengths((1, 3, 5, 10, 20), "frames", "data/nordland", "test", **WINTER))


def nordland_trained() -> ConfigDict:
    """The network that `configs/nordland.py` trained on the frames before 2,400."""
    config = railway.squeezenet()
    config.init = "runs/nordland-squeezenet/model.safetensors"
    return _untrained(config, _lengths((1, 3, 5, 10, 20), "frames", "data/nordland", "test", **WINTER))


DRIVES = {"thresholds": ("10m", "25m"), "drives": True}
WINTER = {"thresholds": ("1frame",), "train": 2400}  # asks for summer, on the frames from 2,400 on


def _lengths(lengths: tuple[int, ...], reader: str, root: str, split: str, **options) -> ConfigDict:
    """Tests on clips of several lengths. Each ends at its query and is right where its last frame is: a longer one is
    not easier to hit."""
    return ConfigDict({
        f"frames_{length:02d}": common.data(reader, root, split, clips={"length": length, "match": "last"}, **options)
        for length in lengths
    })  # fmt: skip


def _untrained(config: ConfigDict, tests: ConfigDict) -> ConfigDict:
    config.train_data, config.val_data, config.test_data = ConfigDict({}), ConfigDict({}), tests
    config.model.sequence, config.eval.sequence.score = "mean", "seqslam"
    return config


PRESETS = {"seqnet": seqnet, "city": city, "nordland": nordland, "nordland_trained": nordland_trained}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    config = common.choose(preset, PRESETS)
    config.name = config.name if config.name == "seqnet-city" else f"sequence-baselines-{config.name}"
    return config
