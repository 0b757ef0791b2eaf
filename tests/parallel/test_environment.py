"""Environment variables of clusters, as they were seen there, and what they say of a process."""

import pytest

from jaxvpr.errors import UserError
from jaxvpr.parallel import environment

# The fourth task of a step of SLURM 22.05, `srun --nodes=2 --ntasks=5 --gpus-per-node=4`.
SLURM = {
    "SLURM_JOB_ID": "4100", "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "gpu[01-02]", "SLURM_NODEID": "1",
    "SLURM_NTASKS": "5", "SLURM_PROCID": "3", "SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "3,2",
    "SLURM_GPUS_ON_NODE": "4", "CUDA_VISIBLE_DEVICES": "0,1,2,3",
}  # fmt: skip
# The second of two processes that mpirun of Open MPI 4.1 started.
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "745996288.0;tcp://192.0.2.2,198.51.100.3:38125;tcp6://[fd00::2]:52229",
    "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}  # fmt: skip
EXPLICIT = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "3", "JAX_PROCESS_ID": "2"}
JOBSET = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "3", "JOB_COMPLETION_INDEX": "1"}


def without(variables, *names):
    return {name: value for name, value in variables.items() if name not in names}


SEATS = {
    "SLURM": (SLURM, ("gpu01:61444", 5, 3)),  # 65536 - 4096 + 4100 % 4096
    "a second step at once": (SLURM | {"SLURM_STEP_ID": "1"}, ("gpu01:62453", 5, 3)),
    "a port of one's own": (SLURM | {"JAX_COORDINATOR_PORT": "8000"}, ("gpu01:8000", 5, 3)),
    "other names of nodes": (SLURM | {"SLURM_STEP_NODELIST": "r[2-3]n[007,009-012]-ib,x"}, ("r2n007-ib:61444", 5, 3)),
    "nodes one by one": (SLURM | {"SLURM_STEP_NODELIST": "big.a,gpu[01-02]"}, ("big.a:61444", 5, 3)),
    "Open MPI": (OPEN_MPI, ("192.0.2.2:63344", 2, 1)),  # 745996288 / 4096 = 182128 = 44 * 4096 + 1904
    "Open MPI by IPv6": (
        OPEN_MPI | {"OMPI_MCA_orte_hnp_uri": "4096.0;tcp6://[fd00::2,fd00::3]:4"}, ("[fd00::2]:61441", 2, 1),
    ),
    "mpirun in a job of SLURM": (SLURM | OPEN_MPI, ("192.0.2.2:63344", 2, 1)),
    "Open MPI 5, which says no address": (
        without(OPEN_MPI, "OMPI_MCA_orte_hnp_uri") | {"JAX_COORDINATOR_ADDRESS": "a:1"}, ("a:1", 2, 1),
    ),
    "explicit": (EXPLICIT, ("a:1", 3, 2)),
    "explicit before SLURM": (SLURM | EXPLICIT, ("a:1", 3, 2)),
    "an address in SLURM": (SLURM | {"JAX_COORDINATOR_ADDRESS": "[::1]:99"}, ("[::1]:99", 5, 3)),
    "JobSet": (JOBSET, ("a:1", 3, 1)),
    "nothing": ({}, None),
    "an address alone": ({"JAX_COORDINATOR_ADDRESS": "a:1"}, None),
    "numbers alone": (without(EXPLICIT, "JAX_COORDINATOR_ADDRESS"), None),
    "a script that is not yet a step": (without(SLURM, "SLURM_STEP_NODELIST"), None),
    "a pod of a TPU": (without(JOBSET, "JAX_COORDINATOR_ADDRESS"), None),
}  # fmt: skip


@pytest.mark.parametrize("name", SEATS)
def test_seats(name):
    variables, expected = SEATS[name]
    assert environment.seat(variables) == expected


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (EXPLICIT | {"JAX_PROCESS_ID": "3"}, r"JAX_PROCESS_ID=3 must be a number from 0 to JAX_NUM_PROCESSES - 1 = 2"),
        (EXPLICIT | {"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES='two' is not an integer"),
        (EXPLICIT | {"JAX_COORDINATOR_ADDRESS": "a"}, "JAX_COORDINATOR_ADDRESS=a must be HOST:PORT"),
        (EXPLICIT | {"JAX_COORDINATOR_ADDRESS": "a:65536"}, "a port from 1 to 65535"),
        (SLURM | {"JAX_COORDINATOR_PORT": ""}, "JAX_COORDINATOR_PORT='' is not an integer"),
    ],
)
def test_a_wrong_variable_is_named(variables, message):
    with pytest.raises(UserError, match=message):
        environment.seat(variables)


# What SLURM 22.05 showed the tasks of a node of four GPUs, and whose they are.
GPUS = {
    "one task a node": ({"SLURM_STEP_TASKS_PER_NODE": "1(x2)"}, []),
    "one task a GPU": ({"SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_LOCALID": "3"}, [3]),
    "two tasks, each a half": ({"SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_LOCALID": "1"}, [2, 3]),
    "three tasks": ({"SLURM_STEP_TASKS_PER_NODE": "4(x1),3", "SLURM_LOCALID": "2"}, [2]),
    "--gpus-per-task=1": (
        {"SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_LOCALID": "3", "CUDA_VISIBLE_DEVICES": "3"}, [],
    ),
    "--gpus-per-task=2": (
        {"SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_LOCALID": "1", "CUDA_VISIBLE_DEVICES": "2,3"}, [],
    ),
    "--gpu-bind=none": (
        {"SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_LOCALID": "1", "CUDA_VISIBLE_DEVICES": ""}, [2, 3],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GPUS)
def test_gpus_of_a_task_of_slurm(name):
    variables, expected = GPUS[name]
    assert environment.gpus(SLURM | variables) == expected


def test_gpus_elsewhere():
    assert environment.gpus({}) == environment.gpus(EXPLICIT) == environment.gpus(JOBSET) == []
    assert environment.gpus(OPEN_MPI) == [1]  # nobody says how many the host has: as JAX does
    assert environment.gpus(OPEN_MPI | {"CUDA_VISIBLE_DEVICES": "4,5,6,7"}) == [2, 3]
    assert environment.gpus(OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}) == []
    with pytest.raises(UserError, match="3 processes on a host with 2 GPUs"):
        environment.gpus(OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "3", "ROCR_VISIBLE_DEVICES": "0,1"})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "--xla_gpu_deterministic_ops=true"),
        ({"XLA_FLAGS": "--xla_dump_to=x"}, "--xla_dump_to=x --xla_gpu_deterministic_ops=true"),
        ({"XLA_FLAGS": "--xla_gpu_deterministic_ops=false"}, "--xla_gpu_deterministic_ops=false"),
    ],
)
def test_operations_in_order_are_asked_for_beside_the_users_own_flags(before, after):
    environment.add_up_in_order(before)
    assert before == {"XLA_FLAGS": after}


def test_what_was_looked_for_is_said_and_what_of_it_is_there():
    said = environment.looked_for({"SLURM_JOB_ID": "1", "JAX_NUM_PROCESSES": "2", "KUBERNETES_SERVICE_HOST": "x"})
    for part in ("only JAX_NUM_PROCESSES is set", "SLURM_JOB_ID is set, but this is no step", "this is a pod"):
        assert part in said
    assert "none of them is set" in environment.looked_for({}) and "only" not in environment.looked_for({})
