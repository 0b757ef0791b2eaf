"""The keys of objectives that several recipes share, with their defaults. An objective that one recipe has alone is
described there."""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

# What the classes of the objective `cells` are, by `partition.by`, and the keys that each takes.
PARTITIONS = {
    "cell": ("M", "alpha", "N", "L", "groups", "min_images"),
    "square": ("M", "N", "groups", "min_images"),
    "place": ("min_images",),
}


def cells(
    *,
    by: str = "cell",
    M: float = 10.0,
    alpha: float = 30.0,
    N: int = 5,
    L: int = 2,
    groups: int = 8,
    min_images: int = 10,
    loss: str = "cosface",
    scale: float = 30.0,
    margin: float = 0.4,
    margin_warmup: float = 0.0,
    head_steps: int = 0,
) -> ConfigDict:
    """The keys of the objective `cells`, classification of places, with the values of CosPlace on SF-XL.

    A class is a "cell" of `M` x `M` metres and `alpha` degrees of heading, a "square" without headings, or a "place" of
    the data set, of `min_images` or more. Classes of a group are `N` cells and `L` sectors apart; each group has heads
    of its own, and `groups` of them take turns, 0 for all. `loss` is one of `jaxvpr.losses.margins`; its `margin` grows
    from 0 over the share `margin_warmup` of the run.
    """
    partition = {"M": M, "alpha": alpha, "N": N, "L": L, "groups": groups, "min_images": min_images}
    return ConfigDict(
        {
            "name": "cells",
            "partition": ConfigDict({"by": by, **{key: partition[key] for key in PARTITIONS[by]}}),
            "loss": loss,
            "scale": scale,
            "margin": margin,
            "margin_warmup": margin_warmup,
            "head_steps": head_steps,
        }
    )


def places(
    *,
    P: int,
    K: int,
    by: str,
    radius: float = 12.0,
    angle: float = 10.0,
    min_distance: float = 0.0,
    by_city: bool = False,
) -> ConfigDict:
    """The keys of the objective `places`, with the loss and the miner of GSV-Cities.

    A place is a "place" of the data set, a "cell" of the map, or what is "near": an image with K - 1 others within
    `radius` metres and `angle` degrees of heading of it (180: any, headings are not needed). `min_distance` metres are
    between the middles of a batch's places, and of "near" between any two images of two places.
    Any loss of `jaxvpr.losses.metric` or `jaxvpr.losses.margins` and any miner go by name. `weights` has a number for
    each data set that places are drawn from, `train_data` first; () lets all places weigh the same. `cliques.share` of
    a batch's places are cliques: images within `distance` metres and `angle` degrees of each other (180: any), among
    `similar` places that look like one, as the model of every `refresh` epochs sees them. They come from the data sets
    numbered `cliques.sets` (0 is `train_data`; () is all), the other places from the others, where there are others.
    """
    return ConfigDict(
        {
            "name": "places",
            "P": P,
            "K": K,
            "partition": ConfigDict({"by": by, "M": 10.0, "alpha": 30.0, "radius": radius, "angle": angle}),
            "min_distance": min_distance,
            "by_city": by_city,
            "weights": (),
            "cliques": ConfigDict(
                {"share": 0.0, "sets": (), "similar": 15, "distance": 25.0, "angle": 180.0, "refresh": 1}
            ),
            "loss": "multi_similarity",
            "loss_options": ConfigDict({"alpha": 1.0, "beta": 50.0, "base": 0.0}),
            "miner": "multi_similarity",
            "miner_options": ConfigDict({}),
            "memory": 0,
            "head_steps": 0,
        }
    )


