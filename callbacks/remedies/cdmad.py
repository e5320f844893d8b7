"""CDMAD (Lee and Kim, CVPR 2024, arXiv 2403.10391): debiasing by an image without content."""

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from tailmatch.callbacks.remedies.logit_adjustment import LogitAdjustment
from tailmatch.datamodules.arguments import SettingsError, check_choice, check_count
from tailmatch.lightning_modules import ImageClassifier, SemiSupervisedClassifier
from tailmatch.lightning_modules.inference.trained_network import check_classifies_by_network
from tailmatch.lightning_modules.networks.blank_image import COLORS, BlankColor, blank_logits


class CDMAD(Callback):
    r"""Subtracts the logits g of an image without content, in pseudo-labels and in evaluations.

    A network that has learned from a long tail prefers the frequent classes also where there is nothing to see. With
    logits z:

        pseudo-labels  softmax(z(weak) - g), before they are sharpened
        evaluation     z - g

    It needs neither the class counts of the labeled nor those of the unlabeled images, and is a callback because it
    works with every method that makes pseudo-labels. The authors' FixMatch has soft pseudo-labels of all images and two
    strong views: `FixMatch(soft_targets=True, threshold=0, strong_views=2)`. Their ReMixMatch does not sharpen
    (`temperature=1`), and aligns only where both sets have the same distribution (equations 4 to 6; LeeHyuck/CDMAD
    `fixmatchcdmad.py`, `remixmatchcdmad.py`).

    It also debiases a checkpoint that was trained without it, in `test`, `validate` and `predict`. A checkpoint that
    was trained with it needs no callback there: it says itself that it is debiased. Its exported network is, and so is
    the member of an ensemble.

    The network sees the image in evaluation mode (`blank_logits`), which costs one image in each step and each batch.

    Args:
        warmup_epochs: Number of epochs in which pseudo-labels are not debiased. The authors have 100 of 500 epochs;
            their code begins one epoch later (`epoch > 100`).
        color: Color of the image: `light` (the authors' code: mean + std of each channel, a light gray), `mean` (the
            mean of each channel), `black` or `white`.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    corrects_prior = True

    bias: Tensor | None = None
    """Logits g `[K]` of the step; None in the warm-up."""

    def __init__(self, warmup_epochs: int = 100, color: BlankColor = "light") -> None:
        check_count("warmup_epochs", warmup_epochs, 0)
        check_choice("color", color, COLORS)
        self.warmup_epochs = warmup_epochs
        self.color: BlankColor = color
        self._trainer: Trainer
        self._method: SemiSupervisedClassifier
        self._before: tuple[BlankColor | None, bool] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Register with the method that is trained, before sharpening, and debias its evaluations.

        Raises:
            SettingsError: The method has no pseudo-labels, its evaluation is balanced already, or the warm-up does not
                end before the training.
        """
        if stage != "fit":
            return
        if not isinstance(pl_module, SemiSupervisedClassifier):
            raise SettingsError(
                f"CDMAD debiases pseudo-labels, and {type(pl_module).__name__} has none: leave it out of the fit, and "
                "add it to test, validate or predict, where it debiases any checkpoint"
            )
        epochs = pl_module.total_epochs()
        if self.warmup_epochs >= epochs:
            raise SettingsError(
                f"CDMAD would debias no pseudo-label: warmup_epochs is {self.warmup_epochs} and the training has "
                f"{epochs} epochs; lower it, as in --trainer.callbacks.warmup_epochs 0"
            )
        self._debias(trainer, pl_module)
        self._trainer, self._method = trainer, pl_module
        pl_module.add_refiner(self, before_sharpening=True)

    def refine(self, probs: Tensor, index: Tensor) -> Tensor:
        """Debias the rows after the warm-up. See `PseudoLabelRefiner.refine`."""
        if self._trainer.current_epoch < self.warmup_epochs:
            self.bias = None
            return probs
        size = self._method.image_size
        assert size is not None  # that of the data, since `setup`
        self.bias = blank_logits(self._method.network, self.color, size)
        return debias(probs, self.bias)

    def on_evaluation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Debias the evaluation of a method that is not being trained.

        Raises:
            SettingsError: The method does not classify by its network, or its evaluation is balanced already.
        """
        if trainer.state.fn == TrainerFn.FITTING:
            return
        if not isinstance(pl_module, ImageClassifier):
            raise SettingsError(f"CDMAD needs an image classifier, not {type(pl_module).__name__}")
        before = (pl_module.blank, pl_module.balanced_evaluation)
        self._debias(trainer, pl_module)
        self._before = before

    def on_evaluation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the method as it was."""
        if self._before is not None and isinstance(pl_module, ImageClassifier):
            pl_module.blank, pl_module.balanced_evaluation = self._before
            self._before = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the method as it was if an evaluation was interrupted."""
        self.on_evaluation_end(trainer, pl_module)

    on_validation_start = on_test_start = on_predict_start = on_evaluation_start
    on_validation_end = on_test_end = on_predict_end = on_evaluation_end

    def _debias(self, trainer: Trainer, method: ImageClassifier) -> None:
        check_classifies_by_network(method, f"{type(method).__name__} cannot be debiased by CDMAD, since it")
        if any(isinstance(callback, LogitAdjustment) for callback in trainer.callbacks):  # type: ignore[attr-defined]
            raise SettingsError("CDMAD and LogitAdjustment both remove the class prior from logits: leave one out")
        if method.balanced_evaluation and method.blank is None:
            raise SettingsError(
                f"CDMAD removes the class prior from logits, and those of this {type(method).__name__} are trained "
                "to be without it: leave it out"
            )
        method.blank, method.balanced_evaluation = self.color, True


def debias(probs: Tensor, bias: Tensor) -> Tensor:
    """Compute `softmax(z - bias)` from rows `softmax(z)`, `[B, K]`, and logits `bias [K]`."""
    weighted = probs * (bias.min() - bias).exp()  # at most 1
    return weighted / weighted.sum(dim=1, keepdim=True)
