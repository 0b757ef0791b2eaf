"""Benchmarks of clips: which clips show one place, how clips are described, and their recall."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.clips import Cutting, cut
from data_pipelines.errors import DataError
from data_pipelines.places import Paths, Places
from jaxvpr.errors import UserError
from jaxvpr.models import Preprocess
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.retrieval import thresholds
from jaxvpr.retrieval.baselines import thumbnail
from jaxvpr.retrieval.describer import Describer
from jaxvpr.retrieval.evaluator import benchmark, measure
from jaxvpr.retrieval.protocol import line, protocol

SIZE = (12, 16)


def drive(east, role=-1, **columns):
    east = np.asarray(east, float)
    paths = Paths.of([f"{role}_{k}.png" for k in range(len(east))])
    return Places.create("drives", paths, east=east, north=0.0, frame=np.arange(len(east)), role=role, **columns)


@settings(deadline=None, max_examples=60)
@given(
    there=st.lists(st.integers(0, 40), min_size=4, max_size=12),
    asked=st.lists(st.integers(0, 40), min_size=4, max_size=8),
    lengths=st.tuples(st.integers(1, 3), st.integers(1, 3)), match=st.sampled_from(["any", "last"]),
    at_once=st.sampled_from([1, 7, 1 << 20]),
)  # fmt: skip
def test_clips_show_one_place_where_a_pair_of_frames_does(there, asked, lengths, match, at_once):
    database, queries = (cut(drive(east), n, match=match) for east, n in zip((there, asked), lengths, strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(thresholds, "PAIRS_AT_ONCE", at_once)
        found = thresholds.parse_threshold("5m")(database, queries)
    wanted = [
        [
            k
            for k, clip in enumerate(database.rows)
            if any(
                abs(there[a] - asked[b]) <= 5
                for a in (clip if match == "any" else clip[-1:])
                for b in (query if match == "any" else query[-1:])
            )
        ]
        for query in queries.rows
    ]
    assert [found[q].tolist() for q in range(len(found))] == wanted


def test_published_lists_name_images():
    clips = cut(drive(range(4)), 2)
    with pytest.raises(UserError, match=r"'list' of drives names images, not clips; use .* 'label' \(equal place\)$"):
        thresholds.parse_threshold("list")(clips, clips)


def test_a_clip_is_of_the_conditions_of_its_middle_frame():
    """Frames 2 and 6 of the queries are by night: whole clips around them are kept, the database is."""
    queries = drive(range(8), 1, condition=[2, 1, 2, 1, 1, 1, 2, 1], conditions=("day", "night"))
    both = Places.concat([drive(range(8), 0), queries])
    bench = benchmark("drives", both, "test", ("0m",), Cutting(3), ("night",))
    assert bench.query_clips.rows.tolist() == [[1, 2, 3], [5, 6, 7]] and len(bench.database_clips) == 6
    assert bench.positives["0m"][0].tolist() == [0, 1, 2, 3]
    last = benchmark("drives", both, "test", ("0m",), Cutting(3, match="last"), ("night",))
    assert last.query_clips.rows.tolist() == [[0, 1, 2], [4, 5, 6]]
    with pytest.raises(DataError, match=r"no clip of 7 frames is of the conditions \['night'\]"):
        benchmark("drives", both, "test", ("0m",), Cutting(7, stride=2), ("night",))


@pytest.fixture(scope="module")
def drives(tmp_path_factory):
    """12 database frames along a line, and 8 query frames of the same places, a little brighter."""
    folder, rng = tmp_path_factory.mktemp("drives"), np.random.default_rng(0)
    looks = rng.integers(0, 200, (12, 24, 32, 3), np.uint8)
    for role, first, count in ((0, 0, 12), (1, 2, 8)):
        for k in range(count):
            cv2.imwrite(str(folder / f"{role}_{k:02d}.png"), looks[first + k] + 40 * role)
    paths = Paths.of([f"0_{k:02d}.png" for k in range(12)] + [f"1_{k:02d}.png" for k in range(8)], folder)
    east = np.concatenate([np.arange(12), np.arange(2, 10)]) * 10.0
    frame, role = np.concatenate([np.arange(12), np.arange(8)]), np.repeat([0, 1], [12, 8])
    return Places.create("drives", paths, east=east, north=0.0, frame=frame, role=role)


def describer(preprocess, batch=2, apply=thumbnail):
    return Describer(apply, make_mesh(), preprocess, batch=batch, loading={"threads": 1, "workers": 0, "prefetch": 1})


def shown(variables, clips):
    """What a model is shown, as its descriptor."""
    return clips.reshape(len(clips), -1)


@pytest.mark.parametrize(
    "preprocess",
    [Preprocess(SIZE, "area"), Preprocess(SIZE, "tensor_linear"), Preprocess((), "pil_bilinear"),
     Preprocess((), "tensor_linear", multiple=5), Preprocess(SIZE, "tensor_linear", multiple=5, crop=True)],
)  # fmt: skip
def test_a_model_is_shown_each_frame_as_it_is_shown_the_image(drives, preprocess):
    clips = cut(drives, 3)
    describes = describer(preprocess, apply=shown)
    alone = describes({}, drives.path).descriptors
    found = describes({}, clips).descriptors
    np.testing.assert_allclose(found.reshape(len(clips), 3, -1), alone[clips.rows], atol=1e-4)
    assert describes.dimension({}, clips.take(np.arange(1))) == found.shape[1] or not preprocess.size


def test_frames_of_several_sizes_need_a_rule_of_the_host(drives, tmp_path):
    small = tmp_path / "small.png"
    cv2.imwrite(str(small), np.zeros((5, 6, 3), np.uint8))
    images = Places.create("mixed", Paths.of([drives.path[0], str(small)]), frame=np.arange(2))
    with pytest.raises(UserError, match=r"0_00.png has 24x32 pixels and .*small.png 5x6: .*Set image.size"):
        describer(Preprocess((), "tensor_linear"))({}, cut(images, 2))
    assert describer(Preprocess(SIZE, "area"))({}, cut(images, 2)).descriptors.shape == (1, 768)


def test_a_clip_with_an_unreadable_frame_is_left_out(drives, tmp_path, caplog):
    files = [drives.path[row] for row in range(4)]
    files[3] = str(tmp_path / "gone.png")
    images = Places.create("gone", Paths.of(files), frame=np.arange(4))
    describes = Describer(
        thumbnail, make_mesh(), Preprocess(SIZE, "area"), batch=1, on_error="skip",
        loading={"threads": 1, "workers": 0, "prefetch": 1},
    )  # fmt: skip
    assert describes({}, cut(images, 2)).missing.tolist() == [2]
    assert "gone.png" in caplog.text and "1 of 3 clips could not be read" in caplog.text


@pytest.mark.parametrize("task", ["seq2seq", "im2seq", "seq2im", "im2im"])
@pytest.mark.parametrize("order", ["normal", "reversed"])
def test_recall_of_clips(drives, task, order):
    bench = benchmark("drives", drives, "test", ("5m", "0m"), Cutting(3, task=task, order=order))
    found = measure(describer(Preprocess(SIZE, "area")), {}, bench, (1, 2))
    assert found.recalls["5m"].of_all[1] == 100 and found.dimension == 768
    assert len(bench.queries) == (8 if task.startswith("im") else 6)
    assert len(bench.database) == (12 if task.endswith("im") else 10)
    if task in ("seq2seq", "im2im"):  # an image looks like each clip that holds it
        assert (found.predictions[:, 0] == np.arange(len(bench.queries)) + 2).all()


def test_descriptors_that_grow_with_a_clip_do_not_serve_images_against_clips(drives):
    bench = benchmark("drives", drives, "test", ("5m",), Cutting(3, task="im2seq"))
    with pytest.raises(UserError, match=r"clips.task='im2seq' compares descriptors of 576 numbers with those of 1728"):
        measure(describer(Preprocess(SIZE, "area"), apply=shown), {}, bench, (1,))


def test_the_protocol_says_how_clips_were_cut(drives):
    bench = benchmark("drives", drives, "test", ("5m",), Cutting(3, order="reversed", metres=20))
    facts = protocol(
        dataset="drives", split="test", queries=6, database=10, positives=bench.positives, image_size=SIZE,
        resize="area", dimension=768, cutting=bench.cutting,
    )  # fmt: skip
    assert facts["clips"]["length"] == 3
    assert "10 database clips | clips of 3 frames (metres=20, order=reversed) | 5m" in line(facts, "5m")
