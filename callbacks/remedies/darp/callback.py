"""DARP: refine pseudo-labels to the class totals of the unlabeled set."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from tailmatch.callbacks.remedies.darp.refinement import ALPHA, Refinery
from tailmatch.callbacks.remedies.darp.solver import Refinement
from tailmatch.datamodules.arguments import SettingsError, check_at_least
from tailmatch.lightning_modules import SemiSupervisedClassifier
from tailmatch.lightning_modules.bases.image_module import ImageModule
from tailmatch.lightning_modules.pseudo_labels.class_prior import unlabeled_totals
from tailmatch.lightning_modules.training.distributed import gather_interleaved, sum_over_processes


class DARP(Refinery, Callback):
    """Projects the pseudo-labels of the whole unlabeled set onto those with given class totals.

    Kim et al., NeurIPS 2020, arXiv 2007.08844; authors' code bbuing9/DARP `training_functions.py`. The newest
    prediction of every unlabeled image is kept, unrefined. After the warm-up, all are refined together every few
    steps (`darp_solver.refine`), and in between the refined rows are handed out. It works for every method with a
    pseudo-label stage, between sharpening and selection.

    Images that were not predicted yet take no part, and the totals are scaled to those that were. (The authors begin
    with uniform rows, all replaced in their long warm-up; after a short one such rows would absorb the projection and
    spoil the others.)

    On several devices each process keeps the rows of its own unlabeled images (index modulo world size), and the
    solver exchanges K-vectors only. Predictions, refined rows, counters and the solver's warm start are saved:
    a checkpoint holds `2 N K` numbers for them, gathered in the order of the images, so that it resumes with
    another number of processes.

    Args:
        target: Class totals of the unlabeled set: null in proportion to the labeled counts, a list of K numbers,
            a `prior.json` of `UnlabeledPriorEstimator`, or `oracle` (the truth, for analysis).
        alpha: Class k keeps its `alpha * target_k` most likely images before the projection.
        warmup_epochs: Epochs without refinement. 200 of 500 in the paper; the authors' code begins one epoch
            later (`epoch > warm`).
        refine_every: Steps between refinements: 10 on CIFAR-10, 100 on CIFAR-100 and STL-10.
        **kwargs: The other arguments of `Refinery`.
    """

    def __init__(
        self,
        target: str | list[float] | None = None,
        alpha: float = ALPHA,
        warmup_epochs: int = 200,
        refine_every: int = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(target, alpha, **kwargs)
        check_at_least("warmup_epochs", warmup_epochs, 0)
        check_at_least("refine_every", refine_every, 1)
        self.warmup_epochs = warmup_epochs
        self.refine_every = refine_every
        self.totals = torch.empty(0)
        self.last: Refinement | None = None
        self._refining = False
        self._steps = 0
        self._rank, self._world_size = 0, 1
        self._predictions, self._refined = torch.empty(0, 0), torch.empty(0, 0)
        self._warm_start: Tensor | None = None

    # Life of the callback

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Register with the method.

        Raises:
            SettingsError: The method has no pseudo-labels, the warm-up fills the training, or the target is bad.
        """
        if stage != "fit":
            return
        if not isinstance(pl_module, SemiSupervisedClassifier):
            hint = "; tailmatch.callbacks.DARPRefinement is for its labels" if reads_labels(pl_module) else ""
            raise SettingsError(f"DARP refines pseudo-labels of a step, and {type(pl_module).__name__} has none{hint}")
        data = trainer.datamodule  # type: ignore[attr-defined]
        epochs = pl_module.total_epochs()
        if self.warmup_epochs >= epochs:
            raise SettingsError(
                f"DARP would never run: warmup_epochs is {self.warmup_epochs} and the training has {epochs} epochs"
            )
        self.totals = unlabeled_totals(self.target, data)
        self._rank, self._world_size = trainer.global_rank, trainer.world_size
        shape = (len(range(self._rank, len(data.unlabeled), self._world_size)), data.num_classes)
        self._predictions, self._refined = torch.zeros(shape), torch.zeros(shape)
        pl_module.add_refiner(self)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Refine after the warm-up; a run that resumes within an epoch does not start that epoch again."""
        self._refining = trainer.current_epoch >= self.warmup_epochs

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Log the solver's state with the training numbers."""
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if self.last is not None and every and trainer.global_step % every == 0:
            scalars = {"darp/residual": self.last.residual, "darp/iterations": float(self.last.iterations)}
            for logger in trainer.loggers:
                logger.log_metrics(scalars, step=trainer.global_step - 1)

    # The refinement

    def refine(self, probs: Tensor, index: Tensor) -> Tensor:
        """Keep the predictions, and give the refined ones after the warm-up. See `PseudoLabelRefiner`."""
        rows = index // self._world_size
        self._predictions, self._refined = self._predictions.to(probs.device), self._refined.to(probs.device)
        self._predictions[rows] = probs.detach().float()
        if not self._refining:
            return probs
        if self._steps % self.refine_every == 0:
            self._refine_all()
        self._steps += 1
        refined = self._refined[rows].to(probs.dtype)
        return torch.where(known(refined)[:, None], refined, probs)  # some may be predicted for the first time

    def _refine_all(self) -> None:
        device = self._predictions.device
        predicted = known(self._predictions)
        counts = sum_over_processes(predicted.sum().double()[None])
        everything = bool(predicted.all())
        self.last = self.refined(
            self._predictions if everything else self._predictions[predicted],
            self.totals.to(device) * (counts / self.totals.sum()),
            self._warm_start,
            hint=" (logged as darp/residual); predictions that are certain leave nothing to move",
        )
        self._warm_start = self.last.nu
        if everything:
            self._refined = self.last.rows
        else:
            self._refined = torch.zeros_like(self._predictions)
            self._refined[predicted] = self.last.rows

    # Checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Counters, warm start and all rows in the order of the images."""
        return {
            "steps": self._steps,
            "warm_start": self._warm_start,
            "predictions": self._gathered(self._predictions),
            "refined": self._gathered(self._refined),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take this process' rows.

        Raises:
            SettingsError: The state is of another unlabeled set.
        """
        self._steps = state_dict["steps"]
        self._warm_start = state_dict["warm_start"]
        mine = slice(self._rank, None, self._world_size)
        predictions = state_dict["predictions"][mine].clone()
        if len(self._predictions) and predictions.shape != self._predictions.shape:
            raise SettingsError(
                f"the checkpoint's DARP state is of {tuple(predictions.shape)} predictions, and this run has "
                f"{tuple(self._predictions.shape)}: resume on the same unlabeled images"
            )
        self._predictions = predictions
        self._refined = state_dict["refined"][mine].clone()

    def _gathered(self, rows: Tensor) -> Tensor:
        if not rows.numel():
            return rows
        return gather_interleaved(rows, int(self.totals.sum().round()), torch.device("cpu"))


def reads_labels(pl_module: LightningModule) -> bool:
    """Whether a method trains on pseudo-labels that were made beforehand."""
    return isinstance(pl_module, ImageModule) and pl_module.reads_pseudo_labels


def known(rows: Tensor) -> Tensor:
    """Which rows `[n, K]` were written: `bool [n]`. Before, they are zero."""
    return rows.sum(dim=1) > 0
