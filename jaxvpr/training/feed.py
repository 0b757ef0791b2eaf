"""What the steps of a run are fed with: read by its hosts, one slice each, and laid on its mesh."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from data_pipelines.draws import Draw
from data_pipelines.loaders import StepReader, batches
from data_pipelines.sources import RowSource, Source
from jaxvpr.errors import UserError
from jaxvpr.parallel.mesh import local_rows, replicated, to_global

log = logging.getLogger(__name__)
Rows = dict[str, np.ndarray]  # of one stream


class Feed:
    """The batches of a run.

    Args:
      sources: {stream: where its rows are read}.
      seed: of the run.
      loader: `threads`, `workers` and `prefetch` of `loaders.batches`.
      by_image: {stream: images of an element} of the streams whose images, not elements, are split over the devices.
      tables: {stream: {name: [N, ...]}} of what lies on the devices for each row of a stream, as `Recipe` has it.

    Attributes:
      tables: the same on the mesh, all of it on every device.
      unreadable: how many times an element could not be read.

    Raises:
      ValueError: for a table that has not as many rows as its stream.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        mesh: Mesh,
        *,
        seed: int,
        loader: Mapping[str, int],
        by_image: Mapping[str, int] | None = None,
        tables: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    ):
        self.sources, self.mesh = dict(sources), mesh
        self.tables = {stream: self._laid(stream, named) for stream, named in (tables or {}).items()}
        self.seed, self.loader, self.by_image = seed, dict(loader), dict(by_image or {})
        self.unreadable = 0

    def _laid(self, stream: str, named: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        rows, everywhere = len(self.sources[stream]), replicated(self.mesh)
        for name, table in named.items():
            if len(table) != rows:  # a device would read the last row for those behind it
                raise ValueError(f"the table {name!r} has {len(table)} rows, and the stream {stream!r} {rows}")
        return {name: jax.make_array_from_process_local_data(everywhere, table) for name, table in named.items()}

    def check(self, draws: Mapping[str, Draw], streams: Sequence[str], period: int) -> None:
        """Looks at the draws of a plan, before threads and processes read them.

        Args:
          streams, period: of the objective.

        Raises:
          UserError: for a stream too many or too few, another number of steps than the period, no element at all, or a
            batch that the devices cannot split.
        """
        if set(draws) != set(streams):
            raise UserError(f"the plan draws for the streams {sorted(draws)}; the objective has {sorted(streams)}")
        for stream, draw in draws.items():
            if len(draw.rows) != period:
                raise UserError(
                    f"the plan draws {len(draw.rows)} steps for the stream {stream!r}; its objective's period is "
                    f"{period}"
                )
            if not draw.mask.any():
                raise UserError(
                    f"the plan draws not one element for the stream {stream!r}, so nothing is learned: no image of "
                    "it can be read, or none has what the objective needs"
                )
            size, images = draw.rows.shape[1], self.by_image.get(stream, 1)
            if size * images % self.mesh.size:
                raise UserError(
                    f"the plan draws batches of {size} elements for the stream {stream!r}, which {self.mesh.size} "
                    f"devices cannot split: make it a multiple of {self.mesh.size}"
                )

    def read(self, draws: Mapping[str, Draw], first: int, start: int, stop: int, whole: bool = False) -> Any:
        """This host's rows, or the `whole` batch, of the steps from `start` on, before `stop`, of a plan that begins at
        step `first`: a generator of (step, {stream: batch}), to be closed."""
        sizes = {stream: draw.rows.shape[1] * self.by_image.get(stream, 1) for stream, draw in draws.items()}
        parts = {stream: slice(0, size) if whole else local_rows(self.mesh, size) for stream, size in sizes.items()}
        step = partial(_draws_of_step, dict(draws), first)
        reader = StepReader(self.sources, step, self.seed, parts, frozenset(self.by_image))
        if all(isinstance(source, RowSource) for source in self.sources.values()):
            # Handing rows from thread to thread takes far longer than looking them up.
            return ((number, reader(number)) for number in range(start, stop))
        return batches(reader, start, stop, **self.loader)

    def on_mesh(self, local: Mapping[str, Rows]) -> dict[str, dict[str, jax.Array]]:
        """The global batch that the hosts' rows make; warns of what could not be read."""
        return {stream: to_global(self.mesh, self._shown(stream, batch)) for stream, batch in local.items()}

    def stacked(self, batches: Sequence[Mapping[str, Rows]]) -> dict[str, dict[str, jax.Array]]:
        """Several of them for steps that run in one call, `[steps, batch, ...]`."""
        made = {}
        for stream in batches[0]:
            shown = [self._shown(stream, local[stream]) for local in batches]
            made[stream] = to_global(
                self.mesh, {name: np.stack([one[name] for one in shown]) for name in shown[0]}, True
            )
        return made

    def _shown(self, stream: str, batch: Rows) -> Rows:
        """What the devices see of a batch: rows where there are tables of them, the first one where there is no row.
        Warns of what could not be read."""
        if batch["bad"].any():
            self.unreadable += int(batch["bad"].sum())
            for complaint in self.sources[stream].read_errors(batch):
                log.warning("left out of its batch: %s", complaint)
        parts = {name: part for name, part in batch.items() if name not in ("row", "bad")}
        return {**parts, "row": np.maximum(batch["row"], 0).astype(np.int32)} if stream in self.tables else parts


def _draws_of_step(draws: Mapping[str, Draw], first: int, step: int) -> dict[str, Draw]:
    # A function of the module, since processes that load are spawned.
    return {stream: draw.at(step - first) for stream, draw in draws.items()}
