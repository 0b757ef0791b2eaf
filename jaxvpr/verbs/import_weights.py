"""The verb import: an original's file of weights as a model of ours."""

from __future__ import annotations

from pathlib import Path

from ml_collections import ConfigDict

from jaxvpr import builders
from jaxvpr.cli import weight_source
from jaxvpr.errors import UserError
from jaxvpr.models.costs import parameter_count
from jaxvpr.runs import lock, model_file, outputs, workdir


def run(config: ConfigDict, folder: Path, checkpoint: str = "", overwrite: bool = False) -> Path:
    """Reads an original's file and writes it into `folder` as our model, which carries its recipe and preprocessing.

    Args:
      checkpoint: a file of weights; empty takes the recipe's own (`weights=FILE`).

    Raises:
      UserError: no file was named, it does not fit the recipe's model, a training lives in `folder`, or a model does
        (not with `overwrite`).
    """
    source = checkpoint or config.init
    if not source:
        raise UserError("import needs a file: --config=configs/zoo.py:METHOD,weights=FILE")
    if checkpoint:
        weight_source.check("--checkpoint", checkpoint)
    if workdir.has_checkpoints(folder):
        raise UserError(f"{folder} holds a training, whose model would be lost; give another --workdir")
    outputs.refuse_existing(folder / weight_source.MODEL_FILE, overwrite=overwrite)
    variables = builders.initial_variables(config, then=checkpoint)
    with lock.held(folder):
        written = model_file.save_model(folder, config, variables)
    print(f"read {source}: {parameter_count(variables):,} parameters\nwrote {written}")
    return written
