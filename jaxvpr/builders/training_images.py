"""Training images: the data sets of a recipe, their places, and where batches come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from data_pipelines.augment import Augment
from data_pipelines.clips import Clips
from data_pipelines.image_source import ImageSource
from data_pipelines.images import RULES
from data_pipelines.panorama import Panorama
from data_pipelines.partitions import cosplace_cells
from data_pipelines.places import Paths, Places
from data_pipelines.readers.notes import PLACE_BITS
from data_pipelines.sources import ClipSource
from jaxvpr.builders.datasets import own_shards, parts, places
from jaxvpr.builders.network import image_size
from jaxvpr.errors import UserError

PARTITIONS = ("cell", "place")


def training_sets(config: ConfigDict) -> list[Places]:
    """The data sets that a recipe trains on: `train_data`, and those of `more_train_data` in the order of their names,
    each without what it holds out.

    Raises:
      UserError: where there is none; where hosts have shards of their own, and the recipe may draw any image.
    """
    _check_own_shards(config)
    if not config.train_data:
        raise UserError(f"the recipe {config.name} has no train_data to train on; configs/cosplace.py has, for one")
    divided = [(spec, parts(config, spec)) for spec in specs(config).values()]
    return [found.train if found else places(config, spec) for spec, found in divided]


def _check_own_shards(config: ConfigDict) -> None:
    """Raises UserError where hosts with shards of their own cannot serve a recipe: what it draws may lie with any."""
    if not own_shards(config):
        return
    other = [key for key, spec in specs(config).items() if spec and spec.reader != "records"]
    wants = {
        f"objective.name={config.objective.name!r} draws": config.objective.name != "cells",
        f"domain.method={config.domain.method!r} draws": bool(config.domain.method),
        f"pca.dim={config.pca.dim} is fitted on": bool(config.pca.dim),
    }
    if why := next((why for why, needed in wants.items() if needed), None):
        raise UserError(
            f"loader.own_shards=True: {why} any image on any host. Give all hosts all shards, and set it to false"
        )
    if other:
        raise UserError(f"loader.own_shards=True is for records; {other[0]}.reader is not 'records'. Set it to false")


def refuse_partitions(config: ConfigDict, who: str = "") -> None:
    """Raises UserError where a data set has a partition of its own, for those that do not look at it: `who`, by default
    the objective."""
    who = who or f"objective.name={config.objective.name!r}"
    for key, spec in specs(config).items():
        if own := _own_partition(spec):
            raise UserError(
                f"{key}.partition={own}: {who} does not look at it. Leave it empty; objective.partition, where "
                "there is one, says how its one data set is cut"
            )


def specs(config: ConfigDict) -> dict[str, ConfigDict]:
    """The data sets to train on, in the order of their rows, by their keys in the recipe."""
    more = {f"more_train_data.{name}": spec for name, spec in sorted(config.more_train_data.items())}
    return {"train_data": config.train_data, **more}


def _own_partition(spec: ConfigDict) -> dict[str, str | float]:
    """What the data set itself says of its partition; "" and 0 say nothing."""
    return {key: value for key, value in spec.get("partition", {}).items() if value}


def shown(elements: Sequence[Places] | Sequence[Clips]) -> Paths | Clips:
    """What a `Describer` is shown of all elements, one set after the other."""
    clips = [part for part in elements if isinstance(part, Clips)]
    return Clips.concat(clips) if clips else Paths.concat([part.path for part in elements if isinstance(part, Places)])


def only(config: ConfigDict, sets: Sequence[Places]) -> Places:
    """The one data set of an objective that takes no more.

    Raises:
      UserError: for several.
    """
    if len(sets) > 1:
        raise UserError(
            f"objective.name={config.objective.name!r} trains on one data set; more_train_data names "
            f"{sorted(config.more_train_data)} beside it"
        )
    return sets[0]


def partitioned(config: ConfigDict, sets: Sequence[Places]) -> list[Places]:
    """The data sets of `training_sets` with places: by their own `partition`, where they have one, else by that of the
    objective.

    Raises:
      UserError: for an unknown `by`; names its key.
    """
    found = []
    for (key, spec), images in zip(specs(config).items(), sets, strict=True):
        own = _own_partition(spec)
        partition = ConfigDict({**config.objective.partition, **own})
        found.append(with_places(partition, images, f"{key if 'by' in own else 'objective'}.partition"))
    return found


def with_places(partition: ConfigDict, images: Places, key: str = "objective.partition") -> Places:
    """The images with the places that the data set gives them, or with cells of the map as places.

    Metres of two UTM zones are never compared: each zone has cells of its own, numbered as those of another city.

    Raises:
      UserError: for an unknown `partition.by`, under the name `key`.
    """
    if partition.by == "place":
        return images
    if partition.by != "cell":
        raise UserError(f"{key}.by={partition.by!r} does not exist; there are {list(PARTITIONS)}")
    sides = {"M": partition.M, "alpha": partition.alpha}
    place = np.full(len(images), -1, np.int64)
    for number, zone in enumerate(np.unique(images.zone)):
        here = np.flatnonzero(images.zone == zone)
        east, north, heading = images.east[here], images.north[here], images.heading[here]
        names = images.path.take(here)
        cells = cosplace_cells(east, north, heading, N=1, L=1, groups=1, min_images=1, names=names, **sides)
        rows, labels = cells.labels(0)
        place[here[rows]] = (number << PLACE_BITS) + labels
    return dataclasses.replace(images, place=place, place_names=())


def check_panoramas(config: ConfigDict) -> None:
    """Raises UserError where something else than the training would be shown whole panoramas."""
    describes = {"pca.dim": config.pca.dim, "clusters.images": config.clusters.images}
    wrong = [f"{key}={value}" for key, value in describes.items() if value]
    if config.panorama.size and wrong:
        raise UserError(_squashed(config, " and ".join(wrong)))


def _squashed(config: ConfigDict, what: str) -> str:
    return (
        f"config.panorama.size={tuple(config.panorama.size)} is for objectives that train on views of panoramas, "
        f"eigenplaces: {what} would see whole panoramas, squashed. Set it to (), or that to its default"
    )


def training_source(
    config: ConfigDict,
    sets: Sequence[Places] | Sequence[Clips],
    *,
    views: bool = False,
    queries_only: bool = False,
) -> ImageSource | ClipSource:
    """The training images of all sets, one after the other, or their clips.

    Args:
      views: the objective draws views of panoramas, where the recipe says that the images are some.
      queries_only: as of `image_source`.

    Raises:
      UserError: as `image_source`; for panoramas and an objective that draws no views.
    """
    if config.panorama.size and not views:
        raise UserError(_squashed(config, f"objective.name={config.objective.name!r}"))
    every = shown(sets)
    if isinstance(every, Clips):
        return ClipSource(image_source(config, every.images.path, queries_only=queries_only), every.rows)
    yaw = np.concatenate([part.heading for part in sets if isinstance(part, Places)]) if views else None
    return image_source(config, every, yaw=yaw, queries_only=queries_only)


def image_source(
    config: ConfigDict, paths: Paths, *, yaw: np.ndarray | None = None, queries_only: bool = False
) -> ImageSource:
    """Training images, augmented.

    Args:
      paths: their files.
      yaw: float32 [rows], the heading of each image's middle column in degrees; looked at where the recipe says that
        images are panoramas. None: these are none.
      queries_only: only the first image of each element is augmented, but for the flip, which is the whole element's.

    Raises:
      UserError: for strengths that make no sense, or images that could not share a batch.
    """
    size, rule = tuple(config.image.size), config.image.resize
    if not size or rule not in RULES or config.image.crop:
        raise UserError(
            f"config.image: size={size}, resize={rule!r} and crop={config.image.crop} serve evaluation only. Crops of "
            f"training are random and made on the host: give a size (height, width), one of the rules "
            f"{', '.join(RULES)}, and crop=False"
        )
    return ImageSource(
        paths,
        image_size(config),
        rule,
        augmentation(config),
        config.loader.on_error,
        queries_only=queries_only,
        panorama=_panorama(config.panorama, yaw),
    )


def augmentation(config: ConfigDict) -> Augment:
    """How training images are augmented; UserError for strengths that make no sense."""
    strengths = config.augment.to_dict()
    strengths["scale"], strengths["ratio"] = tuple(strengths["scale"]) or None, tuple(strengths["ratio"])
    try:
        augment = Augment(**strengths)
        augment.finish(np.zeros((1, 1, 3), np.uint8), np.random.default_rng(0))
    except ValueError as error:
        raise UserError(f"config.augment: {error}") from error
    return augment


def _panorama(keys: ConfigDict, yaw: np.ndarray | None) -> Panorama | None:
    """How training images are looked at, None for ordinary ones."""
    if not keys.size or yaw is None:
        return None
    height, width = keys.size
    return Panorama((height, width), np.asarray(yaw, np.float32), keys.view)
