"""Post-hoc logit adjustment (Menon et al. 2021, arXiv 2007.07314)."""

from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from tailmatch.datamodules.arguments import SettingsError, check_at_least
from tailmatch.lightning_modules import ImageClassifier
from tailmatch.lightning_modules.losses.base import check_every_class
from tailmatch.lightning_modules.losses.logit_adjusted import log_prior


class LogitAdjustment(Callback):
    """Evaluates `logits - tau * log prior` (equation 9 of the paper), of any method and of any of its checkpoints.

    A network trained on a long tail predicts frequent classes too often; this takes the labeled set's prior out of its
    logits, for a test set of classes in equal parts. Nothing of the training changes: in a fit it acts on the
    validations alone (and so on which checkpoint is the best).

    Not on top of `losses.LogitAdjusted` or `losses.BalancedSoftmax`, which train such logits already.

    Args:
        tau: At least 0; 1 as in the paper, which also tunes it on held-out images.
        prior: K numbers, in proportion to the prior of the training; None takes the labeled counts.
    """

    def __init__(self, tau: float = 1.0, prior: Sequence[float] | None = None) -> None:
        check_at_least("tau", tau, 0)
        if prior is not None and not all(share > 0 for share in prior):
            raise SettingsError(f"prior is {list(prior)}; its entries must be above 0")
        self.tau = tau
        self.prior = None if prior is None else list(prior)
        self._hook: RemovableHandle | None = None

    def shift(self, pl_module: ImageClassifier) -> Tensor:
        """`tau * log prior`, `[K]`.

        Raises:
            SettingsError: The prior has another number of classes, or there is no labeled image of one.
        """
        counts = pl_module.class_counts
        if self.prior is not None:
            counts = torch.tensor(self.prior, dtype=torch.float64, device=counts.device)
        if len(counts) != pl_module.num_classes:
            raise SettingsError(
                f"prior has {len(counts)} entries; it needs one for each of {pl_module.num_classes} classes"
            )
        check_every_class("LogitAdjustment", counts)
        return log_prior(counts, self.tau)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fail now rather than after the first epoch, if at all; see `shift`."""
        self.shift(_classifier(pl_module))

    def on_evaluation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adjust what `forward` gives, from here to the end of the evaluation."""
        shift = self.shift(_classifier(pl_module))

        def adjust(module: Any, args: Any, output: Any) -> Any:
            # DistributedDataParallel also passes validation_step, which returns None, through this hook.
            return output - shift if isinstance(output, Tensor) else output

        self._hook = pl_module.register_forward_hook(adjust)

    def on_evaluation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the method as it was."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the method as it was, if an evaluation was interrupted."""
        self.on_evaluation_end(trainer, pl_module)

    on_validation_start = on_test_start = on_predict_start = on_evaluation_start
    on_validation_end = on_test_end = on_predict_end = on_evaluation_end


def _classifier(pl_module: LightningModule) -> ImageClassifier:
    if not isinstance(pl_module, ImageClassifier):
        raise SettingsError(f"LogitAdjustment needs an image classifier, not {type(pl_module).__name__}")
    return pl_module
