"""The verb records: images, with all that is known of them, as few large files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from data_pipelines.records import folder as records
from data_pipelines.records import writing
from jaxvpr import builders
from jaxvpr.cli.reader_flag import Reader


def run(
    config: ConfigDict,
    folder: Path,
    images: Sequence[str],
    reader: Reader,
    out: Path,
    shards: int = 0,
    workers: int = 0,
    overwrite: bool = False,
    verify: bool = False,
) -> Path:
    """Writes images as records into the folder `out`, and reads them again; what is there of them already is kept.

    Args:
      images: folders of images, as `reader` finds them; none for those of the recipe's `train_data`.
      shards, workers: as `count` and `processes` of `writing.write`.
      verify: write nothing, and look at what `out` holds.

    Raises:
      DataError: as `writing.write` and `folder.verify`.
    """
    if not verify:
        places = builders.folders(images, reader) if images else builders.places(config, config.train_data)
        writing.write(places, out, count=shards, processes=workers, overwrite=overwrite)
    found = records.verify(out, workers)
    print(f"{out}: {found['images']:,} images in {found['shards']:,} files, {found['bytes']:,} bytes, verified")
    return out
