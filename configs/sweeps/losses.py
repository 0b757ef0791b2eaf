"""Which loss with which miner: the grids of two reports on GSV-XS (docs/results.md), and the same on the embedded city.
The reports are of S. Curello, S. Rogato and A. Cirigliano ("Image Retrieval for Visual Geolocalization", slides, 2023)
and of M. Sajjadi, A. Daneshvar and M. Samaei ("Image Geo-localization Through Retrieval").

    python -m jaxvpr.main sweep --config=configs/sweeps/losses.py             # 32 runs of half a minute on two cores
    python -m jaxvpr.main sweep --config=configs/sweeps/losses.py:gsv_xs,data=/data,init=resnet18.pth

Both have losses as rows and miners as columns. A ranking or margin loss, which knows no pairs, weighs each image by how
often it stands in mined pairs.
"""

from typing import Any

from configs import common

Runs = dict[str, dict[str, Any]]
# On the cosine, where it is to keep more than gross mistakes: the margins of GSV-Cities.
PAIR_MARGIN = {"objective.miner_options.positive": 0.7, "objective.miner_options.negative": 0.3}

PROTOTYPES = {
    "objective.P": 64,
    "objective.K": 1,
    "objective.min_distance": 0.0,
    "objective.partition.M": 25.0,
    "objective.loss_options": {"scale": 20.0, "margin": 0.2, "margin_warmup": 0.8},
    "optimizer_extra.rate": 3e-2,
    "optimizer_extra.schedule": "cosine",
    "optimizer_extra.warmup": 20,
}


def tiny() -> dict[str, Any]:
    """Six losses by four miners, and two losses on prototypes; three seeds where a pair is well known, else one.

    Prototypes learn nothing from so few batches of four images a place: there are 64 places of one image instead, so
    that nothing can be mined, as cells of 25 m, with CosPlace's rate for them and a margin that grows.
    """
    losses = ("contrastive", "triplet", "multi_similarity", "circle", "supcon", "fast_ap")
    return {
        "name": "losses-tiny",
        "recipe": "configs/gsv_cities.py:tiny,eval.baselines=false",
        "rows": "loss",
        "columns": "miner",
        "runs": {
            f"{loss}+{miner}": chosen(loss, miner)
            for loss in losses
            for miner in ("none", "multi_similarity", "pair_margin", "batch_hard")
        }
        | {f"{loss}+none": {**chosen(loss, "none"), **PROTOTYPES} for loss in ("arcface", "cosface")},
        "seeds": {"contrastive+none": 3, "triplet+batch_hard": 3, "multi_similarity+multi_similarity": 3},
    }


def gsv_xs() -> dict[str, Any]:
    """Five aggregators on a ResNet-18, five losses and three miners, with the parameters that the reports give.

    They do not tell the margins of the miner on pairs, which are those of GSV-Cities. MixVPR has the backbone cut after
    layer3, which was the best of their three cuts.
    """
    aggregators: Runs = {
        "average": {"model.aggregator": "spoc", "model.aggregator_options": {}},
        "gem": {},
        "cosplace": {"model.aggregator": "cosplace", "model.aggregator_options": {"dim": 512}},
        "convap": {
            "model.aggregator": "convap",
            "model.aggregator_options": {"dim": 512, "rows": 2, "columns": 2},
        },
        "mixvpr": {
            "model.backbone_options.cut": "layer3",
            "model.aggregator": "mixvpr",
            "model.aggregator_options": {"dim": 512, "rows": 4, "cells": (20, 20)},
        },
    }
    return {
        "name": "losses-gsv-xs",
        "recipe": "configs/gsv_cities.py:gsv_xs",
        "rows": "aggregator, loss",
        "columns": "miner",
        "runs": {
            f"{aggregator}-{loss}+{miner}": {**model, **chosen(loss, miner), **REPORTED.get(loss, {})}
            for aggregator, model in aggregators.items()
            for loss in ("contrastive", "triplet", "multi_similarity", "circle", "arcface")
            for miner in ("none", "multi_similarity", "pair_margin")
        },
    }


# What Sajjadi, Daneshvar and Samaei set; the other parameters are the losses' defaults, as there.
REPORTED: Runs = {
    "triplet": {"objective.loss_options.margin": 0.3},
    "circle": {"objective.loss_options.m": 0.25, "objective.loss_options.gamma": 64.0},
}


def chosen(loss: str, miner: str) -> dict[str, Any]:
    """The changes to a recipe for a loss and a miner; one on pairs has `PAIR_MARGIN`."""
    changes = {"objective.loss": loss, "objective.miner": miner}
    return {**changes, **PAIR_MARGIN} if miner == "pair_margin" else changes


PRESETS = {"tiny": tiny, "gsv_xs": gsv_xs}


def get_sweep(preset: str = "") -> dict[str, Any]:
    """The sweep of a preset."""
    return common.chosen(preset, PRESETS)()
