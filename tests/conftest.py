"""Settings that every test shares: eight simulated CPU devices, strict promotion, warnings as errors."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("JAX_NUMPY_DTYPE_PROMOTION", "strict")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import common
from jaxvpr.commandline import load_config

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images beside the project; skips where it is absent."""
    folder = Path(os.environ.get("JAXVPR_REAL_DATA", SHARED / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder}; set JAXVPR_REAL_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """The folder of real weights beside the project; skips where it is absent."""
    folder = SHARED / "weights"
    if not folder.is_dir():
        pytest.skip(f"real weights not found at {folder}")
    return folder


@pytest.fixture(scope="session")
def photo_tree(tmp_path_factory) -> Path:
    """A tiny data set in the standard tree: 5 x 5 places 30 m apart, each with its own pattern, 32x32 JPEGs."""
    root = tmp_path_factory.mktemp("photos")
    parts = {"train": 3, "val/database": 1, "val/queries": 1, "test/database": 2, "test/queries": 1}
    noise = np.random.default_rng(0)
    for part, images in parts.items():
        (root / "images" / part).mkdir(parents=True)
        for x in range(5):
            for y in range(5):
                pattern = np.random.default_rng([x, y]).integers(0, 255, (4, 4, 3), dtype=np.uint8)
                for number in range(images):
                    east, north = 300_000 + 30 * x + noise.uniform(0, 8), 5_000_000 + 30 * y + noise.uniform(0, 8)
                    name = f"@{east:.2f}@{north:.2f}@33@U@@@{x}{y}{number}@@{10 + 30 * (x % 2):03d}@@@@2013@day_x@.jpg"
                    image = cv2.resize(pattern, (32, 32), interpolation=cv2.INTER_CUBIC) + noise.normal(
                        0, 25, (32, 32, 3)
                    )
                    cv2.imwrite(str(root / "images" / part / name), image.clip(0, 255).astype(np.uint8))
    return root


@pytest.fixture
def tiny_config(photo_tree):
    """The `tiny` recipe on `photo_tree`: two groups, two epochs of six steps."""
    config = load_config("configs/cosplace.py:tiny").unlock()
    config.city = ConfigDict({})
    for group, split in (("val_data", "val"), ("test_data", "test")):
        config[group] = ConfigDict({split: common.data("at_names", str(photo_tree), split)})
    config.train_data = common.data("at_names", str(photo_tree), "train")
    config.objective.partition.min_images = 2
    config.eval.recalls = (1, 5, 10)
    config.eval.batch = 16
    config.epochs, config.steps_per_epoch, config.batch = 2, 6, 8
    return config.lock()
