"""Several hosts on one machine: N processes on loopback that run one command together, each with its own CPU devices.

    python launch/simulate_hosts.py --hosts=2 --devices=2 -- --config=configs/cosplace.py:tiny --workdir=runs/two

It is the program of a pod, only smaller: the same `jax.distributed`, the same sharded loaders, the same checkpoints.
With `--restarts=5` each host has its launcher (`restart.py`), as on a cluster: kill one, and the run goes on.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

GRACE_SECONDS = 10.0  # for the others, once a host has failed


def main() -> int:
    """Starts the processes, passes on their output with the host's number in front, and returns the exit status of the
    first that fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=2, help="processes")
    parser.add_argument("--devices", type=int, default=1, help="simulated devices of each")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds until all are stopped")
    parser.add_argument("--restarts", type=int, default=0, help="how often a host that is gone is started again")
    parser.add_argument("--pause", type=float, default=40, help="seconds before it is (default: 40)")
    parser.add_argument("command", nargs="+", help="arguments of jaxvpr.main, after --")
    given = parser.parse_args()
    coordinator = f"127.0.0.1:{free_port()}"
    processes = [start(given, host, coordinator) for host in range(given.hosts)]
    signal.signal(signal.SIGTERM, lambda *_: [process.terminate() for process in processes])
    watchers = [threading.Thread(target=relay, args=(host, process.stdout)) for host, process in enumerate(processes)]
    for watcher in watchers:
        watcher.start()
    try:
        status = wait(processes, given.timeout)
    except KeyboardInterrupt:
        status = 130
    finally:
        kill(processes)
    for watcher in watchers:
        watcher.join()
    return status


def free_port() -> int:
    """A port of the loopback address that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(given: argparse.Namespace, host: int, coordinator: str) -> subprocess.Popen[str]:
    """One simulated host, in a process group of its own."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={given.devices}",
        "PYTHONUNBUFFERED": "1",
    }
    launcher = [str(Path(__file__).with_name("restart.py")), f"--times={given.restarts}", f"--pause={given.pause}"]
    flags = [f"--coordinator={coordinator}", f"--processes={given.hosts}", f"--process={host}"]
    return subprocess.Popen(
        [*([sys.executable, *launcher, "--"] if given.restarts else []), sys.executable, "-m", "jaxvpr.main"]
        + [*given.command, *flags],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )


def kill(processes: list[subprocess.Popen[str]]) -> None:
    """Ends hosts at once, and their launchers with them."""
    for process in processes:
        with suppress(ProcessLookupError):  # all of the group have ended
            os.killpg(process.pid, signal.SIGKILL)


def relay(host: int, lines: IO[str] | None) -> None:
    """Prints a process's lines."""
    for line in lines or ():
        print(f"[host {host}] {line}", end="", flush=True)


def wait(processes: list[subprocess.Popen[str]], timeout: float) -> int:
    """Waits for all, and returns the status of the first that fails. The others then have some seconds to say so too.

    After that they are killed: SIGTERM would only ask them to leave together with the one that is gone.
    """
    status = 0
    end = time.monotonic() + timeout
    while pending := [process for process in processes if process.poll() is None]:
        failed = [abs(process.returncode) for process in processes if process.returncode]
        if failed and not status:
            status, end = failed[0], min(end, time.monotonic() + GRACE_SECONDS)
        if time.monotonic() > end:
            kill(pending)
            return status or 1
        time.sleep(0.1)
    return status or max(abs(process.returncode) for process in processes)


if __name__ == "__main__":
    sys.exit(main())
