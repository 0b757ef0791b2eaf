"""Several hosts on one machine: N processes on loopback that run one command together, each with its own CPU devices.

    python launch/simulate_hosts.py --hosts=2 --devices=2 -- --config=configs/cosplace.py:tiny --workdir=runs/two

It is the program of a pod, only smaller: the same `jax.distributed`, the same sharded loaders, the same checkpoints.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import threading
from typing import IO


def main() -> int:
    """Starts the processes, passes on their output with the host's number in front, and returns the worst exit
    status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=2, help="processes")
    parser.add_argument("--devices", type=int, default=1, help="simulated devices of each")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds until all are stopped")
    parser.add_argument("command", nargs="+", help="arguments of jaxvpr.main, after --")
    given = parser.parse_args()
    coordinator = f"127.0.0.1:{free_port()}"
    processes = [start(given.command, given.hosts, host, given.devices, coordinator) for host in range(given.hosts)]
    watchers = [threading.Thread(target=relay, args=(host, process.stdout)) for host, process in enumerate(processes)]
    for watcher in watchers:
        watcher.start()
    status = wait(processes, given.timeout)
    for watcher in watchers:
        watcher.join()
    return status


def free_port() -> int:
    """A port of the loopback address that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(command: list[str], hosts: int, host: int, devices: int, coordinator: str) -> subprocess.Popen[str]:
    """One simulated host."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONUNBUFFERED": "1",
    }
    flags = [f"--coordinator={coordinator}", f"--processes={hosts}", f"--process={host}"]
    return subprocess.Popen(
        [sys.executable, "-m", "jaxvpr.main", *command, *flags],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def relay(host: int, lines: IO[str] | None) -> None:
    """Prints a process's lines."""
    for line in lines or ():
        print(f"[host {host}] {line}", end="", flush=True)


def wait(processes: list[subprocess.Popen[str]], timeout: float) -> int:
    """Waits for all; one that fails takes the others with it, since they would wait for it for ever.

    It kills: SIGTERM would only ask them to leave together with the one that is gone.
    """
    status = 0
    pending = list(processes)
    while pending:
        for process in list(pending):
            try:
                code = process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                timeout -= 0.2
                if timeout > 0:
                    continue
                process.kill()
                code = 1
            pending.remove(process)
            status = max(status, abs(code))
            if code:
                for other in pending:
                    other.kill()
    return status


if __name__ == "__main__":
    sys.exit(main())
