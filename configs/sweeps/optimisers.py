"""Which optimiser with which schedule: the grid of M. Sajjadi, A. Daneshvar and M. Samaei ("Image Geo-localization
Through Retrieval") on GSV-XS (docs/results.md), and the same on the embedded city.

    python -m jaxvpr.main sweep --config=configs/sweeps/optimisers.py         # 29 runs of half a minute on two cores
    python -m jaxvpr.main sweep --config=configs/sweeps/optimisers.py:gsv_xs,data=/data,init=resnet18.pth
    python -m jaxvpr.main sweep --config=configs/sweeps/optimisers.py:mixvpr_xs,data=/data,init=resnet18.pth  # MixVPR

Optimisers are rows and schedules columns. Each optimiser has one learning rate in all columns, so that a row shows what
the schedule does; between rows the rate differs as the optimisers need it.
"""

from typing import Any

from configs import common
from configs.sweeps.losses import chosen

Runs = dict[str, dict[str, Any]]


def tiny() -> dict[str, Any]:
    """Five optimisers by five schedules over six epochs; three seeds for two pairs, one for the rest.

    ASGD has no momentum, so its rate is the highest. T_max is the whole run.
    """
    optimisers: Runs = {
        "sgd": {"rate": 0.1, "momentum": 0.9, "weight_decay": 1e-4},
        "asgd": {"rate": 2.0, "weight_decay": 1e-4},
        "adam": {"rate": 5e-3},
        "adamw": {"rate": 5e-3, "weight_decay": 1e-2},
        "radam": {"rate": 5e-3},
    }
    schedules: Runs = {
        "constant": {"optimizer.schedule": "constant"},
        "cosine": _cosine(6),
        "multi_step": _steps((3, 5), 0.3),
        "plateau": {"optimizer.schedule": "constant", "plateau.factor": 0.3, "plateau.patience": 0},
        "linear": {"optimizer.schedule": "linear", "optimizer.per": "epoch", "optimizer.final": 0.05},
    }
    grid = _grid("optimisers-tiny", "configs/gsv_cities.py:tiny,eval.baselines=false", optimisers, schedules)
    return grid | {"seeds": {"sgd+cosine": 3, "adamw+cosine": 3}}


def gsv_xs() -> dict[str, Any]:
    """Their rates, weight decay and schedules; RAdam, multi-step and linear are ours beside them."""
    optimisers: Runs = {
        "sgd": {"rate": 2.5e-3, "momentum": 0.9, "weight_decay": 1e-3},
        "asgd": {"rate": 2.5e-3, "weight_decay": 1e-3},
        "adam": {"rate": 2.5e-3, "weight_decay": 0.0},
        "adamw": {"rate": 2.5e-3, "weight_decay": 1e-3},
        "radam": {"rate": 2.5e-3, "weight_decay": 0.0},
    }
    schedules: Runs = {
        "constant": {"optimizer.schedule": "constant"},
        "cosine": _cosine(10),
        "multi_step": _steps((5, 8), 0.3),
        "plateau": {"optimizer.schedule": "constant", "plateau.factor": 0.1, "plateau.patience": 5},
        "linear": {"optimizer.schedule": "linear", "optimizer.per": "epoch"},
    }
    return _grid("optimisers-gsv-xs", "configs/gsv_cities.py:gsv_xs", optimisers, schedules)


def mixvpr_xs() -> dict[str, Any]:
    """Twelve combinations for MixVPR of S. Curello, S. Rogato and A. Cirigliano ("Image Retrieval for Visual
    Geolocalization", slides, 2023): loss, miner, optimiser, rate, weight decay, T_max.

    They give no schedule but the cosine, per epoch; "cos5" has T_max 5 and so comes back to the full rate at epoch 10.
    """
    table = (
        ("contrastive", "none", "adam", 1e-4, 1e-3, 0),
        ("contrastive", "none", "adamw", 1e-4, 1e-3, 0),
        ("contrastive", "pair_margin", "adamw", 1e-4, 1e-3, 0),
        ("contrastive", "pair_margin", "sgd", 1e-4, 1e-3, 0),
        ("multi_similarity", "none", "adamw", 1e-4, 1e-3, 0),
        ("multi_similarity", "none", "adamw", 1e-4, 1e-4, 0),
        ("multi_similarity", "none", "adamw", 1e-4, 1e-2, 0),
        ("multi_similarity", "none", "adamw", 1e-4, 1e-3, 10),
        ("multi_similarity", "none", "adamw", 1e-4, 1e-3, 5),
        ("multi_similarity", "none", "radam", 1e-3, 0.0, 0),
        ("multi_similarity", "none", "radam", 1e-4, 0.0, 0),
        ("multi_similarity", "none", "radam", 1e-4, 0.0, 5),
    )
    return {
        "name": "mixvpr-gsv-xs",
        "recipe": "configs/gsv_cities.py:gsv_xs",
        "runs": {
            f"{loss}-{miner}-{optimiser}-{rate:g}-wd{decay:g}" + f"-cos{t_max}" * bool(t_max): {
                "model.backbone_options.cut": "layer3",
                "model.aggregator": "mixvpr",
                "model.aggregator_options": {"dim": 512, "rows": 4, "cells": (20, 20)},
                **chosen(loss, miner),
                "optimizer.name": optimiser,
                "optimizer.rate": rate,
                "optimizer.weight_decay": decay,
                **(_cosine(t_max) if t_max else {}),
            }
            for loss, miner, optimiser, rate, decay, t_max in table
        },
    }


def _cosine(length: int) -> dict[str, Any]:
    return {"optimizer.schedule": "cosine", "optimizer.per": "epoch", "optimizer.length": length}


def _steps(milestones: tuple[int, ...], gamma: float) -> dict[str, Any]:
    return {
        "optimizer.schedule": "multi_step",
        "optimizer.per": "epoch",
        "optimizer.milestones": milestones,
        "optimizer.gamma": gamma,
    }


def _grid(name: str, recipe: str, optimisers: Runs, schedules: Runs) -> dict[str, Any]:
    return {
        "name": name,
        "recipe": recipe,
        "rows": "optimiser",
        "columns": "schedule",
        "runs": {
            f"{optimiser}+{schedule}": {
                "optimizer.name": optimiser,
                **{f"optimizer.{key}": value for key, value in keys.items()},
                **changes,
            }
            for optimiser, keys in optimisers.items()
            for schedule, changes in schedules.items()
        },
    }


PRESETS = {"tiny": tiny, "gsv_xs": gsv_xs, "mixvpr_xs": mixvpr_xs}


def get_sweep(preset: str = "") -> dict[str, Any]:
    """The sweep of a preset."""
    return common.chosen(preset, PRESETS)()
