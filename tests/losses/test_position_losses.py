"""Losses of positions: by hand, against SciPy, and gradients that stay finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxvpr.losses import positions
from jaxvpr.losses.positions import LEARNED_START, LOSSES, loss_for
from jaxvpr.models.positions import Cells, Direct, Hypersphere, Mixture, area, haversine, located

CITY = area((37.70, -122.50, 37.79, -122.387))
FIELD = area((0, 0, 100, 200), metres=True)
PLAIN = Direct(FIELD, ending="none")
RNG = np.random.default_rng(0)


def of(loss, raw, at, coding, *learned, **options):
    function = jax.jit(lambda raw, at: LOSSES[loss].function(raw, at, coding, *learned, **options))
    return np.asarray(function(np.asarray(raw, np.float32), np.asarray(at, np.float32)))


def test_l2_and_l1_by_hand():
    """The mean over three numbers, and over two where the bearing is not known."""
    raw, at = [[0.5, 0.2, 0.9]] * 2, [[0.4, 0.4, 0.1], [0.4, 0.4, np.nan]]
    np.testing.assert_allclose(of("l2", raw, at, PLAIN), [(0.01 + 0.04 + 0.64) / 3, 0.05 / 2], rtol=1e-5)
    np.testing.assert_allclose(of("l1", raw, at, PLAIN), [1.1 / 3, 0.3 / 2], rtol=1e-5)
    np.testing.assert_allclose(of("l2", raw, at, PLAIN, wrap=True), [(0.01 + 0.04 + 0.04) / 3, 0.05 / 2], rtol=1e-5)
    np.testing.assert_allclose(of("l1", raw, at, PLAIN, wrap=True), [0.5 / 3, 0.3 / 2], rtol=1e-5)
    flat = Direct(FIELD, bearing=False, ending="none")
    np.testing.assert_allclose(of("l2", np.array(raw)[:, :2], at, flat), [0.05 / 2] * 2, rtol=1e-5)


def test_endings_stand_before_the_loss():
    at = [[0.75, 0.25, 0.5]]
    assert of("l2", [[np.log(3), -np.log(3), 0]], at, Direct(FIELD))[0] == pytest.approx(0, abs=1e-12)
    assert of("l2", [[0, 0, 0]], at, Direct(FIELD, ending="softmax"))[0] == pytest.approx(
        ((0.75 - 1 / 3) ** 2 + (1 / 3 - 0.25) ** 2 + (0.5 - 1 / 3) ** 2) / 3, rel=1e-5
    )


def test_the_hypersphere_without_a_bearing_compares_what_it_knows():
    """Two answers at the right place that look elsewhere: no loss where nobody knows where to."""
    coding = Hypersphere(CITY)
    at = np.array([[0.3, 0.6, 0.2], [0.3, 0.6, 0.7], [0.8, 0.1, 0.2]])
    raw, blind = 3 * coding.encode(at), np.array([[0.3, 0.6, np.nan]] * 3)
    np.testing.assert_allclose(of("l2", raw[:2], blind[:2], coding), 0, atol=1e-12)
    assert of("l2", raw[1:2], at[:1], coding)[0] > 0.1
    point = coding.encode(at)
    across = np.hypot(point[:, 1], point[:, 2])
    away = np.array([point[2, 0] - point[0, 0], across[2] - across[0], point[2, 3] - point[0, 3]])
    found = of("l2", raw[2:], blind[2:], coding)[0]
    assert found == pytest.approx(np.mean(away**2), rel=0.02), "differences of 1e-3 with rounding of 1e-7"


def test_learned_weights_by_hand():
    at, raw = [[0.4, 0.4, 0.1], [0.4, 0.4, np.nan]], [[0.5, 0.2, 0.9]] * 2
    learned = jnp.asarray([0.6, 0.8])
    position = np.exp(-0.36) * 0.05 / 2 + 0.36
    found = of("weighted", raw, at, PLAIN, learned)
    np.testing.assert_allclose(found, [position + np.exp(-0.64) * 0.04 + 0.64, position], rtol=1e-5)
    found = of("weighted", raw, at, PLAIN, learned, wrap=False)
    np.testing.assert_allclose(found[0], position + np.exp(-0.64) * 0.64 + 0.64, rtol=1e-5)
    metres = np.exp(-0.36) * np.hypot(10, 40) + 0.36
    found = of("weighted", raw, at, PLAIN, learned, metres=True)
    np.testing.assert_allclose(found, [metres + np.exp(-0.64) * 72 + 0.64, metres], rtol=1e-5)


def test_learned_weights_move_from_their_start_and_end_at_the_inverse_of_a_difference():
    """At 0 they would not move; in normalised numbers they go there, as no weight pays."""

    def loss(learned, metres):
        raw, at = jnp.asarray([[0.5, 0.2, 0.9]]), jnp.asarray([[0.4, 0.4, 0.1]])
        return positions.weighted(raw, at, PLAIN, learned, metres=metres)[0]

    slope, start = jax.jit(jax.grad(loss), static_argnums=1), np.full(2, LEARNED_START, np.float32)
    assert (slope(start, False) > 0).all() and (slope(start, True) < 0).all()
    assert not slope(np.zeros(2, np.float32), True).any()
    best = np.sqrt(np.log(np.array([np.hypot(10, 40), 72.0], np.float32)))
    np.testing.assert_allclose(slope(best, True), 0, atol=1e-4)


def test_haversine_is_kilometres_and_half_the_cosine_of_the_turn():
    raw, at = (
        [[0.1, 0.2, 0.95], [0.1, 0.2, 0.5], [0.4, 0.7, 0.25]],
        [[0.5, 0.5, 0.05], [0.1, 0.2, 0.0], [0.4, 0.7, np.nan]],
    )
    coding = Direct(CITY, ending="none")
    one, other = located(coding, np.array(raw)), located(coding, np.nan_to_num(at))
    metres = haversine(one.north, one.east, other.north, other.east)
    turned = (1 - np.cos(2 * np.pi * np.array([0.1, 0.5, 0]))) / 2
    np.testing.assert_allclose(of("haversine", raw, at, coding), metres / 1000 + turned, rtol=1e-4, atol=1e-6)
    found = of("haversine", raw, at, coding, metres=25.0, turn=0.0)
    np.testing.assert_allclose(found, metres / 25, rtol=1e-5, atol=1e-6)
    flat = Direct(CITY, bearing=False, ending="none")
    np.testing.assert_allclose(of("haversine", np.array(raw)[:, :2], at, flat), metres / 1000, rtol=1e-5, atol=1e-6)
    sphere = Hypersphere(CITY, projection="spread")
    found = of("haversine", sphere.encode(np.array(raw)), at, sphere)
    np.testing.assert_allclose(found, metres / 1000 + turned, rtol=1e-3, atol=1e-5)


def test_cross_entropy_by_hand():
    """2 x 2 cells of 2 sectors; a photo of unknown bearing counts both of its cell."""
    coding = Cells(FIELD, cells=2, sectors=2)
    raw = np.log(np.arange(1, 9.0))[None].repeat(3, 0)
    at = [[0.9, 0.1, 0.75], [0.9, 0.1, np.nan], [0.1, 0.9, 0.0]]
    expected = -np.log(np.array([6, 5 + 6, 3]) / 36)
    np.testing.assert_allclose(of("cross_entropy", raw, at, coding), expected, rtol=1e-5)


def test_soft_cross_entropy_against_every_class():
    coding = Cells(FIELD, cells=3, sectors=4, soft=True)
    at = np.concatenate([RNG.uniform(size=(20, 3)), [[0.5, 0.5, 0.1], [1.0, 1.0, 0.9]]])
    raw = RNG.normal(size=(22, coding.numbers)) * 3
    labels, target = np.zeros((22, coding.numbers)), coding.encode(at)
    for row in range(22):
        for cell, weight in zip(target.cells[row], target.weights[row], strict=True):
            labels[row, cell * 4 + target.sector[row]] += weight
    logs = raw - np.log(np.exp(raw).sum(1, keepdims=True))
    np.testing.assert_allclose(of("cross_entropy", raw, at, coding), -(labels * logs).sum(1), rtol=1e-4)
    at[:, 2] = np.nan
    of_cells = np.log(np.exp(logs).reshape(22, 9, 4).sum(2))
    expected = -(labels.reshape(22, 9, 4).sum(2) * of_cells).sum(1)
    np.testing.assert_allclose(of("cross_entropy", raw, at, coding), expected, rtol=1e-4)


def test_the_mixture_against_scipy():
    """In float64, with and without a bearing that is known."""
    coding = Mixture(FIELD, components=3, sigmas=(1e-2, 1.0))
    raw = RNG.normal(size=(40, coding.numbers)) * 2
    at = RNG.uniform(size=(40, 3))
    at[::4, 2] = np.nan
    expected = np.zeros(40)
    for row, (numbers, (north, east, turns)) in enumerate(zip(raw.reshape(40, 3, 7), at, strict=True)):
        shares = np.exp(numbers[:, 0]) / np.exp(numbers[:, 0]).sum()
        for share, (_, u, v, s, t, toward_north, toward_east) in zip(shares, numbers, strict=True):
            u, v, s, t = 1 / (1 + np.exp(-np.array([u, v, s, t])))
            density = (
                share * scipy.stats.norm.pdf(north, u, 0.01 ** (1 - s)) * scipy.stats.norm.pdf(east, v, 0.01 ** (1 - t))
            )
            if np.isfinite(turns):
                kappa, middle = np.hypot(toward_north, toward_east), np.arctan2(toward_east, toward_north)
                density *= 2 * np.pi * scipy.stats.vonmises.pdf(2 * np.pi * turns, kappa, middle)
            expected[row] += density
    with jax.enable_x64(True):
        found = jax.jit(lambda raw, at: positions.mixture(raw, at, coding))(raw, at)
    assert found.dtype == jnp.float64
    np.testing.assert_allclose(found, -np.log(expected), rtol=1e-10)
    np.testing.assert_allclose(of("mixture", raw, at, coding), -np.log(expected), rtol=1e-3, atol=1e-4)


def cases():
    """Every loss with every coding that it goes with; but for three they are for the long tests."""
    brief = [("haversine", Hypersphere), ("cross_entropy", Cells), ("mixture", Mixture)]
    for name, loss in LOSSES.items():
        for kind in loss.codings:
            for bearing in (True, False)[: 1 if loss.learned else 2]:
                options = {"cells": 3, "soft": True} if kind is Cells else {}
                marks = [pytest.mark.long] * (not bearing or (name, kind) not in brief)
                coding = kind(CITY, bearing=bearing, **options)
                yield pytest.param(name, coding, id=f"{name}-{kind.__name__}-{bearing}", marks=marks)
    for ending in ("softmax", "none", "tanh"):
        yield pytest.param("l2", Direct(CITY, ending=ending), id=f"l2-{ending}", marks=pytest.mark.long)


@pytest.mark.parametrize(("name", "coding"), list(cases()))
def test_gradients_are_finite_and_lead_down_from_awkward_points(name, coding):
    """Zero and far outputs, unknown bearings, corners of the area, and answers that are right already."""
    rows = np.array([[0.3, 0.6, 0.2], [0.3, 0.6, np.nan], [0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5], [0.5, 0.5, np.nan]])
    extra = (jnp.full(2, LEARNED_START),) * bool(LOSSES[name].learned)
    at = jnp.asarray(rows, jnp.float32)

    def each(raw):
        return LOSSES[name].function(raw, at, coding, *extra)

    slope = jax.jit(lambda raw: (each(raw), jax.grad(lambda x: jnp.sum(each(x)))(raw)))
    starts = [np.zeros((6, coding.numbers)), *(RNG.normal(size=(6, coding.numbers)) * far for far in (1, 30))]
    starts += [np.full((6, coding.numbers), -100.0)]
    if name != "mixture" and not isinstance(coding, Cells):
        filled = np.nan_to_num(rows, nan=0.4)
        starts.append(coding.encode(filled) if isinstance(coding, Hypersphere) else filled[:, : coding.numbers])
    for start in starts:
        raw = jnp.asarray(start, jnp.float32)
        value, gradient = slope(raw)
        assert value.shape == (6,) and value.dtype == jnp.float32
        assert np.isfinite(value).all() and np.isfinite(gradient).all()
        if start is starts[1]:
            step = 1e-3 / np.abs(gradient).max(1, keepdims=True)
            assert (np.asarray(slope(raw - step * gradient)[0]) < np.asarray(value)).all()


def test_losses_say_which_heads_they_go_with():
    with pytest.raises(ValueError, match=r"no loss of positions 'l3'; there are \['cross_entropy'"):
        loss_for("l3", PLAIN)
    with pytest.raises(ValueError, match=r"'l2' does not go with the head 'cells', which takes \['cross_entropy'\]"):
        loss_for("l2", Cells(FIELD))
    with pytest.raises(
        ValueError, match=r"'cross_entropy'.*'direct', which takes \['l2', 'l1', 'weighted', 'haversine'\]"
    ):
        loss_for("cross_entropy", PLAIN)
    with pytest.raises(ValueError, match="bearing=false"):
        loss_for("weighted", Direct(FIELD, bearing=False))
    assert loss_for("weighted", PLAIN).learned == 2
