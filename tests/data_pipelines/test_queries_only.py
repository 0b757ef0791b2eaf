"""Triplets of images of which the query alone is augmented, and all are mirrored or none."""

import pickle
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from configs import common
from data_pipelines.augment import Augment
from data_pipelines.draws import Draw, generator
from data_pipelines.errors import DataError
from data_pipelines.image_source import ImageSource
from data_pipelines.images import decode, resize
from data_pipelines.loaders import StepReader, batches
from data_pipelines.places import Paths
from jaxvpr.builders.training_images import image_source
from jaxvpr.errors import UserError

COUNT, BATCH, IMAGES, SIZE = 12, 4, 5, (24, 32)
STRONG = {"brightness": 0.7, "hue": 0.5, "scale": (0.5, 1.0), "perspective": 0.5, "rotation": 20.0}


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> Paths:
    """Twelve JPEGs of 120 x 160, large enough to be decoded at a quarter."""
    folder, rng = tmp_path_factory.mktemp("triplets"), np.random.default_rng(0)
    for i in range(COUNT):
        picture = cv2.resize(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8), (160, 120))
        assert cv2.imwrite(str(folder / f"{i}.jpg"), picture)
    return Paths.of([f"{i}.jpg" for i in range(COUNT)], folder)


def triplets(step=0) -> Draw:
    return Draw.of(np.random.default_rng(step).integers(0, COUNT, (BATCH, IMAGES)))


def draw_of(step: int) -> dict[str, Draw]:
    return {"source": triplets(step)}


def read(paths, draw=None, seed=1, step=2, stream="source", part=slice(None), **options):
    source = ImageSource(paths, SIZE, augment=Augment(**options), queries_only=True)
    return source.read(triplets() if draw is None else draw, seed, step, stream, part)["image"]


def plain(paths):
    """Each image as evaluation sees it."""
    return np.array([[resize(decode(paths[row]), SIZE, "pil_bilinear") for row in rows] for rows in triplets().rows])


def test_the_query_changes_and_the_others_are_as_in_evaluation(paths):
    images, expected = read(paths, **STRONG), plain(paths)
    assert np.array_equal(images[:, 1:], expected[:, 1:])
    for query, untouched in zip(images[:, 0], expected[:, 0], strict=True):
        assert np.abs(query.astype(int) - untouched).mean() > 5


def test_strength_zero_is_the_evaluation(paths):
    assert np.array_equal(read(paths), plain(paths))


def test_a_query_is_augmented_as_its_place_in_the_batch_says(paths):
    augment, draw = Augment(**STRONG), triplets()
    images = read(paths, **STRONG)
    for element, row in enumerate(draw.rows[:, 0]):
        rng = generator(1, 2, "source", element * IMAGES)
        assert np.array_equal(images[element, 0], augment(decode(paths[row]), rng, SIZE, "pil_bilinear"))


def test_flip_is_the_whole_elements(paths):
    assert np.array_equal(read(paths, flip=1.0, **STRONG), read(paths, **STRONG)[..., ::-1, :])
    expected, count, mirrored = plain(paths), 60, 0
    for step in range(count):
        for element, straight in zip(read(paths, step=step, flip=0.25), expected, strict=True):
            flipped = np.array_equal(element, straight[..., ::-1, :])
            assert flipped or np.array_equal(element, straight), "all or none"
            mirrored += flipped
    share = mirrored / (count * BATCH)
    assert abs(share - 0.25) < 5 * np.sqrt(0.25 * 0.75 / (count * BATCH))


def test_seed_step_stream_and_position_each_change_the_query(paths):
    same = Draw.of(np.full((BATCH, IMAGES), 3))
    first = read(paths, same, **STRONG)[:, 0]
    assert all(not np.array_equal(first[i], first[j]) for i in range(BATCH) for j in range(i))
    for other in ({"seed": 7}, {"step": 7}, {"stream": "target"}):
        changed = read(paths, same, **other, **STRONG)[:, 0]
        assert not any(np.array_equal(a, b) for a, b in zip(first, changed, strict=True))
    assert np.array_equal(first, read(paths, same, **STRONG)[:, 0])


