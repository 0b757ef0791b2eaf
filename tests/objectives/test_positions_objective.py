"""The objective of position heads: the loss of a batch by hand, noise that a seed decides, losses that do not fit."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvpr.errors import UserError
from jaxvpr.models.positions import Area, Cells, Direct, Mixture
from jaxvpr.objectives.positions import AT, Noise, noisy, positions_objective

FIELD = Area(0.0, 0.0, 100.0, 200.0, metres=True)
STILL = Noise()


def made(coding, loss, noise=STILL, **options):
    return positions_objective(coding, embed=None, images=10, batch=4, steps=5, loss=loss, options=options, noise=noise)


def value(objective, raw, at, mask, extra=None, key=0):
    @jax.jit
    def run(raw, at, mask, extra, key):
        batches = {"source": {AT: at, "mask": mask}}
        return objective.loss(extra, {}, {"source": raw}, batches, SimpleNamespace(key=key))

    numbers = (np.asarray(part, np.float32) for part in (raw, at))
    return run(*numbers, np.asarray(mask), extra or {}, jax.random.key(key))


def test_the_loss_is_the_mean_over_the_rows_that_count():
    raw, at = [[0.5, 0.5, 0.5], [0.2, 0.2, 0.0], [9, 9, 9]], [[0.5, 0.5, 0.5], [0.5, 0.6, 0.0], [0, 0, 0]]
    loss, _, told = value(made(Direct(FIELD, ending="none"), "l2"), raw, at, [True, True, False])
    assert float(loss) == pytest.approx((0.09 + 0.16) / 3 / 2, rel=1e-6) and told == {}


def test_cells_learn_their_class():
    coding = Cells(FIELD, bearing=False, cells=2)
    raw = [[0.0, 0, 0, 0], [0, 0, 5.0, 0]]
    loss, _, _ = value(made(coding, "cross_entropy"), raw, [[0.1, 0.1, np.nan], [0.9, 0.1, 0.5]], [True, True])
    assert float(loss) == pytest.approx((np.log(4) + np.log(3 + np.exp(5)) - 5) / 2, rel=1e-5)


def test_noise_moves_labels_by_metres_and_is_drawn_from_the_key_alone():
    noise, at = Noise(0.1, 0.05, 0.25), jnp.tile(jnp.array([[0.5, 0.5, 0.9]], jnp.float32), (20_000, 1))
    moved = np.asarray(noisy(jax.random.key(1), at, noise))
    np.testing.assert_allclose(moved[:, :2].mean(0), 0.5, atol=3e-3)
    np.testing.assert_allclose(moved[:, :2].std(0), [0.1, 0.05], rtol=0.03)
    turned = (moved[:, 2] - 0.9 + 0.5) % 1.0 - 0.5
    assert (moved[:, 2] >= 0).all() and (moved[:, 2] < 1).all() and turned.std() > 0.2, "a bearing stays one"
    assert np.array_equal(moved, noisy(jax.random.key(1), at, noise))
    assert not np.array_equal(moved, noisy(jax.random.key(2), at, noise))
    assert noisy(jax.random.key(1), at, STILL) is at
    losses = [
        float(value(made(Direct(FIELD), "l1", noise), at[:4], at[:4], [True] * 4, key=key)[0]) for key in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_weights_that_the_loss_learns_are_told():
    objective = made(Direct(FIELD, ending="none"), "weighted")
    extra, _ = objective.init(jax.random.key(0), 3)
    assert extra["weights"].shape == (1, 2), "one slot, as heads have"
    one = {name: leaf[0] for name, leaf in extra.items()}
    loss, _, told = value(objective, [[0.5, 0.5, 0.5]], [[0.5, 0.5, 0.5]], [True], one)
    assert set(told) == {"weight_0", "weight_1"}
    assert float(loss) == pytest.approx(2 * 0.25, rel=1e-6), "the squares of both, 0.5 at the start"
    assert made(Direct(FIELD), "l2").init(jax.random.key(0), 3)[0] == {}


def test_a_pass_shows_every_image_once():
    """10 images in batches of 4: the third batch ends the first pass and begins the next."""
    plan, _ = made(Direct(FIELD), "l2").plan(0, np.random.default_rng(0), {}, None)
    rows = plan.draws["source"].rows.reshape(-1)
    assert len(rows) == 20 and sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))


@pytest.mark.parametrize(
    ("coding", "loss", "options", "words"),
    [
        (Cells(FIELD), "l2", {}, r"objective\.loss: "),
        (Direct(FIELD), "cross_entropy", {}, r"objective\.loss: "),
        (Mixture(FIELD), "haversine", {}, r"objective\.loss: "),
        (Direct(FIELD), "nearest", {}, r"objective\.loss: "),
        (Direct(FIELD), "l2", {"smoothing": 0.1}, r"objective\.loss_options: l2 has no \['smoothing'\]; there are"),
    ],
)
def test_a_loss_that_does_not_go_with_the_head(coding, loss, options, words):
    with pytest.raises(UserError, match=words):
        made(coding, loss, **options)
