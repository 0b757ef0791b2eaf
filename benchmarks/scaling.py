"""How a training step would scale: the real step compiled for 1 to 256 devices, and a model of its time.

Every row is a process of its own (`benchmarks.compiled`), each device has the same images whatever their number, and
nothing is run. Memory, FLOPs and collectives are those of programs compiled for simulated CPU devices; with `--slices`,
of programs compiled for slices of TPUs, with batches that fit one. `expected` is arithmetic on these with stated
bandwidths, not a measurement: docs/scaling.md says what it leaves out.

Rows that the file of `--out` has already are kept, so that a long run can be stopped.

  JAX_DISABLE_MOST_OPTIMIZATIONS=1 python -m benchmarks.scaling --out benchmarks/results/scaling.json
  JAX_OPTIMIZATION_LEVEL=O1 python -m benchmarks.scaling --slices tpu:v5e:2x2 tpu:v6e:2x2 \
--out benchmarks/results/tpu_slices.json
  python -m benchmarks.scaling --cases cosplace --changes mesh.model=8 --devices 8 64
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import side_by_side

DEVICES = tuple(2**power for power in range(9))
HEAD = ["step", "devices", "MiB: arguments", "temporaries", "GFLOP", "in bfloat16", "collectives", "MiB sent"]
COMPILING = ("JAX_OPTIMIZATION_LEVEL", "JAX_DISABLE_MOST_OPTIMIZATIONS")
CPU = "cpu"
Row = dict[str, Any]


class Case(NamedTuple):
    """A recipe in bfloat16, how many elements (images, or queries with their triplets) each device has, and the keys
    beside `batch` that grow with the devices, each with its value on one."""

    recipe: str
    batch: int
    grows: Mapping[str, int]
    whole: int

    def on(self, devices: int) -> str:
        """The recipe for so many devices."""
        return self._with(self.batch * devices, {key: value * devices for key, value in self.grows.items()})

    def as_one(self) -> str:
        """The recipe with the batch that a slice of TPUs shares."""
        return self._with(self.whole, {key: value * self.whole // self.batch for key, value in self.grows.items()})

    def _with(self, batch: int, grown: Mapping[str, int]) -> str:
        return ",".join([self.recipe, f"batch={batch}", *(f"{key}={value}" for key, value in grown.items())])


CASES = {
    "cosplace": Case("configs/cosplace.py:sf_xl,model.dtype=bfloat16,model.backbone=resnet50", 32, {}, 256),
    "salad": Case("configs/salad.py:salad,model.dtype=bfloat16", 240, {"objective.P": 60}, 240),
    "mixvpr": Case("configs/mixvpr.py:mixvpr,model.dtype=bfloat16", 480, {"objective.P": 120}, 480),
    "netvlad": Case("configs/netvlad.py:pitts30k,model.dtype=bfloat16", 4, {"objective.refresh": 1000}, 4),
}


class Chip(NamedTuple):
    """What its maker states; docs/scaling.md has the sources.

    Attributes:
      peak: dense TFLOP/s of matrix products by type and precision; others are taken as those of float32 by default.
      near, far: GB/s that a device sends at most within a node, and where rings cross nodes.
      node: devices of a node; 0 where all are joined alike.
    """

    peak: Mapping[str, float]
    near: float
    far: float
    node: int


HOPPER = {"bfloat16": 989.0, "float32": 495.0, "float32 HIGHEST": 67.0}
CHIPS = {
    "H100": Chip(HOPPER, 450, 400, 8),  # and H200, which differs in its memory alone
    # A product of float32 is one, three or six of bfloat16 on a TPU.
    "v5e": Chip({"bfloat16": 197, "float32": 197, "float32 HIGH": 197 / 3, "float32 HIGHEST": 197 / 6}, 100, 100, 0),
    "v6e": Chip({"bfloat16": 918, "float32": 918, "float32 HIGH": 918 / 3, "float32 HIGHEST": 918 / 6}, 200, 200, 0),
}
SHARE = 0.45  # of the peak that products reach
REACHED = 0.8  # of the stated bandwidth
START = 20e-6  # seconds that every collective takes, whatever its size


def expected(row: Row, chip: Chip) -> dict[str, float]:
    """Seconds of a row's step on a chip, by the model, and its efficiency: the part of the time that is not sending.

    `overlapped`: the same if sending hid behind all of the computing.
    """
    compute = sum(gflop / 1e3 / (SHARE * _peak(chip, kind)) for kind, gflop in row["gflop_by_type"].items())
    rate = chip.far if 0 < chip.node < row["devices"] else chip.near
    collectives = row["collectives"].values()
    sent = sum(one["sent_mib"] for one in collectives) * 2**20 / (REACHED * rate * 1e9)
    started = START * sum(one["count"] for one in collectives) if row["devices"] > 1 else 0.0
    sending = sent + started
    return {
        "compute_ms": round(compute * 1e3, 2),
        "sending_ms": round(sending * 1e3, 2),
        "efficiency": round(compute / (compute + sending), 3),
        "overlapped": round(compute / max(compute, sending), 3),
    }


def on_chips(row: Row) -> dict[str, dict[str, float]]:
    """The expectations of a row by chip: of all of them, or of the one whose slice it was compiled for."""
    chips = CHIPS if row["platform"] == CPU else [row["platform"].split(":")[1]]
    return {chip: expected(row, CHIPS[chip]) for chip in chips}


def _peak(chip: Chip, kind: str) -> float:
    """TFLOP/s of a kind of `program.flops`, such as "float32 DEFAULT"; no precision makes more of bfloat16."""
    kind = "bfloat16" if kind.startswith("bfloat16") or "BF16_BF16" in kind else kind.removesuffix(" DEFAULT")
    return chip.peak.get(kind, chip.peak["float32"])


def wanted(given: argparse.Namespace) -> Iterator[tuple[str, str, str, int | None]]:
    """(case, recipe, platform, devices, where they are not all of a slice) of every row."""
    changes = "".join(f",{change}" for change in given.changes)
    for name in given.cases:
        for platform in given.slices or ():
            yield name, CASES[name].as_one() + changes, platform, None
        for count in () if given.slices else given.devices:
            yield name, CASES[name].on(count) + changes, CPU, count


def kept(out: Path | None) -> dict[tuple[str, str], Row]:
    """The rows of an earlier run, by recipe and platform."""
    rows: Sequence[Row] = json.loads(out.read_text())["results"] if out and out.exists() else []
    return {(row["recipe"], row["platform"]): row for row in rows}


def table(rows: Sequence[Row]) -> str:
    """The rows of a file as Markdown: of CPU devices with the expected efficiencies, of slices with what is sent."""
    simulated = rows[0]["platform"] == CPU
    more = [f"{chip}: efficiency" for chip in CHIPS] if simulated else ["ms computing, expected", "sending", "which"]
    lines = map(_line, sorted(rows, key=lambda row: (list(CASES).index(row["case"]), row["devices"])))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (HEAD + more, ["---"] * len(HEAD + more), *lines))


def _line(row: Row) -> list[str]:
    memory, found = row["memory_mib"], row["collectives"]
    count, sent = (sum(one[key] for one in found.values()) for key in ("count", "sent_mib"))
    on = str(row["devices"]) if row["platform"] == CPU else row["platform"].removeprefix("tpu:")
    line = [row["case"], on, f"{memory['argument']:,.0f}", f"{memory['temp']:,.0f}", f"{row['gflop']:,.0f}"]
    half = sum(gflop for kind, gflop in row["gflop_by_type"].items() if kind.startswith("bfloat16"))
    line += [f"{half / row['gflop']:.0%}", str(count), f"{sent:,.1f}"]
    if row["platform"] == CPU:
        return line + [f"{row['expected'][chip]['efficiency']:.2f}" for chip in CHIPS]
    [times] = row["expected"].values()
    kinds = ", ".join(f"{one['count']} {kind}" for kind, one in found.items())
    return [*line, f"{times['compute_ms']:.1f}", f"{times['sending_ms']:.1f}", kinds]


def main() -> None:
    """Compiles every row, or takes it from the file, and writes the report after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--devices", nargs="+", type=int, default=list(DEVICES), help="numbers of CPU devices")
    parser.add_argument("--slices", nargs="+", help="of TPUs, instead of CPU devices: tpu:v5e:2x2")
    parser.add_argument("--changes", nargs="+", default=[], metavar="KEY=VALUE", help="to every recipe")
    parser.add_argument("--out", type=Path, help="JSON file to write; it is printed either way")
    parser.add_argument("--table", type=Path, help="prints such a file as Markdown, and compiles nothing")
    given = parser.parse_args()
    if given.table:
        print(table(json.loads(given.table.read_text())["results"]))
        return
    rows = kept(given.out)
    for name, recipe, platform, count in wanted(given):
        if (recipe, platform) not in rows:
            flags = ["--devices", count] if count else []
            row = side_by_side.in_own_process("benchmarks.compiled", recipe, "--platform", platform, *flags)
            rows[recipe, platform] = {"case": name, **row}
        if given.out:
            given.out.write_text(json.dumps(_report(rows), indent=2) + "\n")
    side_by_side.finish(_report(rows), given.out)


def _report(rows: Mapping[tuple[str, str], Row]) -> side_by_side.Report:
    assumed = {"share of peak": SHARE, "share of bandwidth": REACHED, "seconds a collective": START}
    facts = {"assumed": assumed, "environment": {key: os.environ[key] for key in COMPILING if key in os.environ}}
    told = [row | {"expected": on_chips(row)} for row in rows.values()]
    return side_by_side.report(told, ("jax", "jaxlib", "libtpu"), **facts)


if __name__ == "__main__":
    main()
