"""What a cluster's environment variables say of this process: its run, its number, its share of the host's GPUs.

Explicit variables come first, then Open MPI, then SLURM. What is known of neither (TPU pods, which answer over the
network, and Kubernetes with the package `kubernetes`) is left to JAX.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import NamedTuple

from jaxvpr.errors import UserError

Environment = Mapping[str, str]
ADDRESS, PORT = "JAX_COORDINATOR_ADDRESS", "JAX_COORDINATOR_PORT"
NODES, RUN_OF_MPI = "SLURM_STEP_NODELIST", "OMPI_MCA_orte_hnp_uri"
# The number of processes and the number of this one, and what must be there for them to count: a script of SLURM that
# is not yet a step has numbers too, and a pod of Kubernetes has its own in any job.
NUMBERS = (
    ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID", ""),
    ("JAX_NUM_PROCESSES", "JOB_COMPLETION_INDEX", ADDRESS),
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", ""),
    ("SLURM_NTASKS", "SLURM_PROCID", NODES),
)
DETERMINISTIC = "xla_gpu_deterministic_ops"
LAST_PORTS = 65536 - 4096  # those from here on are not given to programs that ask for any


def add_up_in_order(environment: MutableMapping[str, str]) -> None:
    """Has XLA take operations alone that add up in the same order every time; before JAX looks for devices.

    A flag of the user's own stays as it is.
    """
    flags = environment.get("XLA_FLAGS", "")
    if DETERMINISTIC not in flags:
        environment["XLA_FLAGS"] = f"{flags} --{DETERMINISTIC}=true".strip()


class Seat(NamedTuple):
    """Coordinator (`HOST:PORT` of process 0), number of processes, and number of this one, from 0."""

    coordinator: str
    processes: int
    process: int


def seat(environment: Environment) -> Seat | None:
    """The seat of this process; None where the variables do not say it, which JAX may still find out.

    Raises:
      UserError: for a variable that is not what it should be.
    """
    coordinator = environment.get(ADDRESS) or _of_open_mpi(environment) or _of_slurm(environment)
    for count, number, needs in NUMBERS:
        if coordinator and {count, number} <= set(environment) and (not needs or needs in environment):
            found = Seat(coordinator, _integer(environment, count), _integer(environment, number))
            split(coordinator, ADDRESS)
            if not 0 <= found.process < found.processes:
                raise UserError(
                    f"{number}={found.process} must be a number from 0 to {count} - 1 = {found.processes - 1}"
                )
            return found
    return None


def split(address: str, name: str = "--coordinator") -> tuple[str, int]:
    """Host and port of `HOST:PORT`, which `name` gives.

    Raises:
      UserError: where it is no such address.
    """
    host, _, port = address.rpartition(":")
    if not host or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise UserError(f"{name}={address} must be HOST:PORT, the address of process 0 and a port from 1 to 65535")
    return host.strip("[]"), int(port)


def looked_for(environment: Environment) -> str:
    """What `seat` and JAX look for, and what of it is there, one line a way to start."""

    def there(*names: str) -> str:
        found = [name for name in names if name in environment]
        return f"only {', '.join(found)} is set" if found else "none of them is set"

    explicit = (ADDRESS, "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "JOB_COMPLETION_INDEX")
    slurm = "SLURM_JOB_ID is set, but this is no step" if "SLURM_JOB_ID" in environment else "not set"
    pod = "this is a pod; give it these variables" if "KUBERNETES_SERVICE_HOST" in environment else "this is no pod"
    return "\n".join(
        (
            f"  variables: {', '.join(explicit[:3])} (or {explicit[3]}): {there(*explicit)}",
            f"  Kubernetes: the same variables, as launch/jobset.yaml gives them: {pod}",
            f"  SLURM: a step, which srun starts ({NODES}): {slurm}",
            f"  Open MPI: {RUN_OF_MPI}, or OMPI_COMM_WORLD_SIZE with {ADDRESS}: {there('OMPI_COMM_WORLD_SIZE')}",
            "  TPU pod: no TPU found",
        )
    )


def gpus(environment: Environment) -> list[int]:
    """Which of the GPUs that it sees this process takes, counted from 0; empty for all.

    One process of a host takes all, and so does one to which SLURM shows a part of the host's. Where several see all,
    each takes its share: one of four GPUs if there are four processes, two if there are two.

    Raises:
      UserError: for more processes on a host than it has GPUs.
    """
    processes, number = _on_this_host(environment)
    visible = environment.get("CUDA_VISIBLE_DEVICES") or environment.get("ROCR_VISIBLE_DEVICES")
    here = int(environment.get("SLURM_GPUS_ON_NODE", 0))
    seen = len(visible.split(",")) if visible else here
    if processes == 1 or seen < here:
        return []
    if not seen:  # nobody says how many there are
        return [number]
    share = seen // processes
    if not share:
        raise UserError(
            f"{processes} processes on a host with {seen} GPUs: start at most one for each, or one for all of them"
        )
    return list(range(number * share, (number + 1) * share))


def _on_this_host(environment: Environment) -> tuple[int, int]:
    """How many processes of the run this host has, and which of them this is."""
    if "OMPI_COMM_WORLD_LOCAL_SIZE" in environment:
        return _integer(environment, "OMPI_COMM_WORLD_LOCAL_SIZE"), _integer(environment, "OMPI_COMM_WORLD_LOCAL_RANK")
    if NODES not in environment:
        return 1, 0
    tasks: list[int] = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", environment["SLURM_STEP_TASKS_PER_NODE"]):  # 4(x2),3
        tasks += [int(count)] * int(times or 1)
    return tasks[_integer(environment, "SLURM_NODEID")], _integer(environment, "SLURM_LOCALID")


def _of_slurm(environment: Environment) -> str:
    """The first host of a step, and a port that another job or step hardly has."""
    if not (found := re.match(r"(?:\[[^\]]*\]|[^,\[])+", environment.get(NODES, ""))):
        return ""
    host = re.sub(r"\[(\w+)[^\]]*\]", r"\1", found[0])  # node[01-04,07]
    job, step = (_integer(environment, name) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    return f"{host}:{_port(environment, job + 1009 * step)}"


def _of_open_mpi(environment: Environment) -> str:
    """The host that mpirun runs on, which must have process 0, and a port made of the number of the job."""
    uri = environment.get(RUN_OF_MPI, "")  # 745996288.0;tcp://192.0.2.2,198.51.100.3:38125;tcp6://[fd00::2]:52229
    if not (found := re.match(r"(\d+)\.\d+;.*?(?:tcp://([^,:]+)|tcp6://(\[[^,\]]+))", uri)):
        return ""
    host = found[2] or f"{found[3]}]"
    return f"{host}:{_port(environment, int(found[1]) // 4096)}"


def _port(environment: Environment, job: int) -> int:
    return _integer(environment, PORT) if PORT in environment else LAST_PORTS + job % 4096


def _integer(environment: Environment, name: str) -> int:
    try:
        return int(environment[name])
    except (KeyError, ValueError):
        raise UserError(f"{name}={environment.get(name, '')!r} is not an integer") from None
