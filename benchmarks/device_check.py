"""What matters on a machine with a GPU, in one run of six minutes: ours beside PyTorch, parity, resume, loader, mining.

Every measurement is a process of its own with a limit of its own, the most valuable first; each prints one line of
JSON as it ends: name, seconds, status (ok, wrong, failed, timeout, left out), device, versions, figures, and the reason
where it is not ok. What does not fit into the time is named. The last lines are a summary: rates, ratios, shares of the
peak of a matrix product measured in the same run. docs/device_check.md says what is measured, and what that needs.

  python -m benchmarks.device_check --out FOLDER
  python -m benchmarks.device_check --list
  python -m benchmarks.device_check --only mining "extract dinov2"      # those whose names contain one of these
  JAX_PLATFORMS=cpu python -m benchmarks.device_check --tiny           # shows that all of it runs; measures nothing
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.device import runner, summary
from benchmarks.device.plan import PEAK, PLAN

SECONDS = 360.0
PATIENCE = 5.0  # times the limits, for tiny shapes on a slow processor


def main() -> None:
    """Measures the plan, or does one measurement of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for all measurements together")
    parser.add_argument("--only", nargs="+", default=[""], metavar="TEXT", help="those whose names contain a TEXT")
    parser.add_argument("--out", type=Path, help="folder for device_check.jsonl and device_check.md")
    parser.add_argument("--tiny", action="store_true", help="shapes that a CPU does in seconds")
    parser.add_argument("--list", action="store_true", help="prints names and limits, and measures nothing")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        [one] = [one for one in PLAN if one.name == given.one]
        print(json.dumps(runner.report(one, runner.At(given.folder, given.tiny))))
        return
    plan = [one for one in PLAN if any(text in one.name for text in given.only)]
    if not plan:
        parser.error(f"no measurement's name contains any of {given.only}; --list prints them")
    if given.list:
        print("\n".join(f"{one.seconds:4g} s  {one.name}" for one in plan))
        return
    # Told to end, it ends the measurement that is running too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    check(plan, given.seconds, given.tiny, given.out)


def check(plan: Sequence[runner.Measurement], seconds: float, tiny: bool, out: Path | None) -> list[runner.Line]:
    """Measures a plan, prints its lines and their summary, and writes both if asked to."""
    lines: list[runner.Line] = []
    if out:
        out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        at = runner.At(Path(folder), tiny)
        command = partial(runner.own_command, "benchmarks.device_check", at)
        for line in runner.run(plan, command, seconds, PATIENCE if tiny else 1):
            lines.append(line)
            print(json.dumps(line), flush=True)
            if out:  # at once, since whoever lends the machine may take it back
                (out / "device_check.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
                (out / "device_check.md").write_text(summary.table(lines, PEAK) + "\n")
    print(summary.table(lines, PEAK))
    return lines


if __name__ == "__main__":
    main()
