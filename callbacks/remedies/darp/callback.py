"""DARP for methods that predict pseudo-labels in every step, and for labels that are made at one time."""

from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from tailmatch.callbacks.remedies.darp.solver import ALPHA, MAX_ITERATIONS, TOLERANCE, Solution, Solver
from tailmatch.callbacks.reports.scalars import log_scalars
from tailmatch.datamodules import LabeledUnlabeledDataModule
from tailmatch.datamodules.arguments import SettingsError, check_at_least
from tailmatch.lightning_modules import SemiSupervisedClassifier
from tailmatch.lightning_modules.bases.image_module import ImageModule
from tailmatch.lightning_modules.pseudo_labels.class_prior import unlabeled_totals
from tailmatch.lightning_modules.training.distributed import gather_interleaved, sum_over_processes


class DARP(Callback):
    """Projects the pseudo-labels of the whole unlabeled set onto those with given class totals.

    Kim et al., NeurIPS 2020, arXiv 2007.08844; authors' code bbuing9/DARP `training_functions.py`. The newest
    prediction of every unlabeled image is kept, unrefined. After the warm-up, all are refined together every few
    steps (`Solver.solve`), and in between the refined rows are handed out. It works for every method with a
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
        tolerance: Largest error of a class total that the solver leaves, as a share of that total (of one image,
            where the total is smaller).
        max_iterations: Most iterations of the solver. Where the target is not reached, a warning names the error that
            is left.
    """

    def __init__(
        self,
        target: str | list[float] | None = None,
        alpha: float = ALPHA,
        warmup_epochs: int = 200,
        refine_every: int = 10,
        tolerance: float = TOLERANCE,
        max_iterations: int = MAX_ITERATIONS,
    ) -> None:
        check_at_least("warmup_epochs", warmup_epochs, 0)
        check_at_least("refine_every", refine_every, 1)
        self.target = target
        self.solver = Solver(alpha, tolerance, max_iterations)
        self.warmup_epochs = warmup_epochs
        self.refine_every = refine_every
        self.target_totals = torch.empty(0)
        self.last: Solution | None = None
        self._warmed_up = False
        self._steps = 0
        self._rank, self._world_size = 0, 1
        self._predictions, self._solved = torch.empty(0, 0), torch.empty(0, 0)
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
        self.target_totals = unlabeled_totals(self.target, data)
        self._rank, self._world_size = trainer.global_rank, trainer.world_size
        shape = (len(range(self._rank, len(data.unlabeled), self._world_size)), data.num_classes)
        self._predictions, self._solved = torch.zeros(shape), torch.zeros(shape)
        pl_module.add_refiner(self)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Refine after the warm-up; a run that resumes within an epoch does not start that epoch again."""
        self._warmed_up = trainer.current_epoch >= self.warmup_epochs

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Log the solver's state with the training numbers."""
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if self.last is not None and every and trainer.global_step % every == 0:
            scalars = {"darp/residual": self.last.residual, "darp/iterations": float(self.last.iterations)}
            log_scalars(trainer, scalars, step=trainer.global_step - 1)

    # The refinement

    def refine(self, probs: Tensor, index: Tensor) -> Tensor:
        """Keep the predictions, and give the refined ones after the warm-up. See `PseudoLabelRefiner`."""
        rows = index // self._world_size
        self._predictions, self._solved = self._predictions.to(probs.device), self._solved.to(probs.device)
        self._predictions[rows] = probs.detach().float()
        if not self._warmed_up:
            return probs
        if self._steps % self.refine_every == 0:
            self._solve_all()
        self._steps += 1
        solved = self._solved[rows].to(probs.dtype)
        return torch.where(known(solved)[:, None], solved, probs)  # some may be predicted for the first time

    def _solve_all(self) -> None:
        device = self._predictions.device
        predicted = known(self._predictions)
        counts = sum_over_processes(predicted.sum().double()[None])
        everything = bool(predicted.all())
        self.last = self.solver.solve(
            self._predictions if everything else self._predictions[predicted],
            self.target_totals.to(device) * (counts / self.target_totals.sum()),
            None if self._warm_start is None else self._warm_start.to(device),
        )
        warn_if_short(self.last, " (logged as darp/residual); predictions that are certain leave nothing to move")
        self._warm_start = self.last.nu
        if everything:
            self._solved = self.last.rows
        else:
            self._solved = torch.zeros_like(self._predictions)
            self._solved[predicted] = self.last.rows

    # Checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Counters, warm start and all rows in the order of the images."""
        return {
            "steps": self._steps,
            "warm_start": self._warm_start,
            "predictions": self._gathered(self._predictions),
            "refined": self._gathered(self._solved),
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
        self._solved = state_dict["refined"][mine].clone()

    def _gathered(self, rows: Tensor) -> Tensor:
        if not rows.numel():
            return rows
        return gather_interleaved(rows, int(self.target_totals.sum().round()), torch.device("cpu"))


class DARPRefinement:
    """Projects predictions onto given class totals, for labels that are made at one time (`PseudoLabelGenerator`).

    `DARP` does the same within methods that predict a batch of pseudo-labels in every step.

    Args:
        target: Class totals of the unlabeled set, as `DARP.target`.
        alpha: Class k keeps its `alpha * target_k` most likely images before the projection.
        tolerance: Largest error of a class total that the solver leaves, as a share of that total (of one image,
            where the total is smaller).
        max_iterations: Most iterations of the solver. Where the target is not reached, a warning names the error that
            is left.
    """

    def __init__(
        self,
        target: str | list[float] | None = None,
        alpha: float = ALPHA,
        tolerance: float = TOLERANCE,
        max_iterations: int = MAX_ITERATIONS,
    ) -> None:
        self.target = target
        self.solver = Solver(alpha, tolerance, max_iterations)

    def __call__(self, probs: Tensor, data: LabeledUnlabeledDataModule) -> Tensor:
        """Refined rows.

        Args:
            probs: `float32 [n, K]` of this process' unlabeled images.
            data: After its `setup`.

        Returns:
            `[n, K]`, rows sum to 1.
        """
        solution = self.solver.solve(probs, unlabeled_totals(self.target, data))
        warn_if_short(solution)
        return solution.rows


def warn_if_short(solution: Solution, hint: str = "") -> None:
    """Say how far off the class totals are where the solver did not reach them; the hint ends the sentence."""
    if not solution.converged:
        rank_zero_warn(
            f"DARP's target was not reached: a class total is off by {100 * solution.residual:.3g}% of the unlabeled "
            f"images{hint}"
        )


def reads_labels(pl_module: LightningModule) -> bool:
    """Whether a method trains on pseudo-labels that were made beforehand."""
    return isinstance(pl_module, ImageModule) and pl_module.reads_pseudo_labels


def known(rows: Tensor) -> Tensor:
    """Which rows `[n, K]` were written: `bool [n]`. Before, they are zero."""
    return rows.sum(dim=1) > 0
