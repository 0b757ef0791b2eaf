"""Runs one host's command, and runs it again where it ended for a reason that passes; it goes on from its checkpoint.

    python launch/restart.py --times=10 --pause=40 -- python -m jaxvpr.main --config=FILE --workdir=FOLDER

Again: after a lost host (status 75), a crash (1) or a death by signal. Never again: after success (0), a mistake to
mend (2), Ctrl-C (130), any other status, or once this program itself was told to stop (SIGTERM, Ctrl-C). It passes
SIGTERM on, so that a run on a machine that is taken away saves first. Every host has its own. They start again at about
the same time and wait for each other: a pause longer than the half minute in which all notice that one is lost.

With JAXVPR_OVERLAP=1 in its environment GPUs add up gradients while they still compute others: XLA's scheduler that
hides the time of collectives is switched on, where the command's Python has an XLA that knows it.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time

PASSING = {1, 75}
OVERLAP = "--xla_gpu_enable_latency_hiding_scheduler=true"


def main() -> int:
    """Runs the command until it ends for good; returns its status, 128 + N for a death by signal N."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10, help="how often it is started again (default: 10)")
    parser.add_argument("--pause", type=float, default=40, help="seconds before each (default: 40)")
    parser.add_argument("command", nargs="+", help="after --")
    given = parser.parse_args()
    host = Host(given.command, environment(given.command))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, host.told)
    for again in range(1, given.times + 2):
        status = host.run()
        if host.stopped or not passes(status) or again > given.times:
            break
        say(f"ended with status {status}; starts again in {given.pause:g} s ({again} of {given.times})")
        host.wait(given.pause)
        if host.stopped:
            break
    if status:
        say(f"ended with status {status}{', as it was told to' * host.stopped}; is not started again")
    return status


def passes(status: int) -> bool:
    """Whether the same command may succeed the next time; 130 is Ctrl-C."""
    return status in PASSING or (status > 128 and status != 128 + signal.SIGINT)


def environment(command: list[str]) -> dict[str, str]:
    """The environment of the command, with `OVERLAP` among XLA's flags if that is asked for and XLA knows it: it ends a
    process over a flag that it does not know."""
    ours, flags = dict(os.environ), os.environ.get("XLA_FLAGS", "")
    if ours.get("JAXVPR_OVERLAP", "0") == "0" or OVERLAP.partition("=")[0] in flags:
        return ours
    asked = ours | {"XLA_FLAGS": f"{flags} {OVERLAP}".strip()}
    probe = [command[0], "-c", "import jax; jax.devices()"]
    try:
        known = not subprocess.run(
            probe, env=asked | {"JAX_PLATFORMS": "cpu"}, capture_output=True, check=False
        ).returncode
    except OSError:
        known = False
    if not known:
        say(f"JAXVPR_OVERLAP: {command[0]} has no XLA that takes {OVERLAP}; starts without it")
    return asked if known else ours


def say(text: str) -> None:
    """To stderr, as the program itself does."""
    print(f"restart.py: {text}", file=sys.stderr, flush=True)


class Host:
    """The command of one host, and whether it was told to stop."""

    def __init__(self, command: list[str], environment: dict[str, str]):
        self.command, self.environment, self.stopped = command, environment, False
        self.process: subprocess.Popen[bytes] | None = None

    def told(self, number: int, _: object) -> None:
        """A signal came. SIGTERM is passed on; a terminal gives its Ctrl-C to the command too."""
        self.stopped = True
        if self.process and number == signal.SIGTERM:
            self.process.send_signal(number)

    def run(self) -> int:
        """One run; its status, as a shell gives it."""
        try:
            self.process = subprocess.Popen(self.command, env=self.environment)
        except OSError as error:
            say(f"{self.command[0]}: {error.strerror}")
            return 2
        if self.stopped:  # while it was being started
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait()
        return status if status >= 0 else 128 - status

    def wait(self, seconds: float) -> None:
        """Waits for so long, or until a signal comes."""
        end = time.monotonic() + seconds
        while not self.stopped and time.monotonic() < end:
            time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
