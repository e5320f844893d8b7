"""The number of this process in its run, as Lightning's utilities need it before Lightning is imported."""

import os

from lightning_utilities.core.rank_zero import rank_zero_only

_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Where Lightning reads the number (`lightning_fabric/utilities/rank_zero.py`), in this order."""


def number_this_process() -> None:
    """Set `rank_zero_only.rank`, without which a warning on the first process alone is an error.

    `tailmatch.datamodules` calls it when it is imported. A number that Lightning or its `Trainer` has set stays.
    """
    if getattr(rank_zero_only, "rank", None) is None:
        number = next((os.environ[name] for name in _VARIABLES if name in os.environ), "0")
        rank_zero_only.rank = int(number)  # type: ignore[attr-defined]
