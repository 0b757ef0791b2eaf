"""Clips ranked by the differences of their frames, from files to recalls and to the protocol line."""

import cv2
import numpy as np
import pytest

from data_pipelines.clips import Cutting
from data_pipelines.places import Paths, Places
from jaxvpr import builders
from jaxvpr.cli import checks
from jaxvpr.cli.recipes import load_config
from jaxvpr.errors import UserError
from jaxvpr.models import Preprocess
from jaxvpr.parallel.mesh import make_mesh
from jaxvpr.retrieval.baselines import thumbnail
from jaxvpr.retrieval.describer import Describer
from jaxvpr.retrieval.evaluator import benchmark, measure
from jaxvpr.retrieval.protocol import EXACT
from jaxvpr.retrieval.sequence_search import Score

LENGTHS = (20, 9)  # frames of the two drives of the database; the queries see the first one's 4 to 15 again


@pytest.fixture(scope="module")
def drives(tmp_path_factory):
    """Frames in an order that is not theirs, queries with much noise."""
    folder, rng = tmp_path_factory.mktemp("drives"), np.random.default_rng(0)
    looks = rng.integers(0, 256, (sum(LENGTHS), 24, 32, 3))
    noise = rng.integers(-3000, 3000, (12, 24, 32, 3))
    images = np.concatenate([looks, looks[4:16] + noise]).clip(0, 255).astype(np.uint8)
    sequence = np.repeat([0, 1, 0], [*LENGTHS, 12])
    frame, role = np.concatenate([np.arange(n) for n in (*LENGTHS, 12)]), np.repeat([0, 0, 1], [*LENGTHS, 12])
    east = np.concatenate([np.arange(20), 900 + np.arange(9), np.arange(4, 16)]) * 10.0
    names = [f"{r}_{s}_{f:02d}.png" for r, s, f in zip(role, sequence, frame, strict=True)]
    for name, image in zip(names, images, strict=True):
        cv2.imwrite(str(folder / name), image)
    made = Places.create(
        "drives", Paths.of(names, folder), east=east, north=0.0, sequence=sequence, frame=frame, role=role
    )
    return made.take(rng.permutation(len(made)))


DESCRIBES = Describer(
    thumbnail, make_mesh(), Preprocess((24, 32), "area"), batch=8, on_error="skip",
    loading={"threads": 1, "workers": 0, "prefetch": 1},
)  # fmt: skip


def literal(bench, velocities, missing=()):
    """Mean distances along the best trajectory [Q, C], by looking frames up by their numbers."""
    database, queries = (
        {
            (int(side.images.sequence[row]), int(side.images.frame[row])): vector
            for row, vector in enumerate(DESCRIBES({}, side.images.path).descriptors)
            if side.images.path[row] not in missing
        }
        for side in (bench.database_clips, bench.query_clips)
    )
    found = np.full((len(bench.queries), len(bench.database)), np.inf)
    for query, clip in np.ndindex(found.shape):
        asked, there = bench.query_clips, bench.database_clips
        key, drive = int(there.images.frame[there.key[clip]]), int(there.images.sequence[there.key[clip]])
        steps = there.images.frame[there.rows[clip]] - key
        for velocity in velocities:
            ends = sorted({0, *(round(float(velocity * step)) for step in steps)})
            way = [(drive, key + round(float(velocity * step))) for step in steps]
            between = [(drive, key + step) for step in range(ends[0], ends[-1] + 1)]
            frames = [(0, int(asked.images.frame[row])) for row in asked.rows[query]]
            if all(one in database for one in between) and all(one in queries for one in frames):
                apart = [np.linalg.norm(database[a] - queries[b]) for a, b in zip(way, frames, strict=True)]
                found[query, clip] = min(found[query, clip], np.mean(apart))
    return found


