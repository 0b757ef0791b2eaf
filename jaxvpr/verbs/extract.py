"""The verb extract: descriptors of a folder of photos."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

from ml_collections import ConfigDict

from data_pipelines.clips import Cutting
from data_pipelines.places import Places
from jaxvpr import builders
from jaxvpr.cli import checks
from jaxvpr.cli.reader_flag import Reader
from jaxvpr.errors import UserError
from jaxvpr.families import names
from jaxvpr.parallel import hosts
from jaxvpr.runs import database_file, model_file, outputs, which
from jaxvpr.runs.compressed import fitted
from jaxvpr.verbs import preview

log = logging.getLogger(__name__)


def run(
    config: ConfigDict,
    folder: Path,
    checkpoint: str,
    images: Sequence[str],
    reader: Reader,
    out: Path,
    clips: Cutting | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> Path:
    """Describes every image of folders: `out` (.npy, float32 [N, D]) with `out`.csv (names and coordinates) beside it.

    Where the recipe makes clusters of its database they are of these images, and `out`.safetensors holds the model.
    Rows are in the order of the folders and, by default, of the sorted names in each; a small `out`.json says which
    model and weights they are of. With `clips` the rows are those clips, each where its middle (or last) frame is. With
    `dry_run` it shows what it would do instead, and draws the first images.

    Raises:
      UserError: if `out` does not end in .npy, one of these exists (not with `overwrite`), no image can be read, or
        the model does not describe such clips.
      DataError: where no such clip can be cut.
    """
    if out.suffix != ".npy":
        raise UserError(f"--out={out}: descriptors are written as .npy; end the name so")
    own = checks.clusters_of_database(config)
    parts = (*database_file.PARTS, *[database_file.MODEL] * own)
    outputs.refuse_existing(*(out.with_suffix(part) for part in parts), overwrite=overwrite)
    names.check(config, training=False)
    read = cache(partial(builders.folders, tuple(images), reader))
    recipe, fit = (builders.without_clusters(config), which.unfitted) if dry_run else (config, fitted)
    model = which.chosen(recipe, folder, checkpoint, fit=fit, images=(lambda: read().path) if own else None)
    what, config, variables, _ = model
    log.info("weights: %s", what)
    if clips:
        builders.check_clips(config, clips.length, f"--clips={clips.length}")
    places = read()
    rows = clips.clips(places) if clips else places
    if dry_run:
        preview.show(config.name, preview.extracting(model, rows, builders.mesh(config), out))
        return out
    with database_file.writing(out, config, variables, rows, cutting=clips) as table:
        shown = places.path if isinstance(rows, Places) else rows
        found = builders.describer(config, builders.mesh(config))(variables, shown, table=table)
        if len(found.missing) == len(rows):
            raise UserError(
                f"none of the {len(places)} images of {', '.join(images)} could be read; nothing is written"
            )
        if own and hosts.is_first():
            model_file.write_model(out.with_suffix(database_file.MODEL), config, variables)
    if hosts.is_first():
        print(
            f"wrote {out} {found.descriptors.shape}, {out.with_suffix('.csv')}"
            + f", {out.with_suffix(database_file.MODEL)}" * own
        )
        if why := places.unlocated():
            print(why)
        if len(found.missing):
            what = f"{len(found.missing)} of {len(rows)} {'clips' if clips else 'images'}"
            print(f"{what} could not be read; their rows are zeros")
    return out
