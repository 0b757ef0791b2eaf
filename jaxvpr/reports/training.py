"""Charts of the log of a training run against the step."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jaxvpr.reports.charts import Series, line_chart, smooth, thin
from jaxvpr.reports.render import render

RECALL_KEY = re.compile(r"(?:^|/|_)(?:R|recall)@?(\d+)$", re.IGNORECASE)
LOCALIZED_KEY = re.compile(r"(?:^|/)LR@(\d+)$")
WITHIN_KEY = re.compile(r"(?:^|/)(\d+(?:\.\d+)?)(k?)m$")  # shares of answers within so many metres, or kilometres
MEASURED_LOSS = re.compile(r"^(.+)/loss$")  # of images that are looked at, not trained on at that step
ACCURACY, APART = "domain_accuracy", "domain_loss"
FOOLED = 50.0  # per cent: the accuracy of guessing between two domains
MEANING = (
    "At 50 % the classifier cannot tell the domain from the features. This counts only if it was better before the "
    "reversal grew: a classifier that never was has learned nothing."
)
Log = Sequence[Mapping[str, Any]]


def charts(log: Log) -> str:
    """Panels with the loss, the recall in validation and the domains, where the log has them; else empty text."""
    drawn = [
        ("Loss", _loss(log), ""),
        ("Answers within a distance", _within(log), ""),
        ("Validation recall", _validation(log, RECALL_KEY, "R"), ""),
        ("Validation by classification", _validation(log, LOCALIZED_KEY, "LR"), ""),
        ("Domain classifier", _classifier(log), MEANING),
        ("Domain loss", "" if column(log, ACCURACY)[0] else _distance(log), ""),
    ]
    return render("training.html", panels=[panel for panel in drawn if panel[1]])


def column(log: Log, key: str) -> tuple[list[float], list[float]]:
    """Steps and finite values of one key, by step; the last row of a step that was repeated after a restart."""
    rows = {row["step"]: float(row[key]) for row in log if _known(row.get("step")) and _known(row.get(key))}
    steps = sorted(rows)
    return steps, [rows[step] for step in steps]


def domain_accuracy(log: Log, points: int = 40) -> dict[str, Any] | None:
    """How often the classifier of domains was right, per cent, as an entry of `sweep.json`; None without one.

    Returns:
      `step` and `percent`, at most so many means of equally many steps, and `last_fifth`, the mean over the last fifth.
    """
    steps, percent = column(log, ACCURACY)
    if not steps:
        return None
    x, y = thin(steps, percent, points)
    last = percent[-math.ceil(len(percent) / 5) :]
    return {"step": x, "percent": y, "last_fifth": math.fsum(last) / len(last)}


def _known(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _smoothed(log: Log, key: str, name: str, colour: str) -> list[Series]:
    """The mean over neighbouring steps, before the faint values themselves where there are many."""
    x, y = thin(*column(log, key))
    raw = [Series(name, x, y, colour, faint=True)] if len(y) >= 40 else []
    return [*raw, Series(name, x, smooth(y, len(y) // 40), colour)]


def _loss(log: Log) -> str:
    """The loss, the parts of it that the log has by name (`lateral_loss`), without that of the domains, and with dots
    that of images that are looked at (`val/loss`)."""
    parts = sorted({key for row in log for key in row if key.endswith("_loss")} - {APART})
    looked_at = sorted({key for row in log for key in row if MEASURED_LOSS.search(key)})
    lines = _smoothed(log, "loss", "all" if parts else "batches" if looked_at else "mean", "run")
    for part, colour in zip(parts, ("untrained", "other", "right", "wrong"), strict=False):
        lines += [line for line in _smoothed(log, part, part.removesuffix("_loss"), colour) if not line.faint]
    for key, colour in zip(looked_at, ("other", "right", "thumbnail"), strict=False):
        name = key.removesuffix("/loss")
        lines.append(Series("training set" if name == "train" else name, *column(log, key), colour, markers=True))
    return line_chart(lines, x_label="step", y_label="loss")


def _validation(log: Log, wanted: re.Pattern[str], short: str) -> str:
    """The measures whose keys are `wanted`, by N; they are called `short`@N where there is one data set."""
    ns = {key: int(match[1]) for row in log for key in row if (match := wanted.search(key))}
    names = sorted(sorted(ns), key=lambda key: ns[key])
    colours = ("run", "other", "right", "thumbnail", "untrained")
    plain = len(set(ns.values())) == len(names)
    series = [
        Series(f"{short}@{ns[name]}" if plain else name, *column(log, name), colours[i], markers=True)
        for i, name in enumerate(names[: len(colours)])
    ]
    return line_chart(series, x_label="step", y_label="recall, %", y_range=(0.0, 100.0))


def _within(log: Log) -> str:
    """Shares of answers within the least distance that the log has: of each set, one line."""
    keys = {key: match for row in log for key in row if (match := WITHIN_KEY.search(key))}
    metres = {key: float(match[1]) * (1000 if match[2] else 1) for key, match in keys.items()}
    wanted = 25.0 if 25.0 in metres.values() else min(metres.values(), default=0.0)
    names = sorted(key for key in keys if metres[key] == wanted)
    series = [
        Series(name.rpartition("/")[0] or "all", *column(log, name), colour, markers=True)
        for name, colour in zip(names, ("run", "other", "right", "thumbnail", "untrained"), strict=False)
    ]
    return line_chart(series, x_label="step", y_label=f"within {wanted:g} m, %", y_range=(0.0, 100.0))


def _classifier(log: Log) -> str:
    """How often the classifier of domains is right, beside the coefficient of its reversed gradient."""
    x, y = thin(*column(log, ACCURACY))
    if not x:
        return ""
    # A step has only a few images: means of complete windows alone are meaningful.
    reach = len(y) // 40
    complete = slice(reach, len(y) - reach)
    at, coefficients = column(log, "reversal")
    lines = [
        Series("50 % (fooled)", [x[0], x[-1]], [FOOLED, FOOLED], "thumbnail", dash="5 5"),
        Series("reversal × 100", *thin(at, [100 * coefficient for coefficient in coefficients]), "untrained"),
        Series("of single steps", x if reach else [], y if reach else [], "run", faint=True),
        Series("accuracy", x[complete], smooth(y, reach)[complete], "run"),
    ]
    return line_chart(lines, x_label="step", y_label="accuracy, %", y_range=(0.0, 100.0))


def _distance(log: Log) -> str:
    """The loss of the domains without a classifier: MMD or CORAL."""
    return line_chart(_smoothed(log, APART, "mean", "run"), x_label="step", y_label="domain loss")
