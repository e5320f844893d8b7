"""On a resume, complete an epoch that was trained but not yet validated when its checkpoint was saved."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn

Progress = dict[str, Any]
"""The state of one of Lightning's counters: `total` and `current` numbers of what was made ready, started and so on."""


class FinishEpoch(Callback):
    """A callback that has a resumed run do the validation and the end of an epoch that its checkpoint was saved before.

    Lightning would skip both where a checkpoint was saved after the last step of an epoch, and continue a validation in
    its middle, without the metrics of its first part. All here is internal API of Lightning 2.6: the tests of the
    contract would fail on another meaning.
    """

    def __init__(self) -> None:
        self._before_evaluation = False
        self._closing = False

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Rewrite the counters of a checkpoint that was saved after a step: the step is done, a validation is not."""
        self._before_evaluation = False
        counters = checkpoint.get("loops", {}).get("fit_loop", {})
        if trainer.state.fn != TrainerFn.FITTING or not counters:
            return
        steps, evaluation = (counters[f"epoch_loop.{name}batch_progress"] for name in ("", "val_loop."))
        if in_hook_of_batch(steps):
            for part in ("total", "current"):
                steps[part]["completed"] += 1
        elif not in_hook_of_batch(evaluation):
            return
        self._before_evaluation = True
        begun = {"ready": 1, "started": 1, "processed": 0, "completed": 0}  # as if it had stopped in its first batch
        evaluation |= {"total": begun, "current": dict.fromkeys(begun, 0), "is_last_batch": False}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """If no validation is due where the run continues, go on without one."""
        loop = trainer.fit_loop.epoch_loop
        fetcher = trainer.fit_loop._data_fetcher
        if not self._before_evaluation or fetcher is None or loop._should_check_val_fx(fetcher):
            return
        self._closing = loop._num_ready_batches_reached()
        loop.val_loop._has_run = True
        if not loop._should_accumulate():
            loop._batches_that_stepped += 1

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell Lightning that the next epoch begins with its first step."""
        if self._closing:
            trainer.fit_loop.epoch_loop.restarting = False
        self._closing = self._before_evaluation = False


def in_hook_of_batch(progress: Progress) -> bool:
    """Tell whether a checkpoint was saved in a hook at the end of a batch, such as `on_train_batch_end`."""
    return bool(progress["total"]["completed"] == progress["total"]["processed"] - 1)