def mined_triplets(**changes) -> ConfigDict:
    """The keys of the objective `mined_triplets` with the values of the Deep VG benchmark (Berton et al., CVPR 2022).

    A database image within `positive` of a query may be its positive, one beyond `soft` is a negative: thresholds as of
    a test, such as "10m" or "2m_30deg". `mining` is "full", "partial" or "random"
    (`jaxvpr.objectives.triplet_plans`); each plan takes `refresh` queries and looks for their `negatives` among `pool`
    database images, 0 for all. `weighted` draws queries of the night and sideways ones more often. Several data sets
    are "merged", so that negatives cross them, or used "in_turn", one an epoch. Any loss of `jaxvpr.losses.triplets`
    goes by name. The search takes up to `memory_mib` on each device, beside the descriptors.
    """
    keys = {
        "name": "mined_triplets",
        "mining": "partial",
        "positive": "10m",
        "soft": "25m",
        "negatives": 10,
        "pool": 1000,
        "refresh": 1000,
        "weighted": False,
        "sets": "merged",
        "loss": "triplet",
        "loss_options": ConfigDict({"margin": 0.1, "squared": False}),
        "memory_mib": 1024,
    }
    unknown = sorted(set(changes) - set(keys))
    if unknown:
        raise ValueError(f"mined_triplets has no key {unknown}; there are {list(keys)}")
    return ConfigDict({**keys, **changes})


def positions(*, loss: str, **loss_options) -> ConfigDict:
    """The keys of the objective `positions`: the head of `model.position` learns where images were taken.

    `loss` is one of `jaxvpr.losses.positions`, with `loss_options` over its defaults. Normal `noise` of so many metres
    and degrees is added to what is learned. Validation tells the shares of answers within each of `eval.distances`.
    """
    return ConfigDict(
        {
            "name": "positions",
            "loss": loss,
            "loss_options": ConfigDict(loss_options),
            "noise": ConfigDict({"metres": 0.0, "degrees": 0.0}),
        }
    )


def geoclip(**changes) -> ConfigDict:
    """The keys of the objective `geoclip`: its head learns which coordinates belong to an image, among those of the
    batch and a `queue` of past ones.

    `noise` are metres that are added to the batch's coordinates and to the queue's. Candidates within `near` metres of
    an image's own are left out (0: none). `views` of each image, augmented anew, stand in a batch.
    """
    keys = {
        "name": "geoclip",
        "queue": 4096,
        "noise": ConfigDict({"metres": 150.0, "queue": 1000.0}),
        "near": 0.0,
        "views": 1,
    }
    return ConfigDict({**keys, **changes})


# The keys of each of these with defaults, for a look at which a recipe lacks.
DEFAULTS: dict[str, Callable[[ConfigDict], ConfigDict]] = {
    "cells": lambda keys: cells(by=_kind_of(keys)),
    "places": lambda keys: places(P=1, K=2, by="place"),
    "mined_triplets": lambda keys: mined_triplets(),
    "geoclip": lambda keys: geoclip(),
    "positions": lambda keys: positions(loss=""),
}


# Names whose validation is the recalls of `val_data`; a recipe's own family may bring another.
SHIPPED = (
    "cells",
    "distillation",
    "eigenplaces",
    "geoclip",
    "jist",
    "mined_triplets",
    "places",
    "positions",
    "pretraining",
    "sfrs",
)


def lacking(objective: ConfigDict) -> list[str]:
    """The dotted keys that an objective of this file needs and a recipe lacks; `*_options` may hold anything."""
    name = objective.get("name")
    if name == "jist":  # each of its parts has the keys of another
        parts = {"images": "cells", "clips": "mined_triplets"}
        own = {part: ConfigDict({**objective.get(part, {}), "name": kind}) for part, kind in parts.items()}
        return [f"{part}.{key}" for part, keys in own.items() for key in lacking(keys)]
    if name not in DEFAULTS:
        return [] if name else ["name"]
    here, needed = dict(_keys(objective)), _keys(DEFAULTS[name](objective))
    return [key for key, _ in needed if key not in here]


def _kind_of(objective: ConfigDict) -> str:
    kind = objective.get("partition", {}).get("by", "")
    return kind if kind in PARTITIONS else "place"


def _keys(group: ConfigDict, above: str = "") -> list[tuple[str, Any]]:
    """The values of a group and of the groups in it, with dotted keys, but for `*_options`."""
    found: list[tuple[str, Any]] = []
    for key, value in group.items():
        inner = isinstance(value, ConfigDict) and not key.endswith("_options")
        found += _keys(value, f"{above}{key}.") if inner else [(above + key, value)]
    return found
