"""What `results` measures of a model whose head answers positions, beside retrieval by the same descriptors."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data_pipelines.atomic import replacing
from data_pipelines.errors import DataError
from data_pipelines.own_files import NAMES
from data_pipelines.places import Paths, Places
from jaxvpr import builders
from jaxvpr.errors import UserError
from jaxvpr.models import Variables
from jaxvpr.models.positions import Coding, Located, coding_with
from jaxvpr.parallel import hosts
from jaxvpr.reports import positions as pictures
from jaxvpr.reports import terminal
from jaxvpr.reports.tables import in_bytes, milliseconds
from jaxvpr.reports.terminal import Figure
from jaxvpr.retrieval import heads, locating, search
from jaxvpr.retrieval.evaluator import Benchmark, Evaluated
from jaxvpr.retrieval.extract import Described
from jaxvpr.retrieval.positions import Placed, Spent, Taken, distances, errors, lost, summary, timed

log = logging.getLogger(__name__)
Array = np.ndarray
FILE = "positions.csv"
# Reads the images that the head was trained on.
Training = Callable[[], Sequence[Places]]


class Map(NamedTuple):
    """The images that the head learned, which retrieval looks among.

    taken: where each was taken. described: their descriptors.
    """

    taken: Taken
    described: Described


class Head:
    """The position head of a recipe's model, and the map beside it, described when first asked for.

    Args:
      training: None for no map.
    """

    def __init__(self, config: ConfigDict, mesh: Mesh, variables: Variables, training: Training | None):
        self.config, self.mesh, self.variables, self.training = config, mesh, variables, training
        self.model, self.coding = builders.model(config), builders.coding_of(config)
        own = {group: {"position": part["position"]} for group, part in variables.items() if "position" in part}
        self.own = jax.device_put(jax.device_get(own))
        self.bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(own))
        self._map: list[Map | None] = []
        self._meaning: Coding | None = None

    def answers(self, descriptors: Array) -> Located:
        """The answers to descriptors [N, D]; UserError for weights that give numbers that are not finite."""
        try:
            if self._meaning is None:
                self._meaning = coding_with(self.model.position, self.own)
            return locating.answers(self.model, self.own, descriptors, meaning=self._meaning).located
        except ValueError as error:
            raise UserError(f"the head of {self.config.name} cannot answer: {error}") from error

    @property
    def map(self) -> Map | None:
        """The training images within the area; None, with a warning, where they are not there or too many."""
        if not self._map:
            self._map.append(_map(self) if self.training else None)
        return self._map[0]


def head_of(config: ConfigDict, mesh: Mesh, variables: Variables, training: Training | None) -> Head | None:
    """The head of a recipe's model; None where it has none, or, with a warning, one that was never trained."""
    if not config.model.get("position", ""):
        return None
    head = Head(config, mesh, variables, training if config.eval.baselines else None)
    if head.coding.area.chosen:
        return head
    log.warning("model.position_options.area is not chosen: the position head answers nothing, and is not measured")
    return None


def _map(head: Head) -> Map | None:
    config, area = head.config, head.coding.area
    try:
        images = Places.concat(head.training()) if head.training else None
        if images is None:
            return None
        at = builders.positions(images)
        builders.normalised(area, at)
    except (DataError, UserError) as error:
        log.warning("no retrieval beside the position head, which wants the images that it learned: %s", error)
        return None
    inside = np.flatnonzero(area.holds(at.north, at.east))
    size = 4 * len(inside) * builders.descriptor_size(config)
    if not len(inside) or size > config.eval.host_mib * 2**20:
        why = f"their descriptors have {in_bytes(size)} (eval.host_mib)" if len(inside) else "none lies in its area"
        log.warning("no retrieval beside the position head, among the %s images that it learned: %s", len(images), why)
        return None
    taken = Taken(at.north[inside], at.east[inside], at.bearing[inside])
    return Map(taken, _described(head, images.path.take(inside)))


