"""Remedies that correct for the class prior of predictions or logits (`corrects_prior`): two would correct twice."""

from pytorch_lightning import Callback, LightningModule, Trainer

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.bases.classifier import ImageClassifier
from tailmatch.lightning_modules.pseudo_labels.distribution_alignment import DistributionAlignment


def check_only_correction(remedy: Callback, trainer: Trainer, method: LightningModule) -> None:
    """Refuse a remedy beside another one with `corrects_prior`, and for a method that is balanced by itself.

    DARP is none: it sets the class totals of the pseudo-labels, whatever went before.

    Args:
        remedy: Callback with `corrects_prior`.
        trainer: Trainer of a fit.
        method: Method that is trained.

    Raises:
        SettingsError: The method's own logits are balanced, or another callback has `corrects_prior`.
    """
    name = type(remedy).__name__
    if isinstance(method, ImageClassifier) and type(method).balanced_evaluation:
        raise SettingsError(
            f"{name} corrects for the class prior, and so does {type(method).__name__} itself: leave {name} out, or "
            "train FixMatch"
        )
    for other in trainer.callbacks:  # type: ignore[attr-defined]
        if other is not remedy and getattr(other, "corrects_prior", False):
            off = " (where the method brings it: align: false)" if isinstance(other, DistributionAlignment) else ""
            raise SettingsError(
                f"{name} and {type(other).__name__} both correct for the class prior: leave one of them out{off}"
            )
