"""Region similarities and their cross entropy with a teacher's, against loops in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxvpr.losses.regions import most_similar, similarities, soft_cross_entropy

RNG = np.random.default_rng(5)
QUERY, IMAGES = RNG.normal(size=(3, 6)).astype(np.float32), RNG.normal(size=(3, 4, 9, 6)).astype(np.float32)


def test_most_similar_regions_one_by_one():
    got = most_similar(jnp.asarray(QUERY), jnp.asarray(IMAGES))
    assert got.shape == (3, 4, 6)
    for b in range(3):
        for k in range(4):
            scores = [float(QUERY[b] @ region) for region in IMAGES[b, k]]
            np.testing.assert_array_equal(got[b, k], IMAGES[b, k, int(np.argmax(scores))])


def by_loops(student, teacher, known, temperature, teacher_temperature):
    """Cross entropies [B] in float64, over the regions of known images alone."""
    out = []
    for s, t, keep in zip(student.astype(float), teacher.astype(float), known, strict=True):
        if not keep.any():
            out.append(0.0)
            continue
        s, t = np.exp(s[keep] / temperature), np.exp(t[keep] / teacher_temperature)
        out.append(-(t / t.sum() * np.log(s / s.sum())).sum())
    return np.array(out)


def test_soft_cross_entropy_is_that_of_loops():
    teacher = np.asarray(similarities(jnp.asarray(QUERY), jnp.asarray(IMAGES))) / 10
    student = teacher + RNG.normal(size=teacher.shape).astype(np.float32) / 10
    known = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]], bool)
    got = soft_cross_entropy(
        jnp.asarray(student), jnp.asarray(teacher), jnp.asarray(known), temperature=0.07, teacher_temperature=0.05
    )
    np.testing.assert_allclose(got, by_loops(student, teacher, known, 0.07, 0.05), rtol=1e-4)


def test_gradients_reach_the_student_alone_and_stay_finite():
    scores, known = jnp.asarray(RNG.normal(size=(3, 4, 9)), jnp.float32), jnp.asarray([[1, 1, 0, 0], [0] * 4, [1] * 4])

    def total(student, teacher):
        return soft_cross_entropy(student, teacher, known > 0, temperature=0.07, teacher_temperature=0.07).sum()

    student, teacher = jax.grad(total, (0, 1))(scores, scores[::-1])
    assert not np.any(teacher) and np.isfinite(student).all()
    np.testing.assert_array_equal(np.any(student, 2), known > 0)
    # A student that agrees with its teacher has nothing to learn from it.
    np.testing.assert_allclose(jax.grad(total)(scores, scores), 0, atol=2e-6)
