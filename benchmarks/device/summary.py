"""The lines of a device check as a table: rates, ratios of ours to PyTorch's, and shares of the machine's peak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.device.runner import OK, Line

OURS = "jaxvpr"
HEAD = ("measured", "side", "images/s", "sent from the host", "jaxvpr / this", "share of peak", "peak MiB")


def table(lines: Sequence[Line], peak: str) -> str:
    """Markdown: the rates, then every other figure, then what did not end well.

    Args:
      peak: the measurement whose "bfloat16 TFLOP/s" the shares are taken of; where it is missing, so are they.
    """
    good = {line["name"]: line["figures"] for line in lines if line["status"] == OK}
    most = good.get(peak, {}).get("bfloat16 TFLOP/s")
    rates = {name: figures for name, figures in good.items() if ": " in name}
    rows = [HEAD, tuple("---" for _ in HEAD), *(_row(name, rates, most) for name in rates)] if rates else []
    drawn = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    others = [f"- {name}: {_said(figures)}" for name, figures in good.items() if name not in rates]
    bad = [f"- {line['name']}: {line['status']}. {_last(line['reason'])}" for line in lines if line["status"] != OK]
    return "\n\n".join(part for part in (drawn, "\n".join(others), "\n".join(bad)) if part)


def _row(name: str, rates: Mapping[str, Mapping[str, Any]], most: float | None) -> tuple[str, ...]:
    group, _, side = name.partition(": ")
    figures, plain = rates[name], rates.get(f"{group}: {OURS}", {})
    rate, work = figures["images_per_second"], plain.get("gflop_per_image")
    ratio = f"{plain['images_per_second'] / rate:.2f}" if plain else "-"
    share = f"{rate * work / 1000 / most:.1%}" if work and most else "-"
    memory = figures["peak_mib"]
    return group, side, f"{rate:,}", f"{figures['from_host_images_per_second']:,}", ratio, share, f"{memory or '-'}"


def _last(reason: str) -> str:
    """The last line of a reason; the whole of it is in the JSON."""
    return reason.strip().rpartition("\n")[2]


def _said(figures: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in figures.items())
