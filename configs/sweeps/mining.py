"""How negatives are mined, how many there are, and what describes the images: the comparison of the Deep VG benchmark
(Berton et al., CVPR 2022, table 5; docs/results.md), on the embedded city.

    python -m jaxvpr.main --config=configs/cosplace.py              # what the first start from
    python -m jaxvpr.main sweep --config=configs/sweeps/mining.py   # 9 runs, less than a minute each on two cores
    python -m jaxvpr.main sweep --config=configs/sweeps/mining.py:imagenet,init=squeezenet1_0.pth:backbone   # 14 runs
    python -m jaxvpr.main sweep --config=configs/sweeps/mining.py:pitts30k,data=/data,init=resnet18.pth
"""

from typing import Any

from configs import common

Runs = dict[str, dict[str, Any]]
GEM = {"model.aggregator": "gem", "model.aggregator_options": {}, "clusters.images": 0}
MINING = ("random", "partial", "full")
NETVLAD = {"model.aggregator": "netvlad", "model.aggregator_options": {"clusters": 16}, "clusters.images": 200}
# Before the last pooling, at an eighth of the image's size: what conv4 is to a ResNet's conv5.
CONV4 = {"model.backbone_options": {"cut": 10}}


def city() -> dict[str, Any]:
    """Mining with GeM from CosPlace's network, which finds most positives already; three seeds each."""
    return {
        "name": "mining-city",
        "recipe": "configs/netvlad.py:city,objective.negatives=10,epochs=2,eval.baselines=false",
        "runs": {mining: {**GEM, "objective.mining": mining} for mining in MINING},
        "seeds": 3,
    }


def imagenet() -> dict[str, Any]:
    """Mining with GeM from ImageNet, three seeds each; all else beside partial mining, one seed each."""
    return {
        "name": "mining-imagenet",
        "recipe": "configs/netvlad.py:city_imagenet,eval.baselines=false",
        "runs": {
            **{mining: {"objective.mining": mining} for mining in MINING},
            **{f"partial-{count}-negatives": {"objective.negatives": count} for count in (5, 2)},
            "partial-conv4": CONV4,
            "partial-netvlad": NETVLAD,
            "partial-conv4-netvlad": {**CONV4, **NETVLAD},
        },
        "seeds": dict.fromkeys(MINING, 3),
    }


def pitts30k() -> dict[str, Any]:
    """The benchmark's: ResNet-18 with GeM and with NetVLAD, by three ways of mining; three seeds."""
    return {
        "name": "mining-pitts30k",
        "recipe": "configs/netvlad.py:pitts30k",
        "rows": "aggregator",
        "columns": "mining",
        "runs": {
            f"{aggregator}+{mining}": {**changes, "objective.mining": mining}
            for aggregator, changes in (("gem", GEM), ("netvlad", {}))
            for mining in MINING
        },
        "seeds": 3,
    }


PRESETS = {"city": city, "imagenet": imagenet, "pitts30k": pitts30k}


def get_sweep(preset: str = "") -> dict[str, Any]:
    """The sweep of a preset."""
    return common.chosen(preset, PRESETS)()