@pytest.mark.parametrize(
    ("cutting", "score"),
    [
        (Cutting(4), Score("average")),
        (Cutting(3, every=2, stride=2, match="last"), Score("seqslam", velocity=(0.5, 1.5), velocities=3, window=0)),
        (Cutting(4, order="reversed"), Score("seqslam", velocity=(-1, -1), velocities=1, window=0)),
    ],
)
def test_clips_are_ranked_by_their_frames(drives, cutting, score):
    bench = benchmark("drives", drives, "test", ("0m",), cutting)
    k = len(bench.database)
    found = measure(DESCRIBES, {}, bench, (1, k), score=score)
    expected = literal(bench, np.linspace(*score.velocity, score.velocities) if score.score == "seqslam" else [1])
    np.testing.assert_allclose(found.distances, np.sort(expected, axis=1), atol=1e-4)
    listed = np.take_along_axis(expected, found.predictions, 1)  # -1, the last, where no trajectory stays in its drive
    np.testing.assert_allclose(np.where(found.predictions < 0, np.inf, listed), found.distances, atol=1e-4)
    assert found.index == score.said and found.dimension == 768 and found.matching_ms > 0


def test_average_beats_images_and_its_order_counts(drives):
    def right(**keys):
        bench = benchmark("drives", drives, "test", ("0m",), Cutting(match="last", **keys))
        return measure(DESCRIBES, {}, bench, (1,), score=Score("average")).recalls["0m"].of_all[1]

    assert right(length=5) > right(length=1) > 0 and right(length=5, order="reversed") < right(length=5)


def test_clips_with_an_unreadable_frame_are_left_out(drives, tmp_path):
    gone = [str(tmp_path / "0_0_08.png"), str(tmp_path / "1_0_02.png")]
    files = [
        str(tmp_path / path[-10:]) if path.endswith(("0_0_08.png", "1_0_02.png")) else path for path in drives.path
    ]
    columns = {name: getattr(drives, name) for name in ("east", "sequence", "frame", "role")}
    lost = Places.create("lost", Paths.of(files), north=0.0, **columns)
    bench = benchmark("lost", lost, "test", ("0m",), Cutting(3))
    k = len(bench.database)
    found = measure(DESCRIBES, {}, bench, (1, k), score=Score("seqslam", velocity=(0, 1), velocities=2, window=0))
    assert found.missing == 2
    expected = literal(bench, [0, 1], gone)
    known = np.isfinite(expected).any(axis=1)
    assert (found.predictions[~known] == -1).all() and known.sum() == len(bench.queries) - 3
    np.testing.assert_allclose(found.distances[known], np.sort(expected, axis=1)[known], atol=1e-4)
    with_it = np.flatnonzero(np.isinf(expected[known][0]))
    assert len(with_it) > 0 and not np.isin(found.predictions, with_it).any()


def test_two_stages(drives):
    bench = benchmark("drives", drives, "test", ("0m",), Cutting(4))
    k = len(bench.database)
    average, plain = (measure(DESCRIBES, {}, bench, (1, k), score=Score(name)) for name in ("average", ""))
    assert plain.index == EXACT and (average.predictions != plain.predictions).any()
    for top in (k, 10 * k):
        whole = measure(DESCRIBES, {}, bench, (1, k), score=Score("two_stage", top=top))
        np.testing.assert_array_equal(whole.predictions, average.predictions)
    found = measure(DESCRIBES, {}, bench, (1, 4), score=Score("two_stage", top=6))
    rank = np.argsort(average.predictions, axis=1)
    for query, first in enumerate(plain.predictions[:, :6]):
        assert found.predictions[query].tolist() == sorted(first, key=lambda clip: rank[query, clip])[:4]
    found = measure(DESCRIBES, {}, bench, (1, k), score=Score("two_stage", top=2))
    np.testing.assert_array_equal(found.predictions[:, 2:], plain.predictions[:, 2:])
    assert found.index == "flat L2, of it the first 2 by mean distance of aligned frames"


