"""How a process finds the other hosts of its run."""

from __future__ import annotations

import os
import socket
import time

import jax
from jax._src import clusters

from jaxvpr.errors import UserError
from jaxvpr.parallel import connection, environment
from jaxvpr.parallel.environment import Seat

PORT_SECONDS = 30.0  # how long process 0 waits for its port, which an earlier run may still hold
RETRY_SECONDS = 0.5


def start(coordinator: str = "", processes: int = 0, process: int = -1, wait: float = 3600.0) -> None:
    """Joins the other hosts of this run; does nothing for a run of one.

    Args:
      coordinator: `host:port` of process 0; "auto" asks the environment (explicit variables, Open MPI, SLURM) and then
        JAX (TPU pod, Kubernetes).
      processes: how many processes there are.
      process: the number of this one.
      wait: seconds that hosts wait for a late one.

    Raises:
      UserError: for "auto" where no cluster is found, a name that no host has, or a port that another program holds.
      HostLost: as `connection.connect`.
    """
    if not coordinator:
        return
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if coordinator == "auto":
        seat = environment.seat(os.environ) or _of_jax(wait)
    else:
        seat = Seat(coordinator, processes, process)
        _resolve(coordinator)
    if seat.process == 0:
        _await_port(*environment.split(seat.coordinator))
    # With numbers JAX takes these of the GPUs, and with an empty list all; with None it would take one in any step of
    # SLURM, however many the host has. The variable is JAX's own.
    gpus = None if "JAX_LOCAL_DEVICE_IDS" in os.environ else environment.gpus(os.environ)
    connection.connect(*seat, wait, gpus)


def _of_jax(wait: float) -> Seat:
    """What JAX finds out over the network."""
    detect = clusters.ClusterEnv.auto_detect_unset_distributed_params
    try:
        coordinator, processes, process, _ = detect(None, None, None, [], None, int(wait))
    except RuntimeError as error:  # of Kubernetes, or of a TPU's metadata: it says what is wrong
        raise UserError(f"--coordinator=auto: {error}") from error
    if coordinator is None or processes is None or process is None:
        raise UserError(
            f"--coordinator=auto found no cluster. It looked for\n{environment.looked_for(os.environ)}\n"
            "Give --coordinator=HOST:PORT --processes=N --process=I in each process, or leave it out for one host"
        )
    return Seat(coordinator, processes, process)


def _resolve(address: str) -> None:
    host, port = environment.split(address)
    try:
        socket.getaddrinfo(host, port)
    except OSError as error:
        raise UserError(f"--coordinator={address}: no host has this name ({error.strerror})") from None


def _await_port(host: str, port: int) -> None:
    """Returns when the port of process 0 is free: JAX would share it with another run, whose processes then meet the
    wrong one."""
    end = time.monotonic() + PORT_SECONDS
    while True:
        try:
            return _bind(port)
        except OSError as error:
            if time.monotonic() > end:
                raise UserError(
                    f"port {port} of this host is held by another program or run; give another one, in all processes: "
                    f"--coordinator={host}:PORT, or with --coordinator=auto the variable {environment.PORT}"
                ) from error
        time.sleep(RETRY_SECONDS)


def _bind(port: int) -> None:
    """Takes the port and gives it back; it never listens, since another host may look whether somebody does."""
    dual = socket.has_dualstack_ipv6()
    with socket.socket(socket.AF_INET6 if dual else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # that of a run which has just ended is free
        if dual:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        probe.bind(("", port))
