"""The base of methods that use their averaged network within a training step."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

import torch

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.bases.image_module import ImageModule
from tailmatch.lightning_modules.networks.batch_norm import running_statistics_kept
from tailmatch.lightning_modules.networks.evaluation_mode import evaluation_mode

Result = TypeVar("Result")


class AveragedTeacher(ImageModule):
    """A method whose averaged network, which is the evaluated one, also takes part in its training steps.

    A step t has the averages after step t - 1. They begin with the weights that the fit begins with, and have the same
    decay from the first step on.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        ema_decay: Decay in [0, 1) of the averaged weights, which are the teacher and are evaluated.
        **kwargs: Other arguments of the method.

    Raises:
        SettingsError: `ema_decay` is None or lies outside its domain.
    """

    def __init__(self, num_classes: int, *, ema_decay: float = 0.999, **kwargs: Any) -> None:
        super().__init__(num_classes, ema_decay=ema_decay, **kwargs)
        if self._averaging is None:
            raise SettingsError(
                f"ema_decay is None, and the teacher of {type(self).__name__} is the network of averaged weights: give "
                "a decay, such as 0.999"
            )

    @torch.no_grad()
    def averaged(self, function: Callable[..., Result], *inputs: Any, in_training_mode: bool = False) -> Result:
        """Call a function, such as `self.network.features`, with the averaged weights and without gradient.

        BatchNorm's running statistics stay as they are, those of the weights and their averages. Call it in a step of
        a fit; elsewhere, the weights of the module are used.

        Args:
            function: Function that uses modules of this method.
            *inputs: Its arguments.
            in_training_mode: Whether modules keep their mode, so that BatchNorm normalizes by the statistics of the
                batch and dropout drops; else they are in evaluation mode, as when the averages are evaluated.
        """
        mode = nullcontext() if in_training_mode else evaluation_mode(self)
        with mode, running_statistics_kept(self):
            return self._averaging.call(self, function, *inputs) if self._averaging else function(*inputs)
