"""What the steps of a run are fed with: read by its hosts, one slice each, and laid on its mesh."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from data_pipelines.loaders import Draw, StepReader, batches
from jaxvpr.objectives.objective import Plan
from jaxvpr.parallel.mesh import local_rows, to_global

log = logging.getLogger(__name__)


class Feed:
    """The batches of a run.

    Args:
      sources: {stream: where its images come from}.
      draw: the objective's.
      seed: of the run.
      loader: `threads`, `workers` and `prefetch` of `loaders.batches`.

    Attributes:
      unreadable: how many times an image could not be read.
    """

    def __init__(
        self,
        sources: Mapping[str, Any],
        draw: Callable,
        mesh: Mesh,
        *,
        seed: int,
        loader: Mapping[str, int],
    ):
        self.sources, self.draw, self.mesh = dict(sources), draw, mesh
        self.seed, self.loader = seed, dict(loader)
        self.unreadable = 0

    def read(self, plan: Plan, first: int, start: int, stop: int) -> Any:
        """This host's rows of the steps from `start` on, before `stop`, of a plan that begins at step `first`: a
        generator of (step, {stream: batch}), to be closed."""
        draws = self.draw(plan, start - first)
        parts = {stream: local_rows(self.mesh, len(draw.rows)) for stream, draw in draws.items()}
        reader = StepReader(self.sources, partial(_draw, self.draw, plan, first), self.seed, parts)
        return batches(reader, start, stop, **self.loader)

    def on_mesh(self, local: dict[str, dict[str, np.ndarray]]) -> dict[str, dict[str, jax.Array]]:
        """The global batch that the hosts' rows make; says which images could not be read."""
        for stream, batch in local.items():
            self.unreadable += int(batch["bad"].sum())
            for complaint in self.sources[stream].complaints(batch) if batch["bad"].any() else ():
                log.warning("left out of its batch: %s", complaint)
        return {
            stream: to_global(self.mesh, {name: batch[name] for name in batch if name not in ("row", "bad")})
            for stream, batch in local.items()
        }


def _draw(draw: Callable, plan: Plan, first: int, step: int) -> dict[str, Draw]:
    """The draw of a step of the whole run; a module-level function, since loader processes are spawned."""
    return draw(plan, step - first)
