"""The verb extract: descriptors of a folder of photos."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from jaxvpr import builders
from jaxvpr.cli.reader_flag import Reader
from jaxvpr.errors import UserError
from jaxvpr.families import names
from jaxvpr.parallel import hosts
from jaxvpr.runs import database_file, outputs, which
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
    overwrite: bool = False,
    dry_run: bool = False,
) -> Path:
    """Describes every image of folders: `out` (.npy, float32 [N, D]) with `out`.csv (names and coordinates) beside it.

    Rows are in the order of the folders and, by default, of the sorted names in each; a small `out`.json says which
    model and weights they are of. With `dry_run` it shows what it would do instead, and draws the first images.

    Raises:
      UserError: if `out` does not end in .npy, one of the three exists (not with `overwrite`), or no image can be read.
    """
    if out.suffix != ".npy":
        raise UserError(f"--out={out}: descriptors are written as .npy; end the name so")
    outputs.refuse_existing(*(out.with_suffix(part) for part in database_file.PARTS), overwrite=overwrite)
    names.check(config, training=False)
    model = which.chosen(config, folder, checkpoint, fit=which.unfitted if dry_run else fitted)
    what, config, variables, _ = model
    log.info("weights: %s", what)
    places = builders.folders(images, reader)
    if dry_run:
        preview.show(config.name, preview.extracting(model, places, builders.mesh(config), out))
        return out
    with database_file.writing(out, config, variables, places) as table:
        found = builders.describer(config, builders.mesh(config))(variables, places.path, table=table)
        if len(found.missing) == len(places):
            raise UserError(
                f"none of the {len(places)} images of {', '.join(images)} could be read; nothing is written"
            )
    if hosts.is_first():
        print(f"wrote {out} {found.descriptors.shape}, {out.with_suffix('.csv')}")
        if why := places.unlocated():
            print(why)
        if len(found.missing):
            print(f"{len(found.missing)} of {len(places)} images could not be read; their rows are zeros")
    return out
