"""Miners by hand and against literal loops; the weights of rows; losses and miners by name, and over devices."""

import jax
import loss_loops
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxvpr.losses import metric
from jaxvpr.losses.compared import Pairs, all_pairs, compare
from jaxvpr.losses.measures import References
from jaxvpr.losses.metric import mine, place_loss
from jaxvpr.losses.miners import MINERS, batch_easy_hard, pair_margin, row_weights

RNG = np.random.default_rng(7)
X = RNG.normal(size=(16, 5)).astype(np.float32)
Y = RNG.permutation(np.repeat(np.arange(6), (1, 2, 2, 3, 4, 4))).astype(np.int32)
MASK = np.arange(16) % 7 != 3
STRATEGIES = [
    (positive, negative)
    for positive in ("hard", "semihard", "easy", "all")
    for negative in ("hard", "semihard", "easy", "all")
    if "semihard" not in (positive, negative) or {positive, negative} & {"hard", "easy"}
]


def test_all_pairs_by_hand():
    positive, negative = all_pairs(np.array([3, 3, 5, 3], np.int32), np.array([True, True, True, False]))
    np.testing.assert_array_equal(positive, np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], bool))
    np.testing.assert_array_equal(negative, np.array([[0, 0, 1, 0], [0, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]], bool))


def test_pairs_with_a_memory_by_hand():
    """The second element is the memory's third; the memory's last place is not filled yet."""
    memory = References(
        np.zeros((4, 2), np.float32),
        np.array([7, 8, 8, 0], np.int32),
        np.array([True, True, True, False]),
        np.array([-1, 2], np.int32),
    )
    positive, negative = all_pairs(np.array([7, 8], np.int32), None, memory)
    np.testing.assert_array_equal(positive, np.array([[1, 0, 0, 0], [0, 1, 0, 0]], bool))
    np.testing.assert_array_equal(negative, np.array([[0, 1, 1, 0], [1, 0, 0, 0]], bool))


# One anchor: cosines with its positives 0.9, 0.5 and 0.1, with its negatives 0.85, 0.45 and -0.3.
SIMILARITY = np.array([[0.9, 0.5, 0.1, 0.85, 0.45, -0.3]], np.float32)
EVERY = Pairs(np.arange(6)[None] < 3, np.arange(6)[None] >= 3)


@pytest.mark.parametrize(
    ("miner", "options", "kept"),
    [
        ("none", {}, [0, 1, 2, 3, 4, 5]),
        ("multi_similarity", {"epsilon": 0.1}, [0, 1, 2, 3, 4]),
        ("multi_similarity", {"epsilon": -0.4}, [2, 3]),
        ("pair_margin", {"positive": 0.2, "negative": 0.8, "distance": "cosine"}, [2, 3]),
        ("pair_margin", {"positive": 0.7, "negative": 0.3, "distance": "cosine"}, [1, 2, 3, 4]),
        ("pair_margin", {"positive": 0.5, "negative": 1.2, "distance": "euclidean"}, [1, 2, 3, 4]),
        ("batch_hard", {}, [2, 3]),
        ("batch_easy_hard", {"positive": "easy", "negative": "semihard"}, [0, 3]),
        ("batch_easy_hard", {"positive": "hard", "negative": "semihard"}, [2, 5]),
        ("batch_easy_hard", {"positive": "semihard", "negative": "hard"}, [0, 3]),
        ("batch_easy_hard", {"positive": "semihard", "negative": "easy"}, [2, 5]),
        ("batch_easy_hard", {"positive": "all", "negative": "easy"}, [0, 1, 2, 5]),
    ],
)
def test_one_anchor_by_hand(miner, options, kept):
    positive, negative = MINERS[miner][0](SIMILARITY, EVERY, **options)
    np.testing.assert_array_equal(np.flatnonzero(positive | negative), kept)
    assert not np.any(positive & ~EVERY.positive) and not np.any(negative & ~EVERY.negative)


@pytest.mark.parametrize(
    ("miner", "options", "loop"),
    [
        ("multi_similarity", {"epsilon": 0.1}, loss_loops.mined_multi_similarity),
        ("pair_margin", {"positive": 0.7, "negative": 0.3, "distance": "cosine"}, loss_loops.mined_pair_margin),
        ("pair_margin", {"positive": 1.1, "negative": 1.2, "distance": "euclidean"}, loss_loops.mined_pair_margin),
        *(("batch_easy_hard", {"positive": p, "negative": n}, loss_loops.mined_easy_hard) for p, n in STRATEGIES),
    ],
)
def test_miners_are_literal_loops(miner, options, loop):
    """On rows with and without positives, masked rows, and a batch of one class."""
    for labels in (Y, 0 * Y, np.arange(16, dtype=np.int32)):
        p, n = loss_loops.lists(labels, MASK)
        expected = np.zeros((2, 16, 16), bool)
        for table, rows in zip(expected, loop(loss_loops.cosines(X.astype(float)), p, n, options), strict=True):
            for i, row in enumerate(rows):
                table[i, row] = True
        np.testing.assert_array_equal(mine(compare(X, labels, MASK), miner=miner, miner_options=options), expected)


def test_batch_hard_is_both_hard():
    hard = mine(compare(X, Y), miner="batch_easy_hard", miner_options={"positive": "hard", "negative": "hard"})
    np.testing.assert_array_equal(mine(compare(X, Y), miner="batch_hard"), hard)
    assert np.array_equal(hard.positive.sum(1), hard.negative.sum(1)) and hard.positive.sum() == 15


