"""The best few answers of a position head, worked by hand and by a loop."""

import jax
import numpy as np
import pytest

from jaxvpr.models.positions import Area, Cells, Direct, Mixture, located
from jaxvpr.retrieval import heads

BOX = Area(0.0, 0.0, 100.0, 200.0, metres=True)


def test_the_likeliest_cells_worked_by_hand():
    coding = Cells(BOX, cells=2, sectors=4)  # classes of 50 x 100 m and 90 degrees
    raw = np.zeros((1, 16))
    raw[0, [6, 9]] = np.log(30.0), np.log(20.0)  # cell (0, 1) looking south, cell (1, 0) looking east; 14 others
    found = heads.candidates(coding, raw, 3)
    np.testing.assert_allclose(found.confidence, [[30 / 64, 20 / 64, 1 / 64]])
    np.testing.assert_allclose(found.north, [[25, 75, 25]])
    np.testing.assert_allclose(found.east, [[150, 50, 50]])
    np.testing.assert_allclose(found.bearing, [[225, 135, 45]])
    assert heads.candidates(coding, raw, 99).north.shape == (1, 16)


def test_the_heaviest_hypotheses_worked_by_hand():
    coding = Mixture(BOX, components=3)
    raw = np.zeros((1, 3, 7))
    raw[0, :, 0] = np.log([2.0, 5.0, 1.0])
    raw[0, :, 1] = np.log([1.0, 3.0, 1.0])  # a sigmoid gives 1/2, 3/4, 1/2 of the height
    raw[0, 1, 5:] = 0.0, 2.0  # east
    found = heads.candidates(coding, raw.reshape(1, -1), 2)
    np.testing.assert_allclose(found.confidence, [[5 / 8, 2 / 8]])
    np.testing.assert_allclose([found.north, found.east], [[[75, 50]], [[100, 100]]])
    assert found.bearing[0, 0] == pytest.approx(90)
    flat = Mixture(BOX, bearing=False, components=3)
    assert np.isnan(heads.candidates(flat, raw[..., :5].reshape(1, -1), 2).bearing).all()


@pytest.mark.parametrize(
    "coding", [Cells(BOX, cells=3, sectors=5), Mixture(BOX, components=4), Direct(BOX, ending="none")]
)
def test_the_first_is_that_of_the_head_and_all_are_in_order(coding):
    raw = np.random.default_rng(0).normal(size=(50, coding.numbers))
    best, found = located(coding, raw), heads.candidates(coding, raw, 4)
    for one, several in zip(best, found, strict=True):
        np.testing.assert_allclose(several[:, 0], one, atol=1e-9)
    if not isinstance(coding, Direct):
        assert found.north.shape == (50, 4) and (np.diff(found.confidence, axis=1) <= 0).all()


def test_many_descriptors_are_answered_in_parts(monkeypatch):
    coding, seen = Cells(BOX, cells=2, bearing=False), []
    monkeypatch.setattr(heads, "AT_ONCE", 4)

    def head(variables, descriptors):
        seen.append(descriptors.shape)
        return descriptors @ variables

    rng = np.random.default_rng(0)
    matrix, descriptors = (rng.normal(size=shape).astype(np.float32) for shape in ((8, 4), (10, 8)))
    found = heads.answers(head, coding, matrix, descriptors, 2)
    assert seen == [(4, 8)]  # one program
    expected = heads.candidates(coding, descriptors @ matrix, 2)
    np.testing.assert_array_equal(found.north, expected.north)
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-5)
    with pytest.raises(ValueError, match="not finite in 1 of"):
        heads.answers(lambda v, d: jax.numpy.log(d @ v[:, :4] * 0 + d[:, :1]), coding, matrix, np.eye(8)[:1] - 1, 1)
