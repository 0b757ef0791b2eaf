"""EigenPlaces from a recipe's keys."""

from __future__ import annotations

from collections.abc import Sequence

from ml_collections import ConfigDict

from data_pipelines.eigen import eigen_classes
from data_pipelines.images import own_size
from data_pipelines.places import Places
from jaxvpr import builders
from jaxvpr.errors import UserError
from jaxvpr.families.learning import Learning
from jaxvpr.objectives.eigenplaces import eigenplaces_objective

PARTITION = ("M", "N", "distance", "min_images", "turn")


def from_config(config: ConfigDict, sets: Sequence[Places]) -> Learning:
    """Lateral and frontal classes of panoramas where `config.panorama.size` says so, else of images with headings.

    Raises:
      UserError: for several data sets, panoramas of another size, or weights that make no sense.
      DataError: for images without position or heading, or too few for a class.
    """
    images, keys = builders.only(config, sets), config.objective
    panoramas = bool(config.panorama.size)
    if panoramas:
        _check_size(images, tuple(config.panorama.size))
    images.single_zone()
    lateral, frontal = eigen_classes(
        images.east,
        images.north,
        images.heading,
        images.time,
        groups=keys.groups or None,
        panoramas=panoramas,
        names=images.path,
        **{key: keys[key] for key in PARTITION},
    )
    counts = lateral.cells.counts
    summary = (
        f"{len(counts)} groups of {counts.min():,} to {counts.max():,} cells: {len(lateral.cells.rows):,} lateral and "
        f"{len(frontal.cells.rows):,} frontal {'views of panoramas' if panoramas else 'images'}"
    )
    try:
        objective = eigenplaces_objective(
            lateral,
            frontal,
            batch=config.batch,
            steps=config.steps_per_epoch,
            scale=keys.scale,
            margin=keys.margin,
            margin_warmup=keys.margin_warmup,
            weights=tuple(keys.weights),
            head_steps=keys.head_steps,
        )
    except ValueError as error:
        raise UserError(f"config.objective: {error}") from error
    source = builders.training_source(config, sets, views=True)
    return Learning(objective, sources=dict.fromkeys(objective.streams, source), summary=summary)


def _check_size(images: Places, size: tuple[int, ...]) -> None:
    """Looks at one panorama before a run begins; the loader looks at every one that it reads."""
    found = own_size(images.path[0])
    if found != size:
        raise UserError(
            f"{images.path[0]}: {found[0]}x{found[1]} pixels, but panorama.size={size} (height, width) expects "
            f"panoramas whose width is the whole circle. Set panorama.size to {found} if this is one, or to () for "
            "images that are not panoramas"
        )
