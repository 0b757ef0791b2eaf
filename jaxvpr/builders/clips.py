"""The clips of a recipe: how its data sets are cut, and whether its model takes them."""

from __future__ import annotations

from collections.abc import Sequence

from ml_collections import ConfigDict

from data_pipelines.clips import TASKS, Clips, Cutting
from data_pipelines.places import Places
from jaxvpr.builders.datasets import cutting
from jaxvpr.builders.network import descriptor_size, score
from jaxvpr.builders.training_images import specs
from jaxvpr.errors import UserError


def training_cuts(config: ConfigDict) -> dict[str, Cutting | None]:
    """How each data set to train on is cut, by its key; None where it is images.

    Raises:
      UserError: for clips of several lengths, or cut as only those are that are measured on.
    """
    cuts = {key: cutting(spec, f"config.{key}") for key, spec in specs(config).items()}
    lengths = {key: cut.length for key, cut in cuts.items() if cut}
    if len(set(lengths.values())) > 1:
        raise UserError(
            f"{', '.join(f'{key}.clips.length={length}' for key, length in lengths.items())}: clips of one length "
            "share a batch. Cut all data sets to train on alike"
        )
    for key, cut in cuts.items():
        if cut and (cut.task, cut.order) != (Cutting.task, Cutting.order):
            raise UserError(
                f"{key}.clips: task={cut.task!r} and order={cut.order!r} are for what is measured on; clips to train "
                f"on are of one length and in order. Leave both at their defaults, {Cutting.task!r}, {Cutting.order!r}"
            )
    return cuts


def cut_sets(config: ConfigDict, sets: Sequence[Places]) -> list[Places | Clips]:
    """The data sets of `training_sets`, each as clips where its `clips` says so, else as images.

    Raises:
      UserError: as `training_cuts`.
      DataError: for sequences that no clip can be cut from.
    """
    return [
        cut.clips(images) if cut else images for cut, images in zip(training_cuts(config).values(), sets, strict=True)
    ]


def elements(config: ConfigDict, sets: Sequence[Places]) -> list[Places] | list[Clips]:
    """As `cut_sets`, for families whose batches are of one kind.

    Raises:
      UserError: where images and clips would share a batch; as `training_cuts`.
    """
    kinds = {key: cut.length if cut else 0 for key, cut in training_cuts(config).items()}
    if len(set(kinds.values())) > 1:
        raise UserError(
            f"{', '.join(f'{key}.clips.length={length}' for key, length in kinds.items())} (0: images) cannot share a "
            "batch; give all data sets to train on the same, or take objective.name=jist, which trains on both"
        )
    made = cut_sets(config, sets)
    clips = [part for part in made if isinstance(part, Clips)]
    return clips or [part for part in made if isinstance(part, Places)]


def refuse_clips(config: ConfigDict) -> None:
    """Raises UserError where a data set to train on is cut into clips, for families that do not look at it."""
    for key, spec in specs(config).items():
        if cut := cutting(spec, f"config.{key}"):
            raise UserError(
                f"{key}.clips.length={cut.length}: objective.name={config.objective.name!r} trains on images. Set it "
                "to 0, or take an objective that trains on clips: mined_triplets, places or jist"
            )


def check_model(config: ConfigDict, key: str, spec: ConfigDict) -> None:
    """Looks whether the model takes the clips of a data set; nothing is read or computed.

    Raises:
      UserError: for a model of images alone, or a head for clips of another length; names `key`.
    """
    if not (cut := cutting(spec, f"config.{key}")):
        return
    asked = f"config.{key}.clips.length={cut.length}"
    if key.startswith(("val_data.", "test_data.")):
        check_measured(config, cut, asked)
    else:
        check_clips(config, cut.length, asked)


def check_measured(config: ConfigDict, cut: Cutting, asked: str) -> None:
    """As `check_clips`, of what is measured on: queries and database, each images or clips.

    What is measured by the frames alone (`eval.sequence`) needs no such model.
    """
    if score(config).of_frames:
        return
    for frames in sorted({cut.length if clips else 1 for clips in TASKS[cut.task]}):
        check_clips(config, frames, asked if frames == cut.length else f"{asked}, clips.task={cut.task!r}")


def check_clips(config: ConfigDict, frames: int, asked: str) -> None:
    """Raises UserError, which begins with `asked`, where the model does not take clips of so many frames."""
    try:
        descriptor_size(config, frames)
    except UserError:
        raise
    except (ValueError, TypeError) as error:
        raise UserError(f"{asked}: {error}") from error
