"""Losses and miners against pytorch-metric-learning, where that is installed: values, gradients, kept pairs."""

import jax
import numpy as np
import pytest

from jaxvpr.losses.compared import compare
from jaxvpr.losses.margins import subcenter_arcface
from jaxvpr.losses.measures import References
from jaxvpr.losses.metric import mine, place_loss
from jaxvpr.losses.pairs import PAIR_LOSSES

pytest.importorskip("pytorch_metric_learning")
import torch
from pytorch_metric_learning import distances, losses, miners

pytestmark = pytest.mark.torch

RNG = np.random.default_rng(4)
X = RNG.normal(size=(16, 6)).astype(np.float32)
UNEQUAL = RNG.permutation(np.repeat(np.arange(5), (2, 3, 3, 4, 4))).astype(np.int32)
SQUARE = np.repeat(np.arange(4), 4).astype(np.int32)
BATCHES = {
    "random": (X, UNEQUAL),
    "square": (X, SQUARE),
    "one class": (X, np.zeros(16, np.int32)),
    "no positive": (X, np.arange(16, dtype=np.int32)),
    "identical": (np.tile(X[:1], (16, 1)), SQUARE),
}
COSINE = {"distance": distances.CosineSimilarity()}
LOSSES = {
    "contrastive": ("contrastive", {}, losses.ContrastiveLoss()),
    "contrastive on cosines": (
        "contrastive",
        {"positive_margin": 0.7, "negative_margin": 0.3, "distance": "cosine"},
        losses.ContrastiveLoss(0.7, 0.3, **COSINE),
    ),
    "triplet": ("triplet", {}, losses.TripletMarginLoss()),
    "triplet on cosines": ("triplet", {"margin": 0.3, "distance": "cosine"}, losses.TripletMarginLoss(0.3, **COSINE)),
    "multi-similarity": ("multi_similarity", {}, losses.MultiSimilarityLoss()),
    "GSV-Cities": (
        "multi_similarity",
        {"alpha": 1, "beta": 50, "base": 0},
        losses.MultiSimilarityLoss(1.0, 50, 0.0, distance=distances.DotProductSimilarity()),
    ),
    "circle": ("circle", {}, losses.CircleLoss()),
    "lifted": ("lifted_structure", {}, losses.LiftedStructureLoss()),
    "lifted on cosines": (
        "lifted_structure",
        {"positive_margin": 1, "negative_margin": 0, "distance": "cosine"},
        losses.LiftedStructureLoss(0, 1, **COSINE),
    ),
    "generalised lifted": ("generalised_lifted", {}, losses.GeneralizedLiftedStructureLoss()),
    "GSV-Cities' lifted": (
        "generalised_lifted",
        {"positive_margin": 1, "negative_margin": 0, "distance": "cosine"},
        losses.GeneralizedLiftedStructureLoss(0, 1, distance=distances.DotProductSimilarity()),
    ),
    "N-pairs": ("n_pairs", {}, losses.NPairsLoss()),
    "NT-Xent": ("nt_xent", {}, losses.NTXentLoss()),
    "SupCon": ("supcon", {}, losses.SupConLoss()),
    "FastAP": ("fast_ap", {}, losses.FastAPLoss()),
    "Smooth-AP": ("smooth_ap", {"temperature": 0.1}, losses.SmoothAPLoss(temperature=0.1)),
}
MINERS = {
    "none": ("none", {}, None),
    "multi-similarity": ("multi_similarity", {}, miners.MultiSimilarityMiner()),
    "pair margin": ("pair_margin", {}, miners.PairMarginMiner(**COSINE)),
    "GSV-Cities' pair margin": (
        "pair_margin",
        {"positive": 0.7, "negative": 0.3},
        miners.PairMarginMiner(0.7, 0.3, distance=distances.DotProductSimilarity()),
    ),
    "Euclidean pair margin": ("pair_margin", {"positive": 1, "distance": "euclidean"}, miners.PairMarginMiner(1, 0.8)),
    "batch hard": ("batch_hard", {}, miners.BatchHardMiner()),
}
STRATEGIES = [
    (positive, negative)
    for positive in ("hard", "semihard", "easy", "all")
    for negative in ("hard", "semihard", "easy", "all")
    if "semihard" not in (positive, negative) or {positive, negative} & {"hard", "easy"}
]


def theirs(x, labels, loss, miner=None):
    """Value and gradient of the library, in float64."""
    x = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor(labels).long()
    value = loss(x, labels, None if miner is None else miner(x, labels))
    value.backward()
    return value.item(), np.zeros(x.shape) if x.grad is None else x.grad.numpy()


def ours(x, labels, mask=None, **options):
    return jax.jit(jax.value_and_grad(lambda x: place_loss(x, labels, mask, **options)))(x)


