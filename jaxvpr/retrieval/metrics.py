"""`metrics.json`: every figure that a run measured, in one documented file (docs/metrics.md)."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.atomic import write_json
from data_pipelines.own_files import read_json
from jaxvpr.errors import UserError
from jaxvpr.retrieval.recall import Recall

FILE = "metrics.json"
PROTOCOL = {
    "dataset": str,
    "split": str,
    "queries": int,
    "database": int,
    "without_positive": dict,
    "image_size": list,
    "resize": str,
    "dimension": int,
    "index": str,
    "missing": int,
}


def percentages(recall: Recall, *, answerable: bool = False) -> dict[str, float]:
    """`{"1": 67.5, "5": ...}`, over all queries or over those with a positive, rounded to 1/10,000 per cent."""
    values = recall.of_answerable if answerable else recall.of_all
    return {str(n): round(value, 4) for n, value in values.items()}


def result(
    facts: Mapping[str, Any],
    recalls: Mapping[str, Recall],
    baselines: Mapping[str, Mapping[str, Recall]] | None = None,
    conditions: Mapping[str, Mapping[str, Recall]] | None = None,
    located: Mapping[str, Recall] | None = None,
    classes: int = 0,
    positions: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One entry of `results`.

    Args:
      facts: see `protocol.protocol`.
      recalls: threshold -> recall of the method.
      baselines: name (`thumbnail`, `untrained`) -> threshold -> recall, of the same queries.
      conditions: name (`night`) -> threshold -> recall of the queries of that condition.
      located: threshold -> recall of the localisation by classification (LR@N), among so many `classes`.
      positions: figures of a head that answers positions, `positions.Placed`.
    """
    by_condition = {
        name: {"queries": next(iter(of.values())).queries, "recall": {t: percentages(r) for t, r in of.items()}}
        for name, of in (conditions or {}).items()
    }
    return {
        "dataset": facts["dataset"],
        "protocol": dict(facts),
        "recall": {t: percentages(r) for t, r in recalls.items()},
        "recall_answerable": {t: percentages(r, answerable=True) for t, r in recalls.items()},
        "upper_bound": {t: round(r.upper_bound, 4) for t, r in recalls.items()},
        "interval95": _intervals(recalls),
        "baselines": {name: {t: percentages(r) for t, r in of.items()} for name, of in (baselines or {}).items()},
        **({"conditions": by_condition} if by_condition else {}),
        **({"localization": _localization(located, classes)} if located else {}),
        **({"positions": dict(positions)} if positions else {}),
    }


def _localization(located: Mapping[str, Recall], classes: int) -> dict[str, Any]:
    return {
        "classes": classes,
        "without_class": {t: r.without_positive for t, r in located.items()},
        "recall": {t: percentages(r) for t, r in located.items()},
        "interval95": _intervals(located),
    }


def _intervals(recalls: Mapping[str, Recall]) -> dict[str, dict[str, list[float]]]:
    return {t: {str(n): [round(end, 4) for end in r.interval(n)] for n in r.ns} for t, r in recalls.items()}


