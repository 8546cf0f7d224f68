"""Joining the processes of one job: what each of them does before its first computation.

Three ways to state it: JAX_COORDINATOR_ADDRESS with JAX_NUM_PROCESSES and JAX_PROCESS_ID (any
launcher, `launch/local.sh`), SLURM with several tasks, or a TPU pod slice with several hosts.
"""

import contextlib
import dataclasses
import os
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping

import deepssim_jax

_OWN = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_LOOPBACK = ("localhost", "127.", "[::1]", "::1")
# How often a process asks whether another one has failed, and under which name that is stored.
_POLL_S, _ENDED = 0.5, "ended"


@dataclasses.dataclass(frozen=True)
class Job:
    """How this process belongs to others; `how` is "variables", "SLURM" or "TPU"."""

    how: str
    processes: int
    process: int | None
    coordinator: str | None


def detect(environment: Mapping[str, str]) -> Job | None:
    """The job that these variables tell of, None where this process is alone.

    Raises:
      ValueError: the variables contradict each other, or a part of them is missing.
    """
    given = {name: environment[name] for name in _OWN if environment.get(name)}
    if given:
        missing = [name for name in _OWN if name not in given]
        if missing:
            raise ValueError(f"{next(iter(given))} is set, and {', '.join(missing)} is not")
        processes, process = (_whole(name, given[name]) for name in _OWN[1:])
        if not 0 <= process < processes:
            raise ValueError(f"JAX_PROCESS_ID={process} must lie in [0, {processes})")
        return Job("variables", processes, process, given[_OWN[0]]) if processes > 1 else None
    if "SLURM_PROCID" in environment and "SLURM_STEP_NUM_TASKS" in environment:
        tasks = _whole("SLURM_STEP_NUM_TASKS", environment["SLURM_STEP_NUM_TASKS"])
        rank = _whole("SLURM_PROCID", environment["SLURM_PROCID"])
        return Job("SLURM", tasks, rank, None) if tasks > 1 else None
    hosts = [h for h in environment.get("TPU_WORKER_HOSTNAMES", "").split(",") if h]
    if len(hosts) > 1:
        rank = environment.get("TPU_WORKER_ID")
        return Job("TPU", len(hosts), None if rank is None else _whole("TPU_WORKER_ID", rank), None)
    return None


def problems(job: Job | None, environment: Mapping[str, str]) -> list[str]:
    """What would make a job of several processes hang or run on a part of its machines."""
    if job is None:
        return []
    found = []
    nodes = int(environment.get("SLURM_STEP_NUM_NODES", environment.get("SLURM_NNODES", "1")))
    if job.coordinator and job.coordinator.startswith(_LOOPBACK) and nodes > 1:
        found.append(
            f"the coordinator {job.coordinator} is this machine's own loopback address, which the "
            f"other {nodes - 1} nodes cannot reach; give the first node's name"
        )
    wanted, seen = environment.get("SLURM_GPUS_ON_NODE"), environment.get("CUDA_VISIBLE_DEVICES")
    local = environment.get("SLURM_NTASKS_PER_NODE", "1")
    if wanted and seen and local == "1" and len(seen.split(",")) < int(wanted):
        found.append(
            f"only GPUs {seen} of {wanted} on this node are visible to its one process; the rest "
            "stay idle"
        )
    return found


def join() -> int:
    """Joins the job, if there is one; call it before anything is computed.

    Returns:
      The number of this process.

    Raises:
      ValueError: see `detect`.
      RuntimeError: the processes run different versions.
    """
    job = detect(os.environ)
    if job is None:
        return 0
    import jax

    # JAX's own service would take SIGTERM away from us, and then nothing would stop.
    jax.config.update("jax_enable_preemption_service", False)
    if job.how == "variables":
        jax.distributed.initialize(job.coordinator, job.processes, job.process)
    else:
        jax.distributed.initialize()
    from deepssim_jax import parallel

    jax.devices()  # each process waits here for the devices of all others
    mine = f"deepssim_jax {deepssim_jax.__version__}, jax {jax.__version__}"
    if not parallel.unanimous(zlib.crc32(mine.encode()) & 0x7FFFFFFF):
        raise RuntimeError(
            f"the processes of this job run different versions; process {jax.process_index()} has "
            f"{mine}. Install the same everywhere"
        )
    return jax.process_index()


def in_job() -> bool:
    """Whether this process has joined others."""
    jax = sys.modules.get("jax")  # who has not imported it has not joined
    return jax is not None and jax.distributed.is_initialized()


def number() -> int:
    """That of this process in its job, also before it has joined; 0 of one that is alone."""
    if in_job():
        import jax

        return jax.process_index()
    try:
        job = detect(os.environ)
    except ValueError:
        return 0
    return (job.process or 0) if job else 0


def is_first() -> bool:
    """Whether this process shows the progress of its job; one that is alone always does."""
    return number() == 0


def speaks(status: int) -> bool:
    """Whether it is for this process to say why the command ends: the first that fails does.

    All others hear of it within a second, and end with the same status (`following`).
    """
    if not in_job():
        return is_first()
    from deepssim_jax import parallel

    return parallel.first_to_say(_ENDED, str(int(status)))


@contextlib.contextmanager
def following(leave: Callable[[int], object]) -> Iterator[None]:
    """Calls `leave` with the status of another process that fails while the block runs."""
    if not in_job():
        yield
        return
    from deepssim_jax import parallel

    done = threading.Event()

    def follow() -> None:
        while not done.wait(_POLL_S):
            if (status := parallel.heard(_ENDED)) is not None and not done.is_set():
                leave(int(status))

    threading.Thread(target=follow, daemon=True).start()
    try:
        yield
        parallel.agreed(True)  # who is done early waits here, and still hears of a failure
    finally:
        done.set()


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name}={text!r} is no whole number") from None
