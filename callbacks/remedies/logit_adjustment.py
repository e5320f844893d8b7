"""Post-hoc logit adjustment (Menon et al. 2021, arXiv 2007.07314)."""

from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from tailmatch.datamodules.arguments import SettingsError, check_at_least, check_each, check_positive
from tailmatch.lightning_modules import ImageClassifier
from tailmatch.lightning_modules.bases.pretraining import Pretraining
from tailmatch.lightning_modules.losses.base import check_every_class
from tailmatch.lightning_modules.losses.logit_adjusted import log_prior


class LogitAdjustment(Callback):
    """Post-hoc logit adjustment: evaluates a method by `logits - tau * log prior` (equation 9 of the paper).

    A network trained on a long tail predicts frequent classes too often. This callback removes the prior of the labeled
    set from its logits, for a test set in which all classes are equally frequent. It works with every method and every
    checkpoint, and does not change the training: in a fit it affects the validation only, and so which checkpoint is
    the best.

    A method whose evaluated logits are balanced already is refused (`ImageClassifier.balanced_evaluation`), such as one
    trained with `losses.LogitAdjusted` or `losses.BalancedSoftmax`.

    Args:
        tau: The strength of the adjustment, at least 0. The paper uses 1, and also tunes it on held-out images.
        prior: K positive numbers proportional to the class frequencies in training. None: those that the method names,
            which are the labeled counts unless the method estimates others (`ImageClassifier.prior_in_logits`).

    Raises:
        SettingsError: An argument is outside its domain.
    """

    def __init__(self, tau: float = 1.0, prior: Sequence[float] | None = None) -> None:
        check_at_least("tau", tau, 0)
        if prior is not None:
            check_each("prior", prior, check_positive)
        self.tau = tau
        self.prior = None if prior is None else list(prior)
        self._hook: RemovableHandle | None = None

    def shift(self, pl_module: ImageClassifier) -> Tensor:
        """Compute `tau * log prior`, `[K]`.

        Raises:
            SettingsError: The method's evaluated logits are balanced already, `prior` does not have one entry for each
                class, or a class has no labeled image.
        """
        if pl_module.balanced_evaluation:
            raise SettingsError(
                f"LogitAdjustment removes the class prior from logits, and those of this {type(pl_module).__name__} "
                "are trained to be without it: leave it out"
            )
        counts = pl_module.prior_in_logits()
        if self.prior is not None:
            counts = torch.tensor(self.prior, dtype=torch.float64, device=counts.device)
        if len(counts) != pl_module.num_classes:
            raise SettingsError(
                f"prior has {len(counts)} entries; it needs one for each of {pl_module.num_classes} classes"
            )
        check_every_class("LogitAdjustment", counts)
        return log_prior(counts, self.tau)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the shift once, so that an unsuitable prior is refused before the training.

        Raises:
            SettingsError: The method is a pre-training, whose classifier has no logits; or see `shift`.
        """
        if isinstance(pl_module, Pretraining):
            raise SettingsError(
                f"LogitAdjustment adjusts logits, and {type(pl_module).__name__} is evaluated by nearest neighbors: "
                "leave it out"
            )
        self.shift(_classifier(pl_module))

    def on_evaluation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adjust the output of `forward` until the end of the evaluation."""
        shift = self.shift(_classifier(pl_module))

        def adjust(module: Any, args: Any, output: Any) -> Any:
            # DistributedDataParallel also passes validation_step, which returns None, through this hook.
            return output - shift if isinstance(output, Tensor) else output

        self._hook = pl_module.register_forward_hook(adjust)

    def on_evaluation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop adjusting."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop adjusting if an evaluation was interrupted."""
        self.on_evaluation_end(trainer, pl_module)

    on_validation_start = on_test_start = on_predict_start = on_evaluation_start
    on_validation_end = on_test_end = on_predict_end = on_evaluation_end


def _classifier(pl_module: LightningModule) -> ImageClassifier:
    if not isinstance(pl_module, ImageClassifier):
        raise SettingsError(f"LogitAdjustment needs an image classifier, not {type(pl_module).__name__}")
    return pl_module
