"""How a process joins the other hosts of its run."""

from __future__ import annotations

import os

import jax

from jaxvpr.errors import UserError
from jaxvpr.parallel import connection


def start(coordinator: str = "", processes: int = 0, process: int = -1, wait: float = 3600.0) -> None:
    """Joins the other hosts of this run; does nothing for a run of one.

    Args:
      coordinator: `host:port` of process 0; "auto" lets JAX detect the cluster (TPU pod, SLURM, Kubernetes, MPI).
      processes: how many processes there are.
      process: the number of this one.
      wait: seconds that hosts wait for a late one.

    Raises:
      UserError: for "auto" where JAX finds no cluster.
    """
    if not coordinator:
        return
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if coordinator == "auto":
        try:
            jax.distributed.initialize()
        except ValueError as error:  # it asks for its arguments
            raise UserError(
                "--coordinator=auto found no cluster: neither a TPU pod nor a job of SLURM (SLURM_JOB_ID), Kubernetes "
                "(KUBERNETES_SERVICE_HOST) or Open MPI (OMPI_MCA_orte_hnp_uri). Give --coordinator=HOST:PORT "
                f"--processes=N --process=I in each process, or leave it out for one host. JAX says: {error}"
            ) from error
    else:
        connection.connect(coordinator, processes, process, wait)
