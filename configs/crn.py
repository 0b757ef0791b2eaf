"""CRN: a NetVLAD that learns where in an image to look, trained in a second stage from a NetVLAD (Kim et al., CVPR
2017), as the Deep Visual Geo-localization benchmark has it (Berton et al., CVPR 2022).

    python -m jaxvpr.main --config=configs/netvlad.py     # the first stage, on the embedded city
    python -m jaxvpr.main --config=configs/crn.py         # the second, from what that left
    python -m jaxvpr.main --config=configs/crn.py:pitts30k,data=/data   # after netvlad's

Backbone and clusters are those of the NetVLAD; the filters of the context are drawn, and learn ten times as fast. From
another file: "init=FILE:^(backbone|aggregator/(conv|centroids))", with quotes for the shell.
"""

from ml_collections import ConfigDict

from configs import common, trainings


def city() -> ConfigDict:
    """The embedded city of 2 x 2 blocks: 16 clusters behind a small ResNet, from `configs/netvlad.py`."""
    config = trainings.in_city("crn-city")
    config.model.backbone_options = ConfigDict({"frozen_bn": "all"})  # as the first stage
    config.objective = common.mined_triplets(negatives=5, pool=500, refresh=250, positive="5m_20deg")
    config.batch, config.epochs, config.steps_per_epoch = 10, 6, 50
    _second_stage(config, "netvlad-city", clusters=16)
    return config


def pitts30k() -> ConfigDict:
    """The benchmark's ResNet-18 to conv4 on Pitts30k, from `configs/netvlad.py:pitts30k`. Its figure is R@1 86.8."""
    config = trainings.deep_vg("crn-pitts30k", "pitts30k", "data/pitts30k")
    config.objective = common.mined_triplets(mining="full")
    _second_stage(config, "netvlad-pitts30k", clusters=64)
    return config


def msls() -> ConfigDict:
    """The same on MSLS in the '@' format, from `configs/netvlad.py:msls`."""
    config = trainings.deep_vg("crn-msls", "msls", "data/msls")
    config.objective = common.mined_triplets(mining="partial", weighted=True)
    _second_stage(config, "netvlad-msls", clusters=64)
    return config


def _second_stage(config: ConfigDict, first: str, clusters: int) -> None:
    """The weights of the first stage's run, and the benchmark's SGD: 5e-3 for the context, 5e-4 for all else."""
    config.init = f"runs/{first}/model.safetensors:^(backbone|aggregator/(conv|centroids))"
    config.model.aggregator = "crn"
    config.model.aggregator_options = ConfigDict({"clusters": clusters})
    config.optimizer = common.optimizer(
        "sgd", 5e-4, momentum=0.9, weight_decay=1e-3, factors=(("aggregator/crn/", 10.0),)
    )
    config.best.measure, config.best.patience = "R@5", 3


PRESETS = {"city": city, "pitts30k": pitts30k, "msls": msls}


def get_config(preset: str = "") -> ConfigDict:
    """The configuration of a preset."""
    return common.choose(preset, PRESETS)