def write_metrics(
    workdir: str | os.PathLike[str],
    results: Sequence[Mapping[str, Any]],
    costs: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Writes `workdir/metrics.json`, completely or not at all.

    Args:
      results: entries made by `result`.
      costs: see `costs.costs`.
      extra: further keys of the document, such as the hash of a test's settings.

    Raises:
      UserError: where the document does not follow its schema, or holds NaN.
    """
    path = Path(workdir) / FILE
    document = {"results": [dict(entry) for entry in results], "costs": dict(costs), **(extra or {})}
    validate(document, str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, document)
    return path


def read_metrics(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads and checks a `metrics.json`.

    Raises:
      DataError: no such file, or no object of JSON.
      UserError: another schema.
    """
    document = read_json(Path(path), "Without it, the command that wrote it measures again")
    validate(document, os.fspath(path))
    return document


def validate(document: Any, name: str = FILE) -> None:
    """Checks a document against docs/metrics.md.

    Raises:
      UserError: names the key, its value and the expected one.
    """
    _expect(isinstance(document, Mapping), name, document, "an object with 'results' and 'costs'")
    _expect(isinstance(document.get("results"), list), f"{name}: results", document.get("results"), "a list")
    for number, entry in enumerate(document["results"]):
        _validate_result(entry, f"{name}: results[{number}]")
    costs = document.get("costs")
    _expect(isinstance(costs, Mapping), f"{name}: costs", costs, "an object")
    for key, value in costs.items():
        numbers = isinstance(value, list) and all(_is_number(item) for item in value) and not key.endswith("_seconds")
        _expect(numbers or _is_number(value), f"{name}: costs.{key}", value, "a finite number or a list of them")


def _validate_result(entry: Any, at: str) -> None:
    _expect(isinstance(entry, Mapping), at, entry, "an object")
    _expect(isinstance(entry.get("dataset"), str), f"{at}.dataset", entry.get("dataset"), "a name")
    facts = entry.get("protocol")
    _expect(isinstance(facts, Mapping), f"{at}.protocol", facts, "an object")
    for key, kind in PROTOCOL.items():
        _expect(
            type(facts.get(key)) is kind, f"{at}.protocol.{key}", facts.get(key), f"a value of type {kind.__name__}"
        )
    _validate_recall(entry.get("recall"), f"{at}.recall")
    _expect(
        set(entry["recall"]) == set(facts["without_positive"]),
        f"{at}.recall",
        list(entry["recall"]),
        f"the thresholds of the protocol {list(facts['without_positive'])}",
    )
    _validate_intervals(entry.get("interval95"), entry["recall"], f"{at}.interval95")
    _expect(isinstance(entry.get("baselines"), Mapping), f"{at}.baselines", entry.get("baselines"), "an object")
    for name, recall in entry["baselines"].items():
        _validate_recall(recall, f"{at}.baselines.{name}")
    if "localization" in entry:
        _validate_localization(entry["localization"], f"{at}.localization")
    if "positions" in entry:
        _validate_positions(entry["positions"], f"{at}.positions")


def _validate_positions(entry: Any, at: str) -> None:
    """Shares in per cent with an interval each, of the head, and of `retrieval` and `training` where they are there."""
    _expect(isinstance(entry, Mapping), at, entry, "an object")
    within, intervals = entry.get("within"), entry.get("interval95")
    _expect(
        isinstance(within, Mapping) and bool(within), f"{at}.within", within, "an object with a key for each distance"
    )
    for name, share in within.items():
        _expect(_is_number(share) and 0 <= share <= 100, f"{at}.within.{name}", share, "per cent, 0 to 100")
    fits = isinstance(intervals, Mapping) and set(intervals) == set(within)
    _expect(fits, f"{at}.interval95", intervals, "those of the distances within")
    for key in ("outside", "bytes", "median_m"):
        value = entry.get(key, 0)
        _expect(_is_number(value) and value >= 0, f"{at}.{key}", value, "a number of at least 0")
    for key in ("retrieval", "training"):
        if key in entry:
            _validate_positions(entry[key], f"{at}.{key}")


def _validate_localization(entry: Any, at: str) -> None:
    _expect(isinstance(entry, Mapping), at, entry, "an object")
    classes, without = entry.get("classes"), entry.get("without_class")
    _expect(type(classes) is int and classes > 0, f"{at}.classes", classes, "a number of classes")
    _validate_recall(entry.get("recall"), f"{at}.recall")
    _validate_intervals(entry.get("interval95"), entry["recall"], f"{at}.interval95")
    fits = isinstance(without, Mapping) and set(without) == set(entry["recall"])
    _expect(fits, f"{at}.without_class", without, f"the thresholds of the recall {list(entry['recall'])}")


def _validate_recall(recall: Any, at: str) -> None:
    """{"25m": {"1": 67.5, "5": 91.0}}: per cent, and never falling with N."""
    _expect(isinstance(recall, Mapping) and bool(recall), at, recall, "an object with a key for each threshold")
    for threshold, values in recall.items():
        where = f"{at}.{threshold}"
        _expect(isinstance(values, Mapping) and bool(values), where, values, "an object with a key for each N")
        for n, value in values.items():
            _expect(str(n).isdecimal() and len(str(n)) < 10, where, n, "an integer N as key")
            _expect(_is_number(value) and 0 <= value <= 100, f"{where}.{n}", value, "per cent, 0 to 100")
        ascending = [values[n] for n in sorted(values, key=int)]
        _expect(ascending == sorted(ascending), where, ascending, "a recall that does not fall with N")


def _validate_intervals(intervals: Any, recall: Mapping[str, Any], at: str) -> None:
    """{"25m": {"1": [60.1, 74.2]}} for the thresholds and N of a recall."""
    _expect(isinstance(intervals, Mapping) and set(intervals) == set(recall), at, intervals, "those of the recall")
    for threshold, of in intervals.items():
        where = f"{at}.{threshold}"
        _expect(isinstance(of, Mapping) and set(of) == set(recall[threshold]), where, of, "one for each N")
        for n, ends in of.items():
            fits = isinstance(ends, list) and len(ends) == 2 and all(_is_number(end) for end in ends)
            _expect(fits, f"{where}.{n}", ends, "two numbers")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _expect(holds: bool, where: str, given: Any, expected: str) -> None:
    if not holds:
        raise UserError(f"{where}: expected {expected}, found {given!r:.200}")
