"""Means of training numbers, summed on the device and read once every n steps."""

from typing import Any

import torch
from torch import Tensor

from tailmatch.lightning_modules.training.distributed import gather_rows, place


class RunningMeans:
    """Means of named scalars over the steps since they were last read.

    `add` costs two kernels and no synchronization, whereas one `self.log` call per number costs more than the rest of a
    step.
    """

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._names: tuple[str, ...] = ()
        self._steps = 0

    def __len__(self) -> int:
        """Return the number of steps since the means were last read."""
        return self._steps

    def add(self, values: dict[str, Tensor]) -> None:
        """Add one step's scalars, each `[]`; the names must be the same at every step."""
        stacked = torch.stack([value.detach().float() for value in values.values()])
        self._sums = stacked if self._sums is None else self._sums.to(stacked.device) + stacked
        self._names = tuple(values)
        self._steps += 1

    def take(self) -> dict[str, Tensor]:
        """Return the means since the last call and reset them; empty if nothing was added."""
        if self._sums is None:
            return {}
        means = dict(zip(self._names, (self._sums / self._steps).unbind(), strict=True))
        self._sums, self._steps = None, 0
        return means

    def state_dict(self) -> dict[str, Any]:
        """Give the sums of all processes for a checkpoint, `[W, n]`."""
        if self._sums is None:
            return {}
        sums = gather_rows(self._sums[None])
        return {"sums": sums.cpu(), "names": list(self._names), "steps": self._steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take this process' sums of a checkpoint, or the mean of other processes' sums; of an empty state, none."""
        self._sums, self._names, self._steps = None, tuple(state.get("names", ())), state.get("steps", 0)
        if state:
            rank, world_size = place()
            sums: Tensor = state["sums"]
            self._sums = sums[rank] if len(sums) == world_size else sums.mean(dim=0)

    def not_finite(self) -> list[str]:
        """Return the names whose sum is NaN or infinite. Waits for the device."""
        if self._sums is None:
            return []
        bad = (~self._sums.isfinite()).tolist()
        return [name for name, is_bad in zip(self._names, bad, strict=True) if is_bad]
