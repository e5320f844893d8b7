"""Tell which process of a run this is, also before they know each other; this imports no torch."""

import os

_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "JSM_NAMESPACE_RANK")
"""Environment variables in which Lightning, torchrun and LSF number the processes or the machines of a run."""


def is_first_process(slurm: bool = True) -> bool:
    """Tell whether this is the first of the run's processes.

    Args:
        slurm: Whether the tasks of a SLURM step are processes of one run. SLURM numbers them in any case.
    """
    return not any(int(os.environ.get(name) or 0) for name in (*_RANKS, *(["SLURM_PROCID"] if slurm else [])))


def is_launched() -> bool:
    """Tell whether Lightning launched this process from the first one of this machine."""
    return int(os.environ.get("LOCAL_RANK") or 0) > 0 and "RANK" not in os.environ  # torchrun sets both
