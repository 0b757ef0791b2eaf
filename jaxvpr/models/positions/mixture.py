"""Positions as several hypotheses: a mixture density (Bishop, 1994)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxvpr.models.positions.codings import sigmoid, softmax, with_bearing
from jaxvpr.models.positions.coordinates import UNCHOSEN, Area, Array, arc, xp


class Hypotheses(NamedTuple):
    """K hypotheses of each answer, in normalised units.

    logits: [..., K], weights before their softmax.
    means: [..., K, 2], in (0, 1).
    log_sigmas: [..., K, 2], natural logarithms of the standard deviations north and east.
    toward: [..., K, 2], the concentration of a von Mises distribution along (north, east): its direction is the
      bearing's mean, its length kappa; or None.
    """

    logits: Array
    means: Array
    log_sigmas: Array
    toward: Array | None


@dataclass(frozen=True)
class Mixture:
    """Several hypotheses, each a normal distribution of the position and a von Mises one of the bearing.

    The answer is the mean of the heaviest, its confidence the weight of that one. Means end in a sigmoid. Standard
    deviations run between the two `sigmas` on a logarithmic scale, by a sigmoid too: cut off, they would have no
    gradient beyond.

    Attributes:
      area: the box that [0, 1] is.
      bearing: whether hypotheses have one.
      components: K.
      sigmas: the least and the largest standard deviation, in parts of the area's sides.
    """

    area: Area = UNCHOSEN
    bearing: bool = True
    components: int = 5
    sigmas: tuple[float, float] = (1e-3, 1.0)

    def __post_init__(self) -> None:
        """Raises ValueError for no component, or deviations that are none."""
        if self.components < 1:
            raise ValueError(f"components={self.components}; expected at least one")
        if len(self.sigmas) != 2 or not 0 < self.sigmas[0] < self.sigmas[1]:
            raise ValueError(f"sigmas={self.sigmas}; expected two ascending numbers above 0")

    @property
    def numbers(self) -> int:
        """A weight, two means and two deviations for each hypothesis, and two for its bearing."""
        return self.components * (7 if self.bearing else 5)

    @property
    def start(self) -> np.ndarray:
        """Biases [numbers] to begin with: hypotheses that differ, their means spread over the area, and are wide.

        Narrow ones far from every photo would begin with a loss of millions.
        """
        at = np.modf((np.arange(self.components)[:, None] + 0.5) * [0.7548776662466927, 0.5698402909980532])[0]
        biases = np.zeros((self.components, self.numbers // self.components))
        biases[:, 1:3] = np.log(at / (1 - at))
        biases[:, 3:5] = 2.0
        return biases.reshape(-1)

    def encode(self, at: Array) -> Array:
        """The positions themselves, [..., 3], or [..., 2] without a bearing; NaN where that is not known."""
        return at if self.bearing else at[..., :2]

    def hypotheses(self, raw: Array) -> Hypotheses:
        """Raw outputs [..., numbers] taken apart."""
        parts = raw.reshape(*raw.shape[:-1], self.components, self.numbers // self.components)
        low, high = (float(np.log(sigma)) for sigma in self.sigmas)
        deviations = low + (high - low) * sigmoid(parts[..., 3:5])
        return Hypotheses(
            parts[..., 0], sigmoid(parts[..., 1:3]), deviations, parts[..., 5:7] if self.bearing else None
        )

    def decode(self, raw: Array) -> tuple[Array, Array]:
        """See `Coding`; the confidence is the weight of the heaviest hypothesis."""
        lib, found = xp(raw), self.hypotheses(raw)
        best = lib.argmax(found.logits, -1)[..., None, None]
        confidence = lib.max(softmax(found.logits), -1)
        at = lib.take_along_axis(found.means, best, -2)[..., 0, :]
        at = lib.where(lib.isfinite(confidence)[..., None], at, np.nan)
        if found.toward is None:
            return with_bearing(at), confidence
        toward = lib.take_along_axis(found.toward, best, -2)[..., 0, :]
        turns = arc(toward[..., 1], toward[..., 0]) / (2 * np.pi) % 1.0
        return lib.concatenate([at, turns[..., None]], -1), confidence
