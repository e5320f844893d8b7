"""Save the state of a fit that is asked to stop, and stop it."""

import contextlib
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from pytorch_lightning.trainer.states import TrainerFn

from tailmatch.command_line.signals import SIGNALS, Stop
from tailmatch.lightning_modules.training.length import gradient_is_pending, is_last_epoch

PATIENCE = 10.0
"""Seconds that the processes which this one launched have to end by themselves."""


class StopAtStepEnd(Checkpoint):
    """A callback that saves a fit after the step or validation batch in which a signal arrives, and ends it.

    Several processes agree after each of these, so that a signal to one of them stops all at the same step. What they
    agree on after a step is read after the next one, so that no step waits for it. Between the end of an epoch and its
    successor's first step there is nothing new to save, and a signal ends the fit at once; labels may be generated
    there for a long time.

    It is a `Checkpoint` so that it runs after all other callbacks, whose state it saves. A trainer gets it after it is
    made, since Lightning refuses any `Checkpoint` with `enable_checkpointing=False`.

    Args:
        file: The checkpoint to write. None: the fit ends without one.
    """

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self._asked = 0  # the signal, once the state is saved
        self._agreement: Callable[[], int] | None = None  # of the processes, after the step before

    def on_train_batch_start(self, *args: Any) -> None:
        """From now on, a step would be lost: let signals wait."""
        self._stop_if_saved()
        SIGNALS.deferred = True

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Save, if stopping was asked. Lightning logs the step's numbers after this hook: stop in the next one.

        Where gradients are accumulated, the signal waits for the step.
        """
        if gradient_is_pending(trainer):
            return
        signum = SIGNALS.received or 0
        if trainer.world_size > 1:
            before, self._agreement = self._agreement, begin_to_agree(trainer, signum)
            signum = 0 if before is None else before()
        self._asked = self._save_if_asked(trainer, signum)

    def on_validation_start(self, *args: Any) -> None:
        """Stop before a validation, if the step was saved."""
        self._stop_if_saved()

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Save and stop, if that was asked; the validation is done anew when the run continues."""
        if trainer.state.fn == TrainerFn.FITTING and SIGNALS.deferred and not gradient_is_pending(trainer):
            self._asked = self._save_if_asked(trainer, agreed(trainer, SIGNALS.received or 0))
            self._stop_if_saved()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop if that was asked: the epoch is saved. After the last one, what is left takes no time."""
        SIGNALS.deferred = False
        if not is_last_epoch(trainer):
            self._asked = agreed(trainer, SIGNALS.received or 0)
            self._stop_if_saved()

    def _save_if_asked(self, trainer: Trainer, signum: int) -> int:
        if signum and self.file is not None:
            trainer.save_checkpoint(self.file)
        return signum

    def _stop_if_saved(self) -> None:
        if self._asked:
            raise Stop(self._asked)


def agreed(trainer: Trainer, signum: int) -> int:
    """Return the largest number of a signal that a process of the run was sent, 0 for none."""
    return signum if trainer.world_size == 1 else begin_to_agree(trainer, signum)()


def begin_to_agree(trainer: Trainer, signum: int) -> Callable[[], int]:
    """Begin to find what `agreed` returns, on several processes; the returned function waits for the result."""
    number = torch.full((), signum, device=trainer.strategy.root_device)
    if number.device.type != "cuda":
        work = dist.all_reduce(number, dist.ReduceOp.MAX, async_op=True)
        return lambda: int(number) if work.wait() else 0
    dist.all_reduce(number, dist.ReduceOp.MAX)  # the device waits, and not the host
    result, arrived = torch.empty((), dtype=number.dtype, pin_memory=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
    result.copy_(number, non_blocking=True)
    arrived.record()

    def wait() -> int:
        arrived.synchronize()
        return int(result)

    return wait


def take_over_signals(trainer: Trainer, run_dir: Path) -> None:
    """Leave signals to this package; a test holds this internal API of Lightning's.

    Lightning's handlers save nothing and end with exit code 0, or save in the middle of a step (SLURM), and talk to
    other processes while these do something else. Its loop asks process 0 before every step whether to stop.
    """
    saves = bool(trainer.checkpoint_callbacks)
    trainer.callbacks.append(StopAtStepEnd(run_dir / "checkpoints" / "last.ckpt" if saves else None))  # type: ignore[attr-defined]
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        SIGNALS.pass_on = launcher.kill


def end_launched(trainer: Trainer, signum: int) -> None:
    """Stop the processes that this one launched, and wait for them."""
    launcher = trainer.strategy.launcher
    for process in launcher.procs if isinstance(launcher, _SubprocessScriptLauncher) else []:
        process.send_signal(signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
        process.kill()


def how_to_continue(trainer: Trainer, run_dir: str) -> str:
    """Name the step, and the command that continues a fit; say so if there is nothing to continue."""
    step = f" after step {trainer.global_step:,}" if trainer.global_step else ""
    if not (Path(run_dir) / "checkpoints" / "last.ckpt").is_file():
        return f"{step}, and nothing is saved"
    return f"{step}; to continue: tailmatch fit --run_dir {shlex.quote(run_dir)} --ckpt_path last"
