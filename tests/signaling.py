"""A callback that sends a signal at a given moment of a run, as the system does."""

import os
import signal
import subprocess
from typing import Any, Literal

from pytorch_lightning import Callback, LightningModule, Trainer


class SendSignal(Callback):
    """A callback that sends a signal once, in a hook of this callback.

    Args:
        name: The signal's name.
        hook: The hook's name.
        batch: The number of the hook's call in the epoch.
        epoch: The number of the epoch.
        rank: The process that sends the signal.
        to: Who gets it: the sender itself, or all processes of its group.
    """

    def __init__(
        self,
        name: str = "SIGTERM",
        hook: str = "on_before_optimizer_step",
        batch: int = 1,
        epoch: int = 1,
        rank: int = 0,
        to: Literal["self", "group"] = "self",
    ) -> None:
        self.signum = signal.Signals[name]
        self.batch, self.epoch, self.rank, self.to = batch, epoch, rank, to
        self.seen = 0
        setattr(self, hook, self._send)

    def _send(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        if trainer.current_epoch != self.epoch or trainer.global_rank != self.rank:
            return
        self.seen += 1
        if self.seen != self.batch + 1:
            return
        if self.to == "group":
            # from another process, since loader processes obey their parent
            subprocess.run(["kill", f"-{int(self.signum)}", "--", f"-{os.getpgrp()}"], check=False)
        else:
            os.kill(os.getpid(), self.signum)

    def state_dict(self) -> dict[str, Any]:
        """Remember that the signal was sent, so that a resumed run sends none."""
        return {"seen": self.seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See `state_dict`."""
        self.seen = state_dict["seen"]
