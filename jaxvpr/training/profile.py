"""A trace of some steps, for TensorBoard and Perfetto."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

log = logging.getLogger(__name__)


class Profile:
    """Traces what this process and its devices do in some steps; a context that ends the trace however its block ends.

    Args:
      folder: where the trace goes, each in a folder of its own, below `plugins/profile`.
      first: steps that are made before, counted from the start of this process: the first compiles.
      steps: how many are traced; 0 for no trace.
    """

    def __init__(self, folder: Path, first: int, steps: int):
        self._folder, self._first, self._end = folder, first, first + steps
        self._made, self._runs = 0, False

    def traced(self, step: Callable[..., tuple[Any, Any]]) -> Callable[..., tuple[Any, Any]]:
        """The training step `(state, batches, turn, ...) -> (state, metrics)`, as part of the trace: `train`, with its
        number."""

        def call(state: Any, batches: Any, turn: Any, *tables: Any) -> tuple[Any, Any]:
            if not self._runs and self._first <= self._made < self._end:
                self._begin()
            with jax.profiler.StepTraceAnnotation("train", step_num=int(np.min(turn.number))):
                state, metrics = step(state, batches, turn, *tables)
            self._made += np.size(turn.number)
            if self._runs and self._made >= self._end:
                jax.block_until_ready(metrics)  # the devices may be steps behind
                self._stop()
            return state, metrics

        return call

    def _begin(self) -> None:
        jax.profiler.start_trace(self._folder)
        self._runs, self._first = True, self._made

    def _stop(self) -> None:
        self._runs = False
        jax.profiler.stop_trace()
        log.info("traced %d steps into %s: tensorboard --logdir=%s", self._made - self._first, *[self._folder] * 2)

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._runs:
            self._stop()
        elif self._made <= self._first < self._end:
            log.warning("no step was traced: %d were made, and profile.first=%d come before", self._made, self._first)
