"""Warn of a network that predicts the same class for all images."""

from collections.abc import Sequence

from lightning_utilities.core.rank_zero import rank_zero_warn

from tailmatch.datamodules.class_names import printable
from tailmatch.lightning_modules.metrics import Evaluation

PATIENCE = 2
"""The number of validations of a fit, one after the other, before the warning: the first epochs may begin like that."""


class SingleClassWarning:
    """One warning about predictions that are all of one class, while the images are of several."""

    def __init__(self) -> None:
        self._in_a_row = 0
        self._warned = False

    def look_at(self, result: Evaluation, class_names: Sequence[str], images: str, in_fit: bool) -> None:
        """Look at an evaluation, and warn if it is time.

        Args:
            result: The evaluation.
            class_names: The names of the K classes.
            images: What was evaluated, such as `test images`.
            in_fit: Whether it is a validation of a fit, of which two in a row are necessary.
        """
        only = result.only_class
        self._in_a_row = 0 if only is None else self._in_a_row + 1
        if only is None or self._warned or (in_fit and self._in_a_row < PATIENCE):
            return
        self._warned = True
        again = f", for the {PATIENCE}nd time in a row" if in_fit else ""
        rank_zero_warn(
            f"all {int(result.support.sum()):,} {images} are predicted as {printable(class_names[only])!r}{again}: the "
            "network does not tell the classes apart; the training may be too short, also for the averaged weights "
            "that are evaluated (a lower ema_decay remembers fewer steps), or its learning rate too high"
        )
