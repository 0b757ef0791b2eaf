"""The keys of a recipe whose training images are panoramas."""

import cv2
import numpy as np
import pytest

from configs import common
from data_pipelines.augment import Augment
from data_pipelines.draws import Draw
from data_pipelines.image_source import ImageSource
from data_pipelines.panorama import Panorama
from data_pipelines.places import Paths
from jaxvpr.builders.training_images import image_source
from jaxvpr.cli.arguments import parse
from jaxvpr.errors import UserError

FULL, VIEW, SIZE = (64, 416), 64, (32, 32)
YAWS = np.array([10, 200], np.float32)


@pytest.fixture(scope="module")
def strips(tmp_path_factory) -> Paths:
    folder, rng = tmp_path_factory.mktemp("strips"), np.random.default_rng(0)
    for name in ("0.jpg", "1.jpg"):
        picture = cv2.resize(rng.integers(0, 256, (4, 26, 3), dtype=np.uint8), FULL[::-1])
        assert cv2.imwrite(str(folder / name), picture)
    return Paths.of(["0.jpg", "1.jpg"], folder)


def test_a_recipe_says_what_its_panoramas_are(strips):
    config = common.base()
    config.image.size = SIZE
    assert image_source(config, strips, yaw=YAWS).panorama is None
    config.panorama.update(size=FULL, view=VIEW)
    draw = Draw.of([1, 0], view=np.array([100.0, 12.0]))
    made = image_source(config, strips, yaw=YAWS).read(draw, 0, 0, "source")["image"]
    plain = ImageSource(strips, SIZE, augment=Augment(), panorama=Panorama(FULL, YAWS, VIEW))
    assert np.array_equal(made, plain.read(draw, 0, 0, "source")["image"])
    # Images without yaws, such as those of a target, are no panoramas.
    assert image_source(config, strips).panorama is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["panorama.size=(512,)"], r"panorama\.size=\(512,\).*\(height, width\)"),
        (["panorama.size=(512,0)"], r"panorama\.size=\(512, 0\).*\(height, width\)"),
        (["panorama.view=0"], r"panorama\.view=0\b.*\b1\b"),
        (["panorama.size=(64,416)"], r"panorama\.view=512\b.*\b1 to 416\b"),
    ],
)
def test_keys_of_panoramas_are_checked(changes, said):
    with pytest.raises(UserError, match=said):
        parse(["train", "--config=configs/cosplace.py", *(f"--config.{change}" for change in changes)])


def test_keys_of_panoramas_that_fit_are_taken():
    keys = ("--config.panorama.size=(64,416)", "--config.panorama.view=64")
    config = parse(["--config=configs/cosplace.py", *keys]).config
    assert config.panorama.to_dict() == {"size": (64, 416), "view": 64}
