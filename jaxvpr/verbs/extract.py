"""The verb extract: descriptors of a folder of photos."""

from __future__ import annotations

import logging
from pathlib import Path

from ml_collections import ConfigDict

from data_pipelines import readers
from jaxvpr import builders
from jaxvpr.errors import UserError
from jaxvpr.parallel import hosts
from jaxvpr.runs import database_file, outputs, which

log = logging.getLogger(__name__)


def run(config: ConfigDict, folder: Path, checkpoint: str, images: str, out: Path, overwrite: bool = False) -> Path:
    """Describes every image of a folder: `out` (.npy, float32 [N, D]) with `out`.csv (names and coordinates) beside it.

    Rows are in sorted order of the file names; a small `out`.json says which model and weights they are of.

    Raises:
      UserError: if `out` does not end in .npy, one of the three exists (not with `overwrite`), or no image can be read.
    """
    if out.suffix != ".npy":
        raise UserError(f"--out={out}: descriptors are written as .npy; end the name so")
    outputs.refuse_existing(*(out.with_suffix(part) for part in database_file.PARTS), overwrite=overwrite)
    what, config, variables, _ = which.chosen(config, folder, checkpoint)
    log.info("weights: %s", what)
    places = readers.read("folder", images)
    found = builders.describer(config, builders.mesh(config))(variables, places.path)
    if len(found.missing) == len(places):
        raise UserError(f"none of the {len(places)} images of {images} could be read; nothing is written")
    if hosts.is_first():
        database_file.write(out, config, variables, found.descriptors, places)
        print(f"wrote {out} {found.descriptors.shape}, {out.with_suffix('.csv')}")
        if why := places.unlocated():
            print(why)
        if len(found.missing):
            print(f"{len(found.missing)} of {len(places)} images could not be read; their rows are zeros")
    return out
