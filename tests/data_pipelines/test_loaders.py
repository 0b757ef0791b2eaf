"""Order, augmentation, padding and errors of the loader, for every number of threads, workers and hosts."""

import contextlib
import functools
import gc
import multiprocessing
import pickle
import re
import threading
import time
from multiprocessing.shared_memory import SharedMemory

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_pipelines import loaders
from data_pipelines.augment import Augment
from data_pipelines.draws import Draw, generator, sequential_draw
from data_pipelines.errors import DataError
from data_pipelines.image_source import ImageSource
from data_pipelines.images import ImageError, decode, resize
from data_pipelines.loaders import Reader, StepReader, batches, every_image, span
from data_pipelines.places import Paths
from data_pipelines.sources import ArraySource

JITTER = Augment(brightness=0.7, contrast=0.7, saturation=0.7, hue=0.5, scale=(0.5, 1.0), flip=0.5)
COUNT, BATCH, STEPS, SIZE = 20, 6, 5, (24, 32)


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> Paths:
    """Twenty JPEGs of 48 x 64 (every third of 40 x 40), each of another picture."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    names = [f"{i:02d}.jpg" for i in range(COUNT)]
    for i, name in enumerate(names):
        picture = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        size = (40, 40) if i % 3 == 0 else (64, 48)
        assert cv2.imwrite(str(folder / name), cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC))
    return Paths.of(names, folder)


@pytest.fixture
def broken(paths, tmp_path) -> Paths:
    """Four images of which the second is cut short and the fourth is text."""
    good = decode(paths[1])[..., ::-1]
    for name in ("0.jpg", "1.jpg", "2.jpg"):
        assert cv2.imwrite(str(tmp_path / name), good)
    data = (tmp_path / "1.jpg").read_bytes()
    (tmp_path / "1.jpg").write_bytes(data[: len(data) * 2 // 3])
    (tmp_path / "3.jpg").write_text("404 not found")
    return Paths.of(["0.jpg", "1.jpg", "2.jpg", "3.jpg"], tmp_path)


def random_draw(step: int) -> dict[str, Draw]:
    """Rows and labels that depend on the step alone; two streams."""
    rng = np.random.default_rng(step)
    rows = rng.integers(0, COUNT, (2, BATCH))
    return {"source": Draw.of(rows[0], rows[0] * 2), "target": Draw.of(rows[1])}


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(one[name][key], other[name][key]) and one[name][key].dtype == other[name][key].dtype
        for name in one
        for key in one[name]
    )


def reader(paths, **options) -> StepReader:
    source = ImageSource(paths, SIZE, augment=JITTER, **options)
    return StepReader({"source": source, "target": source}, random_draw, seed=3)


@pytest.fixture(scope="module")
def reference(paths):
    """The batches of steps 0..4 read one after the other, without grain."""
    return [reader(paths)(step) for step in range(STEPS)]


@pytest.mark.parametrize(("threads", "workers"), [(0, 0), (1, 0), (4, 0), (8, 0), (1, 2)])
def test_bytes_do_not_depend_on_threads_or_workers(paths, reference, threads, workers, monkeypatch):
    monkeypatch.setattr(loaders, "LEAST_IMAGES", 1)  # so that these small batches are cut into spans too
    read = list(batches(reader(paths), 0, STEPS, threads=threads, workers=workers, prefetch=2))
    assert [step for step, _ in read] == list(range(STEPS))
    assert all(same(batch, expected) for (_, batch), expected in zip(read, reference, strict=True))
    assert type(read[0][1]["source"]["image"]) is np.ndarray
    del read
    assert soon(lambda: not any(issubclass(type(thing), SharedMemory) for thing in gc.get_objects()))


def test_a_start_in_the_middle_gives_the_remaining_batches(paths, reference):
    read = dict(batches(reader(paths), 3, STEPS, threads=2))
    assert list(read) == [3, 4]
    assert same(read[3], reference[3]) and same(read[4], reference[4])


def test_no_step_gives_no_batch(paths):
    assert list(batches(reader(paths), 3, 3)) == []


def test_seed_step_stream_and_position_each_change_the_image(paths):
    source, draw = ImageSource(paths, SIZE, augment=JITTER), Draw.of(np.full(BATCH, 4))
    first = source.read(draw, 0, 0, "source")["image"]
    assert all(not np.array_equal(first[i], first[j]) for i in range(BATCH) for j in range(i))
    for other in ((1, 0, "source"), (0, 1, "source"), (0, 0, "target")):
        changed = source.read(draw, *other)["image"]
        assert not any(np.array_equal(a, b) for a, b in zip(first, changed, strict=True))
    assert np.array_equal(first, source.read(draw, 0, 0, "source")["image"])


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**63), st.integers(0, 10**9), st.sampled_from(["source", "target"]), st.integers(0, 10**6)
        ),
        min_size=2,
        max_size=5,
        unique=True,
    )
)
def test_generators_of_different_keys_differ(keys):
    assert len({generator(*key).integers(2**62) for key in keys}) == len(keys)
    assert generator(*keys[0]).integers(2**62) == generator(*keys[0]).integers(2**62)


@pytest.mark.parametrize("shape", [(BATCH,), (BATCH, 3)])
@pytest.mark.parametrize("hosts", [2, 3])
def test_slices_of_the_hosts_make_the_global_batch(paths, shape, hosts):
    rows = np.random.default_rng(1).integers(0, COUNT, shape)
    source, draw = ImageSource(paths, SIZE, augment=JITTER), Draw.of(rows, np.arange(BATCH))
    whole, each = source.read(draw, 1, 2, "source"), BATCH // hosts
    parts = [source.read(draw, 1, 2, "source", slice(h * each, (h + 1) * each)) for h in range(hosts)]
    assert same({"": whole}, {"": {key: np.concatenate([part[key] for part in parts]) for key in whole}})
    assert whole["image"].shape == (*shape, *SIZE, 3) and whole["label"].dtype == np.int32


def test_frames_of_a_clip_share_their_augmentation_where_asked(paths):
    draw = Draw.of(np.full((2, 3), 4))
    shared = ImageSource(paths, SIZE, augment=JITTER, frames=3).read(draw, 0, 0, "source")["image"]
    assert np.array_equal(shared[0, 0], shared[0, 1]) and np.array_equal(shared[0, 0], shared[0, 2])
    assert not np.array_equal(shared[0, 0], shared[1, 0])
    free = ImageSource(paths, SIZE, augment=JITTER).read(draw, 0, 0, "source")["image"]
    assert not np.array_equal(free[0, 0], free[0, 1])


def test_padding_is_zeros_and_masked(paths):
    batch = ImageSource(paths, SIZE).read(Draw.of([3, -1, 5]), 0, 0, "source")
    assert batch["mask"].tolist() == [True, False, True] and not batch["bad"].any()
    assert not batch["image"][1].any() and batch["image"][0].any() and batch["image"][2].any()
    clip = ImageSource(paths, SIZE).read(Draw.of([[3, 4, -1], [-1, -1, -1]]), 0, 0, "source")
    assert clip["mask"].tolist() == [True, False]
    assert clip["image"][0, 1].any() and not clip["image"][0, 2].any()


def test_every_image_comes_once_and_in_order(paths):
    read = list(every_image(ImageSource(paths, SIZE), 8, threads=2))
    assert [batch["image"].shape for batch in read] == [(8, *SIZE, 3)] * 3
    rows = np.concatenate([batch["row"][batch["mask"]] for batch in read])
    assert rows.tolist() == list(range(COUNT)) and read[-1]["row"].tolist() == [16, 17, 18, 19, -1, -1, -1, -1]
    image = np.concatenate([batch["image"][batch["mask"]] for batch in read])
    expected = [resize(decode(paths[row]), SIZE, "pil_bilinear") for row in range(COUNT)]
    assert np.array_equal(image, expected)


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(1, 12))
def test_sequential_draws_cover_the_rows(count, batch):
    draw = sequential_draw(count, batch)
    rows = [row for step in range(-(-count // batch)) for row in draw(step)["source"].rows]
    assert [row for row in rows if row >= 0] == list(range(count)) and len(rows) % batch == 0


def test_images_of_another_size_are_squashed_by_the_rule(paths):
    batch = ImageSource(paths, SIZE, rule="area").read(Draw.of([0, 1]), 0, 0, "source")
    for row in (0, 1):
        assert np.array_equal(batch["image"][row], resize(decode(paths[row]), SIZE, "area"))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_stops_the_reading_and_is_named(broken, workers, monkeypatch):
    monkeypatch.setattr(loaders, "LEAST_IMAGES", 1)
    read_step = StepReader({"source": ImageSource(broken, SIZE)}, sequential_draw(4, 2))
    with pytest.raises(ImageError, match=r"1\.jpg.*truncated") as caught:
        list(batches(read_step, 0, 2, workers=workers))
    assert type(caught.value) is ImageError


def test_unreadable_images_are_skipped_counted_and_named(broken):
    (batch,) = every_image(ImageSource(broken, SIZE, on_error="skip"), 4)
    assert batch["bad"].tolist() == [False, True, False, True] and batch["mask"].tolist() == [True, False, True, False]
    assert not batch["image"][[1, 3]].any() and batch["image"][[0, 2]].any(axis=(1, 2, 3)).all()
    cut, text = ImageSource(broken, SIZE).read_errors(batch)
    assert re.search(r"1\.jpg.*truncated", cut) and re.search(r"3\.jpg.*not an image", text)


def test_an_unreadable_frame_spoils_its_clip_only(broken):
    draw = Draw.of([[0, 2], [2, 1]])
    batch = ImageSource(broken, SIZE, on_error="skip").read(draw, 0, 0, "source")
    assert batch["bad"].tolist() == [False, True] and batch["mask"].tolist() == [True, False]
    assert [line.split(":")[0][-5:] for line in ImageSource(broken, SIZE).read_errors(batch)] == ["1.jpg"]


@pytest.mark.parametrize("options", [{"rule": "nearest"}, {"on_error": "ignore"}])
def test_unknown_options_are_refused_with_a_list(paths, options):
    with pytest.raises(DataError, match=r"raise|pil_bilinear"):
        ImageSource(paths, SIZE, **options)


def test_the_middle_of_the_resized_image(paths):
    (image,) = ImageSource(paths, (12, 20), crop_from=(15, 23)).read(Draw.of([0]), 0, 0, "source")["image"]
    whole = np.array(Image.fromarray(decode(paths[0])).resize((23, 15), Image.Resampling.BILINEAR))
    assert np.array_equal(image, whole[2:14, 2:22])
    with pytest.raises(DataError, match=r"crop_from.*augment"):
        ImageSource(paths, SIZE, augment=JITTER, crop_from=())


def test_headings_of_panoramas_are_refused(paths):
    with pytest.raises(ValueError, match=r"view.*NaN"):
        ImageSource(paths, SIZE).read(Draw.of([1], view=90.0), 0, 0, "source")


def soon(condition, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_workers_may_start_in_the_middle_and_end_when_the_iterator_is_closed(paths, reference):
    with contextlib.closing(batches(reader(paths), 3, 1000, threads=1, workers=2)) as iterator:
        for expected in (3, 4):
            step, batch = next(iterator)
            assert step == expected and same(batch, reference[step])
        assert len(multiprocessing.active_children()) == 2
    assert soon(lambda: not multiprocessing.active_children())


def test_no_thread_is_left_when_the_iterator_is_dropped(paths):
    before = set(threading.enumerate())
    iterator = batches(reader(paths), 0, 1000, threads=3)
    next(iterator)
    started = set(threading.enumerate()) - before
    assert started
    del iterator
    gc.collect()
    assert soon(lambda: not any(thread.is_alive() for thread in started))


class Numbers(Reader):
    """Batches of 40 numbers; a number that is in `fails` cannot be read. Counts what is being read at a time."""

    def __init__(self, fails=(), wait=lambda step, number: None):
        self.fails, self.wait, self.seen = fails, wait, []

    def images(self, step):
        return 40

    def read(self, step, number, count):
        def rows(part):
            self.seen.append((step, number, count))
            self.wait(step, number)
            if any(row in self.fails for row in range(part.start, part.stop)):
                raise KeyError(f"step {step}, {part}")
            return {"row": 100 * step + np.arange(part.start, part.stop)}

        return span("source", rows, slice(0, 38), 40, number, count)


def test_other_errors_reach_the_caller_as_they_are():
    with pytest.raises(KeyError, match="step 7"):
        list(batches(Numbers(fails=range(40)), 7, 9))


@pytest.mark.parametrize(("threads", "cut"), [(0, 1), (1, 1), (3, 3), (16, 5)])
def test_threads_share_a_batch_in_spans_of_eight_images_at_least(threads, cut):
    numbers = Numbers()
    read = list(batches(numbers, 2, 5, threads=threads))
    assert [step for step, _ in read] == [2, 3, 4]
    assert [batch["source"]["row"].tolist() for _, batch in read] == [[*range(s, s + 38)] for s in (200, 300, 400)]
    assert sorted(numbers.seen) == [(step, number, cut) for step in (2, 3, 4) for number in range(cut)]


def test_all_threads_read_the_first_batch_before_any_other():
    """Each of three threads waits for the others with its span of the first batch, then until that batch is there."""
    together, later = threading.Barrier(3), threading.Event()
    numbers = Numbers(wait=lambda step, number: later.wait(20) if step else together.wait(20))
    with contextlib.closing(batches(numbers, 0, 9, threads=3, prefetch=2)) as iterator:
        assert next(iterator)[0] == 0 and not later.is_set()
        later.set()


def test_reading_begins_before_a_batch_is_asked_for_and_stays_within_its_bound():
    numbers = Numbers()
    with contextlib.closing(batches(numbers, 0, 1000, threads=2, prefetch=3)) as iterator:
        ahead = 3 * 2 + 2  # three batches in two spans each, and a span a thread
        assert soon(lambda: len(numbers.seen) == ahead)
        time.sleep(0.05)
        assert len(numbers.seen) == ahead
        next(iterator)
        assert soon(lambda: len(numbers.seen) == ahead + 2)


def test_a_reading_that_nobody_asked_a_batch_of_ends():
    before = set(threading.enumerate())
    iterator = batches(Numbers(), 0, 1000, threads=2)
    started = set(threading.enumerate()) - before
    assert started
    iterator.close()
    assert soon(lambda: not any(thread.is_alive() for thread in started))


@settings(deadline=None)
@given(st.integers(1, 60), st.data())
def test_spans_make_up_the_part_of_a_batch(length, data):
    first = data.draw(st.integers(0, length - 1))
    stop, count = data.draw(st.integers(first + 1, length)), data.draw(st.integers(1, 20))
    found = [span("a", lambda part: {"row": np.arange(length)[part]}, slice(first, stop), length, number, count)
             for number in range(count)]  # fmt: skip
    spans = [each["a"] for each in found if each]
    assert np.concatenate([each.batch["row"] for each in spans]).tolist() == list(range(first, stop))
    assert all(each.total == stop - first and each.batch["row"][0] == first + each.start for each in spans)


@pytest.mark.parametrize("by_image", [False, True])
def test_spans_of_triplets_are_the_bytes_of_the_whole_batch(paths, by_image):
    rows = np.random.default_rng(2).integers(0, COUNT, (3, 5, 6))
    source = ImageSource(paths, SIZE, augment=JITTER, queries_only=True)
    part = slice(5, 29) if by_image else slice(1, 5)
    whole = StepReader({"source": source}, functools.partial(_triplets, rows), 3, {"source": part},
                       frozenset({"source"} if by_image else ()))  # fmt: skip
    for step, batch in batches(whole, 0, 3, threads=3):
        assert same(batch, whole(step)) and len(batch["source"]["row"]) == part.stop - part.start


def _triplets(rows, step):
    return {"source": Draw.of(rows[step], np.arange(5))}


def test_rows_of_descriptors_come_from_the_file(tmp_path):
    table = np.arange(12, dtype=np.float16).reshape(4, 3)
    np.save(tmp_path / "d.npy", table)
    batch = ArraySource(str(tmp_path / "d.npy")).read(Draw.of([[2, 0], [1, -1], [-1, -1]]), 0, 0, "s", slice(1, 3))
    assert batch["descriptor"].tolist() == [[[3, 4, 5], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]]
    assert batch["descriptor"].dtype == np.float32 and batch["mask"].tolist() == [True, False]


def test_sources_and_readers_can_be_pickled(paths, reference):
    copy = pickle.loads(pickle.dumps(functools.partial(reader(paths).__call__)))
    assert same(copy(1), reference[1])
