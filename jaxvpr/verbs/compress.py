"""The verb compress: a PCA behind a model, written as one model file that describes itself."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

from ml_collections import ConfigDict

from jaxvpr import builders
from jaxvpr.cli import checks
from jaxvpr.cli.reader_flag import Reader
from jaxvpr.errors import UserError
from jaxvpr.parallel import hosts
from jaxvpr.runs import compressed, model_file, outputs, which

log = logging.getLogger(__name__)


def run(
    config: ConfigDict,
    folder: Path,
    checkpoint: str,
    images: Sequence[str],
    reader: Reader,
    out: Path,
    overwrite: bool = False,
) -> Path:
    """Fits a PCA behind a model and writes both as one model file that describes itself.

    Args:
      checkpoint: as of `which.chosen`.
      images: folders of images to fit it on, as `reader` finds them; none for those that the recipe trains on.

    Raises:
      UserError: for a recipe without `pca.dim`, another ending of `out`, one that exists (not with `overwrite`), or as
        `fitted`.
    """
    if not config.pca.dim:
        raise UserError("compress needs the number of dimensions to keep: --config=RECIPE,pca.dim=512")
    if out.suffix != ".safetensors":
        raise UserError(f"--out={out}: a model that describes itself is a .safetensors file; end the name so")
    outputs.refuse_existing(out, overwrite=overwrite)
    read = cache(partial(builders.photos, tuple(images), reader)) if images else None
    own = checks.clusters_of_database(config)
    what, variables = which.uncompressed(config, folder, checkpoint, images=read if own else None)
    log.info("compressing %s", what)
    model = compressed.fitted(config, variables, read() if read else None)
    if hosts.is_first():
        out.parent.mkdir(parents=True, exist_ok=True)
        model_file.write_model(out, *model)
        print(f"wrote {out}: {config.pca.dim} numbers a descriptor")
    return out
