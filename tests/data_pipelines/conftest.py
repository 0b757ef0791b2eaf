"""What tests of records share."""

from pathlib import Path

import pytest
from strange_images import SHARDS, strange_images

from data_pipelines.records import writing


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Images of every kind; see `strange_images`."""
    return strange_images(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def written(places, tmp_path_factory) -> Path:
    """The folder of their records."""
    root = tmp_path_factory.mktemp("records") / "out"
    writing.write(places, root, count=SHARDS, processes=1)
    return root