def assert_same(mine, library):
    np.testing.assert_allclose(mine[0], library[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(mine[1], library[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_values_and_gradients(loss):
    """All batches in one program: every one, and one whose last five rows are padding."""
    name, options, library = LOSSES[loss]
    batches = dict(BATCHES, padded=(np.concatenate([X[:11], np.full((5, 6), 3, np.float32)]), UNEQUAL))
    masks = {key: np.arange(16) < (11 if key == "padded" else 16) for key in batches}
    if name == "smooth_ap":  # The library takes as many places as images a place, no other batch.
        batches = {key: (batches["square"][0], SQUARE) if key != "identical" else batches[key] for key in batches}
        masks["padded"] = np.arange(16) % 4 < 3
        masks["padded"][12:] = False
    x, labels = (np.stack(part) for part in zip(*batches.values(), strict=True))
    run = jax.value_and_grad(lambda *batch: place_loss(*batch, loss=name, loss_options=options))
    values, gradients = jax.jit(jax.vmap(run))(x, labels, np.stack(list(masks.values())))
    for (here, places), mask, value, gradient in zip(batches.values(), masks.values(), values, gradients, strict=True):
        assert_same((value, gradient[mask]), theirs(here[mask], places[mask], library))
        assert not np.any(gradient[~mask])


@pytest.mark.parametrize("loss", [key for key in LOSSES if key not in ("N-pairs", "FastAP", "Smooth-AP")])
def test_the_pairs_of_every_miner(loss):
    name, options, library = LOSSES[loss]
    pairs = [mine(compare(X, UNEQUAL), miner=miner, miner_options=how) for miner, how, _ in MINERS.values()]
    pairs = jax.tree.map(lambda *masks: np.stack(masks), *pairs)
    run = jax.value_and_grad(
        lambda x, pairs: PAIR_LOSSES[name][0](
            compare(x, UNEQUAL)._replace(pairs=pairs), **{**PAIR_LOSSES[name][1], **options}
        )
    )
    values, gradients = jax.jit(jax.vmap(run, (None, 0)))(X, pairs)
    for value, gradient, (_, _, miner) in zip(values, gradients, MINERS.values(), strict=True):
        assert_same((value, gradient), theirs(X, UNEQUAL, library, miner))


@pytest.mark.parametrize("miner", MINERS)
def test_a_ranking_loss_weighs_rows_as_the_miner_found_them(miner):
    name, options, their_miner = MINERS[miner]
    got = ours(X, UNEQUAL, loss="fast_ap", miner=name, miner_options=options)
    assert_same(got, theirs(X, UNEQUAL, losses.FastAPLoss(), their_miner))


def kept(their_miner, x, labels):
    """The library's pairs as masks."""
    found = their_miner(torch.tensor(x, dtype=torch.float64), torch.tensor(labels).long())
    anchors = found[0], (found[0] if len(found) == 3 else found[2])
    masks = np.zeros((2, len(x), len(x)), bool)
    for mask, rows, columns in zip(masks, anchors, (found[1], found[-1]), strict=True):
        mask[rows.numpy(), columns.numpy()] = True
    return masks


@pytest.mark.parametrize("miner", [key for key in MINERS if key != "none"])
def test_miners_keep_the_same_pairs(miner):
    name, options, library = MINERS[miner]
    for batch in ("random", "square", "one class", "no positive"):
        got = mine(compare(*BATCHES[batch]), miner=name, miner_options=options)
        np.testing.assert_array_equal(got, kept(library, *BATCHES[batch]))


@pytest.mark.parametrize(("positive", "negative"), STRATEGIES)
def test_strategies_keep_the_same_pairs(positive, negative):
    got = mine(compare(X, UNEQUAL), miner="batch_easy_hard", miner_options={"positive": positive, "negative": negative})
    np.testing.assert_array_equal(got, kept(miners.BatchEasyHardMiner(positive, negative), X, UNEQUAL))


@pytest.mark.parametrize("choice", ["all", "hard", "semihard"])
def test_triplets_of_each_kind(choice):
    got = ours(X, UNEQUAL, loss="triplet", loss_options={"margin": 0.2, "choice": choice})
    miner = miners.TripletMarginMiner(0.2, type_of_triplets=choice)
    assert_same(got, theirs(X, UNEQUAL, losses.TripletMarginLoss(0.2), miner))


@pytest.mark.parametrize(
    ("loss", "miner"),
    [("contrastive", "none"), ("triplet", "none"), ("GSV-Cities", "multi-similarity"), ("NT-Xent", "multi-similarity")],
)
def test_cross_batch_memory(loss, miner):
    (name, options, library), (mined, how, their_miner) = LOSSES[loss], MINERS[miner]
    memory = losses.CrossBatchMemory(library, 6, memory_size=40, miner=their_miner)
    before = RNG.normal(size=X.shape).astype(np.float32)
    memory(torch.tensor(before), torch.tensor(SQUARE).long())
    x = torch.tensor(X, requires_grad=True)
    value = memory(x, torch.tensor(UNEQUAL).long())
    value.backward()
    references = References(
        np.concatenate([before, X]), np.concatenate([SQUARE, UNEQUAL]), own=np.arange(16, 32, dtype=np.int32)
    )
    got = ours(X, UNEQUAL, loss=name, loss_options=options, miner=mined, miner_options=how, references=references)
    assert_same(got, (value.item(), x.grad.numpy()))


def test_subcenter_arcface():
    library = losses.SubCenterArcFaceLoss(num_classes=5, embedding_size=6, margin=28.6, scale=64, sub_centers=3)
    x = torch.tensor(X, requires_grad=True)
    value = library(x, torch.tensor(UNEQUAL).long())
    value.backward()
    w = library.W.detach().numpy().T.reshape(5, 3, 6)

    def run(x, w):
        return subcenter_arcface(x, UNEQUAL, w, scale=64.0, margin=np.float32(np.radians(28.6)))

    got, (gx, gw) = jax.jit(jax.value_and_grad(run, (0, 1)))(X, w)
    np.testing.assert_allclose(got, value.item(), rtol=1e-5)
    np.testing.assert_allclose(gx, x.grad.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gw, library.W.grad.numpy().T.reshape(5, 3, 6), rtol=1e-5, atol=1e-5)
