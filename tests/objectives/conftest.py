"""What the small runs of `seam_runs` read: cached descriptors, and photos."""

import numpy as np
import pytest
from seam_runs import ROWS, SIZE

from data_pipelines.image_source import ImageSource
from data_pipelines.readers import read


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    file = tmp_path_factory.mktemp("numbers") / "cached.npy"
    np.save(file, np.random.default_rng(0).normal(size=(ROWS, 5)).astype(np.float32))
    return file


@pytest.fixture(scope="module")
def images(photo_tree):
    return ImageSource(read("at_names", photo_tree, split="train").path, SIZE, "area")
