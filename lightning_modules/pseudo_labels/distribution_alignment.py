"""Distribution alignment (ReMixMatch, arXiv 1911.09785, section 3.1), for any method with pseudo-labels."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError, check_at_least, check_count
from tailmatch.lightning_modules.bases.semi_supervised import SemiSupervisedClassifier
from tailmatch.lightning_modules.pseudo_labels.class_prior import check_target, unlabeled_totals
from tailmatch.lightning_modules.pseudo_labels.running_prior import RecentPrior

FLOOR = 1e-6
"""Added to target and running mean (google-research/remixmatch `remixmatch_no_cta.py`)."""


class DistributionAlignment(Callback):
    """Multiplies predictions by the target over their running mean, before they are sharpened.

        q_k = p_k (target_k + 1e-6) / (mean_k + 1e-6), normalized

    The running mean is that of the last n batches of all processes before the present batch, and begins uniform, as in
    the authors' code. (In bbuing9/DARP, it begins with the first batch and includes the present one.) Checkpoints
    contain it. `ReMixMatch` has this callback by default; configurations name it
    `tailmatch.callbacks.DistributionAlignment`.

    Args:
        target: Class distribution of the unlabeled set: K numbers in any scale, the path of a `prior.json` that
            `UnlabeledPriorEstimator` wrote, or `oracle` for the true distribution. None is the distribution of the
            labeled images.
        batches: Number n of batches in the running mean, at least 1; 128 in both public codes.
        exponent: Exponent t, at least 0, of the target, which is then in proportion to `target^t`: 1 leaves it, and 0
            makes all classes equal. CReST+ lowers it from 1 to 0.5 over its generations.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    corrects_prior = True
    """See `prior_corrections`."""

    def __init__(self, target: str | list[float] | None = None, batches: int = 128, exponent: float = 1.0) -> None:
        check_count("batches", batches)
        check_at_least("exponent", exponent, 0)
        check_target(target)
        self.target = target
        self.batches = batches
        self.exponent = exponent
        self.target_totals = torch.empty(0)  # scaled to 1
        self._prior = RecentPrior(1, batches)  # that of all classes comes in `setup`

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Register with the method, before sharpening.

        Raises:
            SettingsError: The method has no pseudo-labels, or the target cannot be used (see `unlabeled_totals`).
        """
        if stage != "fit":
            return
        if not isinstance(pl_module, SemiSupervisedClassifier):
            raise SettingsError(f"DistributionAlignment aligns pseudo-labels, and {type(pl_module).__name__} has none")
        totals = unlabeled_totals(self.target, trainer.datamodule)  # type: ignore[attr-defined]
        powers = totals**self.exponent
        self.target_totals = (powers / powers.sum()).float()
        self._prior = RecentPrior(len(totals), self.batches)
        pl_module.add_refiner(self, before_sharpening=True)

    def refine(self, probs: Tensor, index: Tensor) -> Tensor:
        """Align the rows, then add the batch to the running mean. See `PseudoLabelRefiner.refine`."""
        prior, self.target_totals = self._prior.to(probs.device), self.target_totals.to(probs.device)
        aligned = align(probs, self.target_totals, prior.probs)
        prior.update(probs)
        return aligned

    def state_dict(self) -> dict[str, Any]:
        """Return the running mean, for a checkpoint."""
        return {"means": self._prior.means, "steps": int(self._prior.steps)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the running mean of a checkpoint.

        Raises:
            SettingsError: The checkpoint's running mean has another number of batches or classes.
        """
        means = state_dict["means"]
        if len(self.target_totals) and means.shape != self._prior.means.shape:
            raise SettingsError(
                f"the checkpoint's distribution alignment is over {tuple(means.shape)} (batches, classes), and this "
                f"run's over {tuple(self._prior.means.shape)}: resume with the same ones"
            )
        self._prior = RecentPrior(means.shape[1], len(means))
        self._prior.load_state_dict({"means": means, "steps": torch.tensor(state_dict["steps"])})


def align(probs: Tensor, target: Tensor, mean: Tensor) -> Tensor:
    """Compute `p_k (target_k + 1e-6) / (mean_k + 1e-6)` of rows `[B, K]`, and normalize the rows.

    Args:
        probs: Predictions `[B, K]`.
        target: Target class shares `[K]`, which sum to 1.
        mean: Running mean of the predictions, `[K]`, which sums to 1.
    """
    weighted = probs * ((target + FLOOR) / (mean + FLOOR))
    return weighted / weighted.sum(dim=1, keepdim=True)