def test_images_are_compared_as_they_are(drives):
    bench = benchmark("drives", drives, "test", ("0m",))
    assert measure(DESCRIBES, {}, bench, (1,), score=Score("average")).index == EXACT


@pytest.mark.parametrize(
    ("cutting", "score", "message"),
    [
        (Cutting(4, task="im2seq"), Score("average"), "queries have 1 frames, those of the database 4.*seq2seq"),
        (Cutting(4, task="seq2im"), Score("two_stage"), "queries have 4 frames, those of the database 1"),
        (Cutting(4, order="shuffled"), Score("seqslam"), "needs the frames of all clips in one order.*'shuffled'"),
        (Cutting(4, order="shuffled"), Score("two_stage"), "needs the frames of all clips in one order.*'shuffled'"),
        (Cutting(4), Score("seqslam", velocity=(9, 10)), r"velocity=\(9, 10\) leaves every drive.*pass 28 .*has 20\)"),
    ],
)
def test_what_no_score_can_compare_is_refused(drives, cutting, score, message):
    bench = benchmark("drives", drives, "test", ("0m",), cutting)
    with pytest.raises(UserError, match=f"drives: eval.sequence.*{message}"):
        measure(DESCRIBES, {}, bench, (1,), score=score)


def test_keys_that_make_no_sense(refused, tiny_recipe):
    for change, message in (
        ("score=mean", "score='mean' does not exist; there are"),
        ("velocities=0", "velocities=0 must be at least 1"),
        ("velocity=(2.0,1.0)", r"velocity=(2.0, 1.0) must be (least, greatest)"),
        ("score=average,eval.search=mesh", "needs all of its frames on each"),
    ):
        said = refused("evaluate", f"--config={tiny_recipe},eval.sequence.{change}")
        assert message in said and "config.eval.se" in said


def test_a_recall_carries_its_score(door, tiny_recipe, trained_run, tmp_path):
    folder, rng = tmp_path / "frames", np.random.default_rng(0)
    for name in ("summer", "winter"):
        (folder / name).mkdir(parents=True)
        for number in range(12):
            cv2.imwrite(str(folder / name / f"{number:02d}.png"), rng.integers(0, 256, (24, 32, 3), np.uint8))
    line = {"reader": "frames", "root": str(folder), "thresholds": ("1frame",)}
    config = f"{tiny_recipe},test_data={ {'line': line} },test_data.line.clips.length=3"
    config += ",eval.sequence.score=seqslam,eval.baselines=false"
    status, out, err = door("evaluate", f"--config={config}", f"--workdir={trained_run}", f"--out={tmp_path / 'out'}")
    assert status == 0, err
    said = "10 database clips | clips of 3 frames | 1frame"
    assert said in out and "| SeqSLAM, 5 velocities 0.8 to 1.2, contrast over 10 frames (exact)" in out


@pytest.mark.long
@pytest.mark.parametrize(("score", "expected"), [("average", {1: 11.6, 20: 72.3}), ("seqslam", {1: 0.8, 20: 82.2})])
def test_recall_climbs_on_a_real_railway(real_data, score, expected):
    """Thumbnails of Nordland: what docs/results.md says of them."""
    for length, right in expected.items():
        config = load_config(f"configs/sequence_baselines.py:nordland_trained,eval.sequence.score={score}").unlock()
        spec = config.test_data[f"frames_{length:02d}"]
        spec.root = str(real_data / "nordland_64x32")
        config.test_data = {"line": spec}
        [bench] = builders.benchmarks(config, config.test_data)
        found = measure(
            builders.describer(config, make_mesh()), {}, bench, (1,), thumbnail, score=builders.score(config)
        )
        assert found.recalls["1frame"].of_all[1] == pytest.approx(right, abs=0.1)


def test_a_recipe_of_before_the_keys_measures_as_it_did(tiny_config):
    with tiny_config.unlocked():
        del tiny_config.eval["sequence"]
    checks.check(tiny_config)
    assert builders.score(tiny_config) == Score() and not Score().of_frames
