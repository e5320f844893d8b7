"""Where the trainings of a study run at the same time: which GPUs, and how many threads, each of them has."""

import os
from collections.abc import Mapping, Sequence

from tailmatch.datamodules.arguments import SettingsError


def environments(jobs: int | None, threads: int | None, gpus: Sequence[str], cores: int) -> list[dict[str, str]]:
    """Divide the devices of this machine among trainings that run at the same time.

    Args:
        jobs: The number of trainings at the same time; None for one on each GPU, or without GPUs as many as have
            `threads` cores each.
        threads: The number of threads of a training; None for an equal share of the cores.
        gpus: The GPUs of this machine, as in `CUDA_VISIBLE_DEVICES`.
        cores: The number of cores that this process may use.

    Returns:
        The environment variables of each place. With fewer places than GPUs, a place has several GPUs; with more,
        places share one.

    Raises:
        SettingsError: `jobs` is below 1.
    """
    if jobs is not None and jobs < 1:
        raise SettingsError(f"--jobs is {jobs}; it must be at least 1")
    if jobs is None:
        jobs = len(gpus) or (max(1, cores // threads) if threads else 1)
    places = []
    for place in range(jobs):
        variables = {"MPLBACKEND": os.environ.get("MPLBACKEND", "Agg")}
        if threads is not None:
            variables["OMP_NUM_THREADS"] = str(threads)
        elif jobs > 1 and "OMP_NUM_THREADS" not in os.environ:
            variables["OMP_NUM_THREADS"] = str(max(1, cores // jobs))
        if len(gpus) > 1 and jobs > 1:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[place % len(gpus) :: jobs])
        places.append(variables)
    return places


def visible_gpus() -> list[str]:
    """List the GPUs that this process may use, as in `CUDA_VISIBLE_DEVICES`."""
    import torch  # only here: it takes a second

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if named else [str(number) for number in range(count)]


def usable_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


OF_TASKS = (
    "SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NTASKS_PER_NODE", "SLURM_TASKS_PER_NODE", "SLURM_PROCID", "SLURM_LOCALID",
    "SLURM_NODEID",
)  # fmt: skip
"""Variables by which Lightning takes a process for one of those that SLURM has started to train together."""


def environment_at(place: Mapping[str, str]) -> dict[str, str]:
    """Give all environment variables of a training, which is one of its own, also where SLURM has started the sweep.

    Args:
        place: The variables of its place.
    """
    return {name: value for name, value in os.environ.items() if name not in OF_TASKS} | dict(place)