def test_weights_of_rows_by_hand():
    """Pairs (0, 1) positive, (0, 2) and (1, 2) negative: 0 stands in two, 1 in two, 2 in two, 3 in none."""
    tables = np.zeros((2, 4, 4), bool)
    tables[0, 0, 1] = tables[1, 0, 2] = tables[1, 1, 2] = True
    pairs = Pairs(*tables)
    np.testing.assert_array_equal(row_weights(pairs), [1, 1, 1, 0])
    np.testing.assert_array_equal(row_weights(pairs, triplets=True), np.array([1, 1, 2, 0]) / 2)
    np.testing.assert_array_equal(row_weights(pairs, symmetric=False), [1, 0.5, 0, 0])
    np.testing.assert_array_equal(row_weights(Pairs(*(0 * tables).astype(bool))), np.ones(4))


def test_what_is_not_known_is_refused_with_what_is():
    with pytest.raises(ValueError, match=r"loss.*'hinge'.*contrastive, triplet, .*listwise_ap"):
        place_loss(X, Y, loss="hinge")
    with pytest.raises(ValueError, match=r"miner.*'hardest'.*none, multi_similarity, pair_margin"):
        place_loss(X, Y, loss="circle", miner="hardest")
    with pytest.raises(ValueError, match=r"loss.*'circle'.*option.*\bmargin\b.*\bm, gamma"):
        place_loss(X, Y, loss="circle", loss_options={"margin": 1})
    with pytest.raises(ValueError, match=r"miner.*'batch_hard'.*option.*\bepsilon\b.*\bnone\b"):
        place_loss(X, Y, loss="circle", miner="batch_hard", miner_options={"epsilon": 1})
    with pytest.raises(ValueError, match=r"triplets.*'soft'.*all, hard, semihard"):
        place_loss(X, Y, loss="triplet", loss_options={"choice": "soft"})
    with pytest.raises(ValueError, match=r"distance.*'manhattan'.*euclidean, cosine"):
        pair_margin(SIMILARITY, EVERY, positive=0, negative=1, distance="manhattan")
    with pytest.raises(ValueError, match=r"strategy.*'soft'.*hard, semihard, easy, all"):
        batch_easy_hard(SIMILARITY, EVERY, positive="soft", negative="hard")
    with pytest.raises(ValueError, match=r"positive.*'all'.*negative.*'semihard'"):
        batch_easy_hard(SIMILARITY, EVERY, positive="all", negative="semihard")


def test_shapes_that_do_not_fit_are_errors():
    with pytest.raises(ValueError, match=r"labels \(15,\).*\[16\]"):
        place_loss(X, Y[:15], loss="circle")
    with pytest.raises(ValueError, match=r"mask \(15,\).*\(16,\)"):
        place_loss(X, Y, MASK[:15], loss="circle")
    with pytest.raises(ValueError, match=r"references \(16, 4\).*\[B, D\].*\[M, D\]"):
        place_loss(X, Y, loss="circle", references=References(X[:, :4], Y))
    with pytest.raises(ValueError, match=r"references.*labels \(15,\).*\[16\]"):
        place_loss(X, Y, loss="circle", references=References(X, Y[:15]))
    with pytest.raises(ValueError, match=r"references.*mask \(15,\).*\(16,\)"):
        place_loss(X, Y, loss="circle", references=References(X, Y, MASK[:15]))
    with pytest.raises(ValueError, match=r"\bown \(15,\).*\(16,\)"):
        place_loss(X, Y, loss="circle", references=References(X, Y, None, Y[:15]))


def test_a_batch_over_eight_devices_is_one_batch():
    """Descriptors are split over `data`; each element meets those of the other devices in chunks, gathers and sums."""
    if jax.device_count() < 8:
        pytest.skip("needs eight (simulated) devices")
    rows = NamedSharding(jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,)), PartitionSpec("data"))
    pairs = {"triplet": "none", "multi_similarity": "multi_similarity", "n_pairs": "none", "fast_ap": "batch_hard"}

    def run(x, labels, mask):
        values = {loss: place_loss(x, labels, mask, loss=loss, miner=miner) for loss, miner in pairs.items()}
        return sum(values.values()), values

    step = jax.value_and_grad(run, has_aux=True)
    sharded = jax.jit(step, in_shardings=(rows,) * 3).lower(X, Y, MASK).compile()
    assert sharded.output_shardings[1].is_equivalent_to(rows, 2)
    ours, plain = jax.device_get((sharded(X, Y, MASK), jax.jit(step)(X, Y, MASK)))
    assert all(value > 0 for value in plain[0][1].values())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, plain)


def test_a_loss_of_ones_own_sees_the_pairs_that_the_miner_kept(monkeypatch):
    """Four places of two: each of the 8 rows has 6 negatives without a miner, and its hardest alone with one."""
    monkeypatch.setitem(metric.LOSSES, "mine", (lambda batch: batch.pairs.negative.sum().astype("float32"), {}))
    z = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    kept = {miner: float(metric.place_loss(z, np.arange(8) // 2, loss="mine", miner=miner)) for miner in MINERS}
    assert (kept["none"], kept["batch_hard"]) == (48, 8)
