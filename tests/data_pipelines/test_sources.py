"""Sources beside images: clips, arrays and targets; what they read, call their rows, and hand to hosts by image."""

import pickle

import cv2
import numpy as np
import pytest

from data_pipelines.augment import Augment
from data_pipelines.draws import Draw
from data_pipelines.image_source import ImageSource
from data_pipelines.places import Paths
from data_pipelines.sources import ArraySource, ClipSource, TargetSource

SIZE, COUNT = (12, 16), 9
STRONG = Augment(brightness=0.7, contrast=0.7, saturation=0.7, hue=0.5, scale=(0.3, 1.0), flip=0.5)
CLIPS = np.array([[0, 1, 2], [3, 4, 4], [5, 3, 1], [6, 7, 8]])


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("frames"), np.random.default_rng(0)
    for number in range(COUNT):
        small = rng.integers(0, 256, (4, 5, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(small, (32, 24), interpolation=cv2.INTER_CUBIC))
    return Paths.of([f"{number}.png" for number in range(COUNT)], folder)


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_a_row_is_a_clip(paths):
    images = ImageSource(paths, SIZE)
    batch = ClipSource(images, CLIPS).read(Draw.of([3, 1, -1], [7, 8, -1]), 0, 0, "source")
    alone = [images.image(row, None) for row in range(COUNT)]
    np.testing.assert_array_equal(batch["image"][0], [alone[6], alone[7], alone[8]])
    np.testing.assert_array_equal(batch["image"][1], [alone[3], alone[4], alone[4]])
    assert batch["row"].tolist() == [3, 1, -1] and batch["label"].tolist() == [7, 8, -1]
    assert batch["mask"].tolist() == [True, True, False] and not batch["image"][2].any()


def test_all_frames_of_a_clip_are_augmented_alike_and_other_clips_otherwise(paths):
    still = np.zeros((2, 3), np.int64)  # two clips of one image three times
    clips = ClipSource(ImageSource(paths, SIZE, augment=STRONG), still).read(Draw.of([0, 1]), 1, 2, "source")["image"]
    for clip in clips:
        np.testing.assert_array_equal(clip, np.stack([clip[0]] * 3))
    assert not np.array_equal(clips[0], clips[1])


@pytest.mark.parametrize("seed", range(6))
def test_of_an_element_of_clips_the_query_alone_is_augmented_and_all_are_mirrored_or_none(paths, seed):
    still = np.repeat(np.arange(3)[:, None], 2, axis=1)
    plain = ImageSource(paths, SIZE)
    source = ClipSource(ImageSource(paths, SIZE, augment=STRONG, queries_only=True), still)
    (element,) = source.read(Draw.of([[0, 1, 2]]), seed, 0, "source")["image"]
    others = [plain.image(row, None) for row in (1, 2)]
    straight = all(np.array_equal(element[k + 1, f], others[k]) for k in (0, 1) for f in (0, 1))
    mirrored = all(np.array_equal(element[k + 1, f], others[k][:, ::-1]) for k in (0, 1) for f in (0, 1))
    assert straight != mirrored
    np.testing.assert_array_equal(element[0, 0], element[0, 1])
    assert not any(np.array_equal(element[0, 0], x) for x in (plain.image(0, None), plain.image(0, None)[:, ::-1]))


@pytest.mark.parametrize("kind", ["images", "clips"])
@pytest.mark.parametrize("queries_only", [False, True])
def test_what_hosts_read_by_image_is_what_one_reads_by_element(paths, kind, queries_only):
    """4 elements of 3 on 6 hosts: each reads 2 images, some of them of two elements."""
    images = ImageSource(paths, SIZE, augment=STRONG, queries_only=queries_only)
    source = pickle.loads(pickle.dumps(images if kind == "images" else ClipSource(images, CLIPS)))
    rows = np.random.default_rng(3).integers(0, len(source), (4, 3))
    draw = Draw.of(rows, [4, 5, 6, 7])
    whole = source.read(draw, 5, 6, "source")
    parts = [source.read_images(draw, 5, 6, "source", slice(start, start + 2)) for start in range(0, 12, 2)]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    names = whole.keys() - {"label", "mask", "bad"}
    same(
        {name: joined[name].reshape(4, 3, *joined[name].shape[1:]) for name in names},
        {name: whole[name] for name in names},
    )
    assert joined["label"].tolist() == np.repeat([4, 5, 6, 7], 3).tolist() and joined["mask"].all()


def test_a_clip_with_an_unreadable_frame_is_bad_and_named(paths, tmp_path):
    files = [paths[row] for row in range(COUNT)]
    files[7] = str(tmp_path / "gone.png")
    source = ClipSource(ImageSource(Paths.of(files), SIZE, on_error="skip"), CLIPS)
    batch = source.read(Draw.of([0, 3]), 0, 0, "source")
    assert batch["bad"].tolist() == [False, True] and batch["mask"].tolist() == [True, False]
    (complaint,) = source.read_errors(batch)
    assert "gone.png" in complaint
    by_image = source.read_images(Draw.of([[0, 3]]), 0, 0, "source", slice(1, 2))
    assert by_image["bad"].tolist() == [True] and by_image["mask"].tolist() == [False]


def test_some_rows_of_a_source_and_what_errors_call_them(paths, tmp_path):
    clips = ClipSource(ImageSource(paths, SIZE), CLIPS).take(np.array([3, 1]))
    assert len(clips) == 2 and clips.names([0, 1]) == [f"{paths[6]} to {paths[8]}", f"{paths[3]} to {paths[4]}"]
    images = ImageSource(paths, SIZE).take(np.array([4, 2]))
    assert images.names([1]) == [paths[2]]
    file = tmp_path / "x.npy"
    np.save(file, np.arange(10.0).reshape(5, 2))
    some = ArraySource(str(file)).take(np.array([4, 0, 2])).take(np.array([2, 0]))
    assert len(some) == 2 and some.names([0, 1]) == [f"{file}, row 2", f"{file}, row 4"]
    np.testing.assert_array_equal(some.read(Draw.of([1, -1, 0]), 0, 0, "")["descriptor"], [[8, 9], [0, 0], [4, 5]])


def test_targets_follow_their_rows(tmp_path):
    file = tmp_path / "x.npy"
    np.save(file, np.zeros((4, 2)))
    source = TargetSource(ArraySource(str(file)), {"position": np.array([[0.0, 1], [2, 3], [4, 5], [6, 7]])})
    batch = source.take(np.array([3, 1])).read(Draw.of([[0, 1], [-1, 0]]), 0, 0, "source")
    assert batch["position"].tolist() == [[[6, 7], [2, 3]], [[0, 0], [6, 7]]] and batch["position"].dtype == np.float32
    assert source.names([2]) == [f"{file}, row 2"] and source.read_errors(batch) == [] and len(source) == 4