def _described(head: Head, paths: Paths) -> Described:
    """Descriptors of training images, those that are kept where the recipe keeps them."""
    if not head.config.maps.cached:
        return builders.describer(head.config, head.mesh)(head.variables, paths)
    descriptors, there = builders.descriptors_kept(head.config, head.variables, paths, head.mesh).arrays(paths)
    return Described(descriptors, np.flatnonzero(~there))


def measured(head: Head, bench: Benchmark, queries: Described | None) -> Placed | None:
    """What the head answers to the queries of a benchmark; None, with a warning, where nothing can be said of them.

    Args:
      queries: their descriptors.
    """
    try:
        if queries is None or bench.query_clips is not None:
            raise DataError("its queries are clips, and the head answers images")
        at = builders.positions(bench.queries)
        builders.normalised(head.coding.area, at)
    except DataError as error:
        log.warning("%s: the answers of the position head are not measured: %s", bench.name, error)
        return None
    taken, beside = Taken(at.north, at.east, at.bearing), head.map
    limits = distances(tuple(head.config.eval.get("distances", ())), head.coding.area)
    found = errors(head.coding, taken, head.answers(queries.descriptors), queries.missing)
    figures = _facts(head.config, head.coding, len(at.north)) | summary(found, limits)
    figures["bytes"] = head.bytes
    if (of_coding := lost(head.coding, taken)) is not None:
        figures["coding_m"] = {"median": round(float(np.median(of_coding)), 4), "max": round(float(of_coding.max()), 4)}
    spent = {"head": timed(head.answers, queries.descriptors)}
    if beside is None:
        return Placed(figures, spent, found, None, head.coding.area, np.zeros((0, 2)))
    retrieved = _retrieved(head.coding, beside, taken, queries)
    learned = errors(head.coding, beside.taken, head.answers(beside.described.descriptors), beside.described.missing)
    search_in = search.at_once(beside.described.descriptors)
    figures["training"] = {"images": len(beside.taken.north), **summary(learned, limits)}
    figures["retrieval"] = {
        "images": len(beside.taken.north),
        **summary(retrieved, limits),
        "bytes": int(beside.described.descriptors.nbytes),
    }
    spent["retrieval"] = timed(lambda rows: search_in(rows, 1), np.ascontiguousarray(queries.descriptors))
    return Placed(figures, spent, found, retrieved, head.coding.area, np.stack(beside.taken[:2], 1))


def _facts(config: ConfigDict, coding: Coding, queries: int) -> dict[str, Any]:
    area = coding.area
    frame = "metres" if area.metres else "degrees"
    box = [round(side, 7) for side in area[:4]]
    return {"head": config.model.position, "outputs": coding.numbers, "queries": queries, "area": box, "frame": frame}


def _retrieved(coding: Coding, beside: Map, taken: Taken, queries: Described) -> Any:
    """The nearest images of the map as answers."""
    _, rows = search.exact(beside.described.descriptors, queries.descriptors, 1, missing=beside.described.missing)
    north, east, bearing = (column[rows[:, 0]] for column in beside.taken)
    return errors(coding, taken, Located(north, east, bearing, np.full(len(north), np.nan)), queries.missing)


def show(name: str, title: str, placed: Placed) -> None:
    """Prints the shares of right answers, the head's below those of retrieval."""
    if not hosts.is_first():
        return
    figures, beside = placed.figures, placed.figures.get("retrieval")
    columns = ["", *figures["within"], "median m", "bytes", "a query", "alone"]
    cells = [(f"{name}, its head", _cells(figures, placed.spent["head"]))]
    if beside:
        label = f"retrieval, {beside['images']:,} images"
        cells.insert(0, (label, _cells(beside, placed.spent["retrieval"])))
    terminal.show(f"{title} | {figures['head']}, {figures['outputs']:,} outputs", columns, cells, _notes(figures))


