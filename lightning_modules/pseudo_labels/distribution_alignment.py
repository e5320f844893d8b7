"""Distribution alignment (ReMixMatch, arXiv 1911.09785, section 3.1), for any method with pseudo-labels."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn import functional

from tailmatch.datamodules.arguments import SettingsError, check_at_least
from tailmatch.lightning_modules.bases.semi_supervised import SemiSupervisedClassifier
from tailmatch.lightning_modules.pseudo_labels.class_prior import unlabeled_totals
from tailmatch.lightning_modules.training.distributed import sum_over_processes

FLOOR = 1e-6
"""Added to target and running mean (google-research/remixmatch `remixmatch_no_cta.py`)."""


class DistributionAlignment(Callback):
    """Multiplies predictions by target / running mean of the predictions, before they are sharpened.

        q_k = p_k (target_k + 1e-6) / (mean_k + 1e-6), normalized

    The running mean is over the last n batches of all processes before the present one, and begins uniform, as in
    the authors' code. (bbuing9/DARP begins with the first batch and includes the present one.) It is saved in
    checkpoints. It lives here since `ReMixMatch` has it by default; in a configuration it is
    `tailmatch.callbacks.DistributionAlignment`.

    Args:
        target: Class shares of the unlabeled set, as `DARP.target`: null in proportion to the labeled counts, a list
            of K numbers, a `prior.json` of `UnlabeledPriorEstimator`, or `oracle`.
        batches: n, batches in the running mean (128 in both public codes).
    """

    def __init__(self, target: str | list[float] | None = None, batches: int = 128) -> None:
        check_at_least("batches", batches, 1)
        self.target = target
        self.batches = batches
        self.shares = torch.empty(0)
        self._means = torch.empty(0, 0)
        self._steps = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Register with the method.

        Raises:
            SettingsError: The method has no pseudo-labels, or the target is bad.
        """
        if stage != "fit":
            return
        if not isinstance(pl_module, SemiSupervisedClassifier):
            raise SettingsError(f"DistributionAlignment aligns pseudo-labels, and {type(pl_module).__name__} has none")
        totals = unlabeled_totals(self.target, trainer.datamodule)  # type: ignore[attr-defined]
        self.shares = (totals / totals.sum()).float()
        self._means = torch.full((self.batches, len(totals)), 1 / len(totals))
        pl_module.add_refiner(self, before_sharpening=True)

    def refine(self, probs: Tensor, index: Tensor) -> Tensor:
        """Aligned rows; the batch joins the running mean afterwards. See `PseudoLabelRefiner`."""
        if self._means.device != probs.device:
            self._means, self.shares = self._means.to(probs.device), self.shares.to(probs.device)
        aligned = align(probs, self.shares, self._means.mean(dim=0))
        present = functional.pad(probs.detach().float().sum(dim=0), (0, 1), value=len(probs))
        present = sum_over_processes(present)
        self._means[self._steps % self.batches] = present[:-1] / present[-1]
        self._steps += 1
        return aligned

    def state_dict(self) -> dict[str, Any]:
        """The running mean."""
        return {"means": self._means, "steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a running mean.

        Raises:
            SettingsError: It is over another number of batches or classes.
        """
        means = state_dict["means"]
        if self._means.numel() and means.shape != self._means.shape:
            raise SettingsError(
                f"the checkpoint's distribution alignment is over {tuple(means.shape)} (batches, classes), and this "
                f"run's over {tuple(self._means.shape)}: resume with the same ones"
            )
        self._means, self._steps = means.clone(), state_dict["steps"]


def align(probs: Tensor, target: Tensor, mean: Tensor) -> Tensor:
    """`p_k (target_k + 1e-6) / (mean_k + 1e-6)` of rows `[B, K]`, normalized; target and mean `[K]` sum to 1."""
    weighted = probs * ((target + FLOOR) / (mean + FLOOR))
    return weighted / weighted.sum(dim=1, keepdim=True)