def test_seed_step_stream_and_position_each_change_the_flips(paths):
    same = Draw.of(np.full((16, 2), 3))
    straight = read(paths, same)[0, 0]

    def flips(**key):
        return [not np.array_equal(element[0], straight) for element in read(paths, same, flip=0.5, **key)]

    first = flips()
    assert 2 < sum(first) < 14 and first == flips()
    assert all(first != flips(**other) for other in ({"seed": 7}, {"step": 7}, {"stream": "target"}))


@pytest.mark.parametrize("hosts", [2, 4])
def test_slices_of_the_hosts_make_the_global_batch(paths, hosts):
    each, whole = BATCH // hosts, read(paths, flip=0.5, **STRONG)
    parts = [read(paths, part=slice(h * each, (h + 1) * each), flip=0.5, **STRONG) for h in range(hosts)]
    assert np.array_equal(np.concatenate(parts), whole)


def test_bytes_do_not_depend_on_threads_or_on_the_first_step(paths):
    source = ImageSource(paths, SIZE, augment=Augment(flip=0.5, **STRONG), queries_only=True)
    reader = pickle.loads(pickle.dumps(StepReader({"source": source}, draw_of, seed=3)))
    found = dict(batches(reader, 1, 4, threads=4, prefetch=2))
    for step in (3, 2, 1):
        assert np.array_equal(found[step]["source"]["image"], reader(step)["source"]["image"])


def test_missing_negatives_stay_black_and_an_unreadable_query_spoils_its_element(paths, tmp_path):
    rows = np.array([[0, 1, -1], [2, 3, 4], [-1, -1, -1]])
    images = read(paths, Draw.of(rows), flip=1.0, **STRONG)
    assert not images[0, 2].any() and images[0, :2].any(axis=(1, 2, 3)).all() and not images[2].any()
    (tmp_path / "2.jpg").write_text("no image")
    for i in (0, 1, 3, 4):
        (tmp_path / f"{i}.jpg").write_bytes(Path(paths[i]).read_bytes())
    broken = Paths.of([f"{i}.jpg" for i in range(5)], tmp_path)
    options = {"augment": Augment(flip=1.0, **STRONG), "queries_only": True, "on_error": "skip"}
    batch = ImageSource(broken, SIZE, **options).read(Draw.of(rows), 1, 2, "source")
    assert batch["bad"].tolist() == [False, True, False] and batch["mask"].tolist() == [True, False, False]
    assert not batch["image"][1, 0].any()
    assert np.array_equal(batch["image"][1, 1:], images[1, 1:]), "its flip does not wait for the query"


def test_queries_cannot_be_augmented_without_an_augmentation(paths):
    with pytest.raises(DataError, match=r"queries_only.*augment"):
        ImageSource(paths, SIZE, queries_only=True)


def test_a_recipe_chooses_and_its_mistakes_are_named(paths):
    config = common.base()
    config.image.size = SIZE
    config.augment.update(flip=0.5, **STRONG)
    config.augment.ratio = (3 / 4, 4 / 3)
    source = image_source(config, paths, queries_only=True)
    assert source.queries_only and not image_source(config, paths).queries_only
    expected = read(paths, flip=0.5, **STRONG)
    assert np.array_equal(source.read(triplets(), 1, 2, "source")["image"], expected)
    for key, value in (("perspective", 1.5), ("rotation", -1.0), ("flip", 2.0), ("randaugment", -1)):
        wrong = config.copy_and_resolve_references()
        wrong.augment[key] = value
        with pytest.raises(UserError, match=rf"config\.augment.*{key}={re.escape(str(value))}"):
            image_source(wrong, paths)