def _cells(of: Mapping[str, Any], spent: Spent) -> list[str | Figure]:
    shares = [Figure(f"{share:5.1f}", tuple(of["interval95"][limit])) for limit, share in of["within"].items()]
    median = Figure(f"{of['median_m']:,.1f}" if "median_m" in of else "-")
    times = [Figure(milliseconds(value)) for value in spent]
    return [*shares, median, Figure(in_bytes(of["bytes"])), *times]


def costs(found: Evaluated) -> dict[str, float]:
    """What answering takes, as `costs` of `metrics.json`; nothing without a head."""
    spent = found.placed.spent if found.placed else {}
    return {
        f"{of}_ms_{key}": round(value, 6)
        for of, one in spent.items()
        for key, value in (("per_query", one.together), ("alone", one.alone))
    }


def _notes(figures: Any) -> list[str]:
    notes = []
    if quantiles := figures.get("quantiles_m"):
        notes.append("metres of the best " + ", ".join(f"{q} %: {value:,.1f}" for q, value in quantiles.items()))
    if cells := figures.get("cells"):
        behind = cells.get("median_m_behind_wrong")
        notes.append(f"{cells['right']:.1f} % in the right cell" + f", the others {behind:,.1f} m off" * bool(behind))
    if loses := figures.get("coding_m"):
        notes.append(f"never wrong it would be {loses['median']:,.1f} m off, {loses['max']:,.1f} at most")
    if training := figures.get("training"):
        shares = "  ".join(f"{limit} {share:.1f}" for limit, share in training["within"].items())
        notes.append(f"of the {training['images']:,} images it learned: {shares}")
    if figures["outside"]:
        notes.append(f"{figures['outside']:,} of {figures['queries']:,} answers lie outside the area that it learned")
    return notes


def write(folder: Path, found: Sequence[Evaluated]) -> Path | None:
    """Writes `positions.csv`, a row for each query of each benchmark that the head answered; None without any."""
    placed = [(one.bench, one.placed) for one in found if one.placed]
    if not placed:
        return None
    path = folder / FILE
    with replacing(path) as part, part.open("w", newline="", **NAMES) as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for bench, of in placed:
            writer.writerows(_rows(bench, of))
    return path


COLUMNS = (
    "dataset", "query", "north", "east", "bearing", "answer_north", "answer_east", "answer_bearing", "metres",
    "confidence", "outside", "right_cell", "retrieval_north", "retrieval_east", "retrieval_metres",
)  # fmt: skip


def _rows(bench: Benchmark, placed: Placed) -> Any:
    none = np.full(len(placed.head.metres), np.nan)
    head, beside = placed.head, placed.retrieval
    other = (beside.said.north, beside.said.east, beside.metres) if beside else (none, none, none)
    right = none if head.right is None else head.right.astype(int)
    said = (head.said.north, head.said.east, head.said.bearing)
    columns = (*head.true, *said, head.metres, head.said.confidence, head.outside.astype(int), right, *other)
    for query, row in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        unread = not np.isfinite(head.metres[query])
        cells = ["" if not np.isfinite(value) or (unread and k > 2) else f"{value:.10g}" for k, value in enumerate(row)]
        yield [bench.name, bench.queries.path[query], *cells]


def picture(one: Evaluated) -> str:
    """The distribution of the errors, and their map, as a part of the report; empty without a head."""
    if one.placed is None:
        return ""
    placed, head = one.placed, one.placed.head
    plan = partial(heads.plan, placed.area)
    answered = pictures.Answered(
        true=plan(*head.true[:2]),
        answered=np.where(np.isfinite(head.metres)[:, None], plan(head.said.north, head.said.east), np.nan),
        training=plan(placed.map[:, 0], placed.map[:, 1]),
        metres=head.metres,
        confidence=head.said.confidence,
    )
    compared = {"retrieval": placed.retrieval.metres} if placed.retrieval else {}
    limits = distances(tuple(placed.figures["within"]), placed.area)
    return pictures.draw(answered, compared, tuple(limits.values()))
