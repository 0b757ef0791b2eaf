"""The TFDS builder of records: what a record holds, and how TFDS writes them itself, such as on a cluster by Beam."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_pipelines import image_bytes
from data_pipelines.image_files import naming
from data_pipelines.places import COLUMNS, SPLITS, Places
from data_pipelines.records import folder, shards, table


def features() -> tfds.features.FeaturesDict:
    """What a record holds: `image`, its bytes as they were; `name`, its path below the root; all columns of `Places`.

    `place_name` is what the data set calls its place. Times are seconds since 1970. TFDS keeps real numbers in 32 bits,
    which is half a metre of a UTM northing, but for those of 64 that are given as bytes.
    """
    own = tfds.features
    columns: dict[str, Any] = {column: np.dtype(dtype) for column, (dtype, _) in COLUMNS.items()}
    for column, dtype in columns.items():
        if dtype == np.float64:
            columns[column] = own.Tensor(shape=(), dtype=np.float64, encoding=own.Encoding.BYTES)
        elif dtype.kind != "f":
            columns[column] = np.int64
    return own.FeaturesDict(
        {"image": own.Image(shape=(None, None, 3)), "name": own.Text(), "place_name": own.Text(), **columns}
    )


def split_of(places: Places) -> str:
    """What TFDS calls the images: their split where they have one and the same, else "images"."""
    found = np.unique(places.split)
    return SPLITS[found[0]] if len(found) == 1 and found[0] >= 0 else "images"


def examples(places: Places) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records of all images of a table, each with its number. ImageError names an image that cannot be read."""
    columns = {column: getattr(places, column) for column in COLUMNS}
    for row in range(len(places)):
        path = places.path[row]
        with naming(path):
            image = image_bytes.read(path)
        known = {
            name: values[row] if name != "time" else values[row].astype(np.int64) for name, values in columns.items()
        }
        name, place = (os.fsencode(text) for text in (places.path.relative(row), places.place_of(row)))
        yield row, {"image": image, "name": name, "place_name": place, **known}


def metadata(places: Places) -> tfds.core.MetadataDict:
    """What TFDS keeps beside the records: the name of the data set and those of the bits of `condition`."""
    return tfds.core.MetadataDict(name=places.name, conditions=list(places.conditions))


class ImageRecords(tfds.core.ShardBasedBuilder):
    """The images of a table as records, in an order and a number of shards that are given.

    `download_and_prepare` writes them one after the other, or with a Beam runner side by side. `writing.write` makes
    the same records in processes of one machine, and goes on where it was stopped.
    """

    VERSION = tfds.core.Version("1.0.0")
    name = shards.NAME

    def __init__(self, *, places: Places, shards: int, **options: Any):
        self.places, self.shards = places, shards
        super().__init__(file_format="array_record", **options)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, features=features(), metadata=metadata(self.places))

    def _shard_iterators_per_split(self, dl_manager: Any) -> Mapping[str, Any]:
        parts = [self.places.take(table.rows_of(k, self.shards, len(self.places))) for k in range(self.shards)]
        return {split_of(self.places): [functools.partial(examples, part) for part in parts]}

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        super()._download_and_prepare(dl_manager, download_config)
        root = Path(self.data_dir)
        contents = folder.Contents(self.places.digest(), split_of(self.places), self.shards, {})
        contents.done.update({k: shards.measured(root / name) for k, name in enumerate(contents.files)})
        folder.finish(root, contents, self.places)


def write_shard(file: Path, places: Places) -> None:
    """Writes a shard of all images of a table, as `ImageRecords` does."""
    from tensorflow_datasets.core.file_adapters import ArrayRecordFileAdapter

    made = features()
    ArrayRecordFileAdapter.write_examples(file, ((k, made.serialize_example(one)) for k, one in examples(places)))


def describe(root: Path, contents: folder.Contents, places: Places) -> None:
    """Writes TFDS's description of the shards of a folder: `tfds.builder_from_directory` opens it by that."""
    lengths, size = zip(*((s.images, s.bytes) for _, s in sorted(contents.done.items())), strict=True)
    template = tfds.core.ShardedFileTemplate(
        data_dir=root, dataset_name=shards.NAME, split=contents.split, filetype_suffix="array_record"
    )
    split = tfds.core.SplitInfo(
        name=contents.split, shard_lengths=list(lengths), num_bytes=sum(size), filename_template=template
    )
    tfds.folder_dataset.write_metadata(
        data_dir=root, features=features(), split_infos=[split], filename_template=template, check_data=False,
        version="1.0.0", metadata=metadata(places),
    )  # fmt: skip
