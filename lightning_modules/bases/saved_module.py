"""The base of `ImageModule`: what a checkpoint contains beside the weights, and what may not be in one."""

from collections.abc import Mapping
from typing import Any

from pytorch_lightning import LightningModule
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.checkpoints.description import Described, NotPlainData, class_path
from tailmatch.lightning_modules.checkpoints.differences import do_not_fit, of_another_type
from tailmatch.lightning_modules.checkpoints.trained_checkpoint import METHOD_KEY
from tailmatch.lightning_modules.training.finite import (
    agreed,
    check_file,
    infinite_by_design,
    listed,
    not_finite,
    tensors_in,
    training_error,
)
from tailmatch.lightning_modules.training.loss_scale import loss_scale
from tailmatch.lightning_modules.training.optimizer_settings import SETTINGS_KEY, Settings
from tailmatch.lightning_modules.training.running_means import RunningMeans
from tailmatch.lightning_modules.training.weight_averaging import TRAINED_WEIGHTS

NOT_LOGGED_KEY = "not_logged"
"""Checkpoint key of the training numbers that were recorded since the last log."""


class SavedModule(Described, LightningModule):
    """A module whose checkpoints say how to make it, and contain finite numbers only.

    A checkpoint also has the training numbers that are not logged yet, and the optimizer's settings, so that a resumed
    run logs the same and keeps what was typed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._means = RunningMeans()
        self._settings: list[Settings] = []
        self._settings_before: list[Settings] = []
        self._infinite_by_design: frozenset[str] | None = None
        self._described_before: Any = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the method's arguments, the optimizer's settings, and numbers that are not logged yet.

        Raises:
            NotFiniteError: Training numbers, weights, averages, buffers or the optimizer's state are NaN or infinite.
                Nothing is written then, so that the previous checkpoints stay.
        """
        self._check_finite()
        broken = agreed([name for name in not_finite(self.saved_numbers(checkpoint)) if name not in self._by_design()])
        if broken:
            raise training_error(self.trainer, f"{listed(broken)} became NaN or infinite")
        checkpoint[NOT_LOGGED_KEY] = self._means.state_dict()
        checkpoint[SETTINGS_KEY] = self._settings
        checkpoint[METHOD_KEY] = {
            "class_path": self.class_path(),
            "init_args": self.init_args,
            "unknown": self.unknown,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check a checkpoint, and take what is no weight from it.

        Raises:
            NotFiniteError: Numbers of the checkpoint are NaN or infinite.
            SettingsError: A fit would continue from a checkpoint of another method, or without the state of a training.
        """
        if self.continues():
            self._check_training_state(checkpoint)
        if self._trainer is not None:  # the functions that load a method without one know the file's name
            check_file(self.saved_numbers(checkpoint), self.loaded_from(), self._by_design())
        self._settings_before = checkpoint.get(SETTINGS_KEY, [])
        self._described_before = checkpoint.get(METHOD_KEY)
        self._means.load_state_dict(checkpoint.get(NOT_LOGGED_KEY, {}))

    def continues(self) -> bool:
        """Tell whether this is a fit that continues from a checkpoint."""
        trainer = self._trainer
        return trainer is not None and trainer.state.fn == "fit" and trainer.ckpt_path is not None

    def _check_training_state(self, checkpoint: Mapping[str, Any]) -> None:
        """Refuse to continue from a checkpoint of another method, or without the state of a training."""
        without = [name for name in ("optimizer_states", "loops") if not checkpoint.get(name)]
        without += [] if "lr_schedulers" in checkpoint else ["lr_schedulers"]
        instead = "begin a training with its weights, --model.pretrained FILE"
        if without:
            raise SettingsError(
                f"{self.loaded_from()} has no {without[0]}, so that no training continues from it: {instead}"
            )
        there = (checkpoint.get(METHOD_KEY) or {}).get("class_path", self.class_path())
        if there != self.class_path():
            raise SettingsError(
                f"{self.loaded_from()} is of {there.rpartition('.')[2]}, and {type(self).__name__} does not continue "
                f"from it: {instead}"
            )

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights as every module does, and say what differs if they do not fit.

        Raises:
            SettingsError: The weights are those of another method or network.
        """
        own, here = self.state_dict(), {"class_path": self.class_path(), "init_args": self.init_args}
        if of_another_type(own, state_dict):
            raise do_not_fit(self.loaded_from(), own, state_dict, self._described_before, here)
        try:
            return super().load_state_dict(state_dict, strict, assign)
        except RuntimeError as error:  # torch lists all tensors
            raise do_not_fit(self.loaded_from(), own, state_dict, self._described_before, here) from error

    def loaded_from(self) -> str:
        """Name the checkpoint that is loaded, for messages."""
        path = None if self._trainer is None else self._trainer.ckpt_path
        return "the checkpoint" if path is None else f"checkpoint {str(path)!r}"

    def saved_numbers(self, checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
        """Collect the tensors of a checkpoint that must be finite, by name: weights, averages and optimizer states."""
        parts = ((TRAINED_WEIGHTS, "trained"), ("optimizer_states", "optimizer"))
        numbers = tensors_in(checkpoint.get("state_dict", {}))
        return numbers | {
            name: tensor for key, shown in parts for name, tensor in tensors_in(checkpoint.get(key, {}), shown).items()
        }

    def _by_design(self) -> frozenset[str]:
        """Return the names of `infinite_by_design`, as of the first call: before weights are loaded or trained."""
        if self._infinite_by_design is None:
            self._infinite_by_design = infinite_by_design(self)
        return self._infinite_by_design

    @classmethod
    def class_path(cls) -> str:
        """Return the class path by which a checkpoint names the method."""
        try:
            return class_path(cls)
        except NotPlainData:  # a class of a notebook; its `load_from_checkpoint` compares this name
            return f"{cls.__module__}.{cls.__qualname__}"

    def _check_finite(self) -> float | None:
        """Raise an error if a number is NaN or infinite; return the loss scale, or None without one."""
        broken = agreed(self._means.not_finite())
        if broken:
            raise training_error(self.trainer, f"{listed(broken)} became NaN or infinite")
        return loss_scale(self.trainer)
