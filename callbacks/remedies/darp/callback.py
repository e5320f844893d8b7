"""DARP for methods that predict pseudo-labels in every step, and for labels that are all made at once."""

from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from tailmatch.callbacks.remedies.darp.solver import ALPHA, MAX_ITERATIONS, TOLERANCE, Solution, Solver
from tailmatch.callbacks.remedies.darp.state import Rows, known
from tailmatch.callbacks.reports.scalars import log_scalars
from tailmatch.datamodules import LabeledUnlabeledDataModule
from tailmatch.datamodules.arguments import SettingsError, check_count
from tailmatch.lightning_modules import SemiSupervisedClassifier
from tailmatch.lightning_modules.bases.image_module import ImageModule
from tailmatch.lightning_modules.pseudo_labels.class_prior import check_target, unlabeled_totals
from tailmatch.lightning_modules.training.distributed import sum_over_processes


class DARP(Callback):
    """DARP: projects the pseudo-labels of the whole unlabeled set onto given class totals.

    The method is that of Kim et al., NeurIPS 2020, arXiv 2007.08844 (authors' code: bbuing9/DARP
    `training_functions.py`). The callback keeps the newest, unrefined prediction of every unlabeled image. After the
    warm-up it refines all of them together every few steps (`Solver.solve`), and hands out the refined rows in between.
    It works with every method that has a pseudo-label stage, and acts between sharpening and selection.

    Images without a prediction yet are left out, and the totals are scaled to the number of the others. (The authors
    start from uniform rows, all of which are replaced during their long warm-up. After a short warm-up such rows would
    absorb the projection and spoil the others.)

    On several devices each process keeps the rows of its own unlabeled images (index modulo world size), and the solver
    exchanges only vectors of K entries. A checkpoint contains the predictions, `N K` numbers in the order of the
    images, so that a run can resume with another number of processes; and, much smaller, what the refined rows follow
    from (`state.py`), the counters and the solver's warm start.

    Args:
        target: The class totals of the unlabeled set: a list of K numbers, the path of a `prior.json` written by
            `UnlabeledPriorEstimator`, or `oracle` (the true totals, for analysis). Only their ratios matter. None: the
            totals are proportional to the labeled counts.
        alpha: The number of images that class k keeps before the projection, as a multiple of `target_k`; at least 1.
            The most likely images are kept.
        warmup_epochs: The number of epochs without refinement. The paper has 200 of 500; the authors' code begins one
            epoch later (`epoch > warm`).
        refine_every: The number of steps between two refinements: 10 on CIFAR-10, 100 on CIFAR-100 and STL-10.
        tolerance: The largest accepted error of a class total, as a share of that total (of one image, if the total is
            smaller).
        max_iterations: The largest number of iterations of the solver. If it does not reach the target, a warning says
            how far it is off.

    Raises:
        SettingsError: An argument is outside its domain.
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
        check_count("warmup_epochs", warmup_epochs, 0)
        check_count("refine_every", refine_every)
        check_target(target)
        self.target = target
        self.solver = Solver(alpha, tolerance, max_iterations)
        self.warmup_epochs = warmup_epochs
        self.refine_every = refine_every
        self.target_totals = torch.empty(0)
        self.scalars: dict[str, float] = {}  # of the newest refinement
        self._warmed_up = False
        self._steps = 0
        self._rank, self._world_size = 0, 1
        self._rows = Rows(0, 0)
        self._warm_start: Tensor | None = None

    # Life of the callback

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Register with the method.

        Raises:
            SettingsError: The method has no pseudo-label stage, the warm-up is at least as long as the training, or
                `target` is not valid.
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
                f"DARP would never run: warmup_epochs is {self.warmup_epochs} and the training has {epochs} epochs; "
                "lower it, as in --trainer.callbacks.warmup_epochs 0"
            )
        self.target_totals = unlabeled_totals(self.target, data)
        self._rank, self._world_size = trainer.global_rank, trainer.world_size
        self._rows = Rows(len(range(self._rank, len(data.unlabeled), self._world_size)), data.num_classes)
        pl_module.add_refiner(self)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Note whether the warm-up is over, in every step, since a run may resume in the middle of an epoch."""
        self._warmed_up = trainer.current_epoch >= self.warmup_epochs

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Log the residual and the iterations of the newest refinement together with the training metrics."""
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if self.scalars and every and trainer.global_step % every == 0:
            log_scalars(trainer, self.scalars, step=trainer.global_step - 1)

    # The refinement

    def refine(self, probs: Tensor, index: Tensor) -> Tensor:
        """Keep the predictions and return the refined ones, after the warm-up; see `PseudoLabelRefiner`."""
        rows = index // self._world_size
        self._rows.to(probs.device)
        self._rows.predict(rows, probs)
        if not self._warmed_up:
            return probs
        if self._steps % self.refine_every == 0:
            self._solve_all()
        self._steps += 1
        solved = self._rows.solved[rows].to(probs.dtype)
        return torch.where(known(solved)[:, None], solved, probs)  # some may be predicted for the first time

    def _solve_all(self) -> None:
        predictions = self._rows.predictions
        device = predictions.device
        predicted = known(predictions)
        counts = sum_over_processes(predicted.sum().double()[None])
        everything = bool(predicted.all())
        solution = self.solver.solve(
            predictions if everything else predictions[predicted],
            self.target_totals.to(device) * (counts / self.target_totals.sum()),
            None if self._warm_start is None else self._warm_start.to(device),
        )
        warn_if_short(solution, " (logged as darp/residual); predictions that are certain leave nothing to move")
        self._warm_start = solution.nu
        self.scalars = {"darp/residual": solution.residual, "darp/iterations": float(solution.iterations)}
        self._rows.refine(solution.rows, None if everything else predicted, solution.prices)

    # Checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Give the counters, the warm start, what is logged, and the rows of all images in their order."""
        return {
            "steps": self._steps,
            "warm_start": self._warm_start,
            "scalars": self.scalars,
            **self._rows.state_dict(int(self.target_totals.sum().round())),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the counters, the warm start, what is logged, and this process' rows of a checkpoint.

        Raises:
            SettingsError: The state is that of another unlabeled set.
        """
        self._steps = state_dict["steps"]
        self._warm_start = state_dict["warm_start"]
        self.scalars = state_dict.get("scalars", {})
        self._rows.load_state_dict(state_dict, self._rank, self._world_size)


class DARPRefinement:
    """DARP for labels that are all made at once: projects predictions onto given class totals.

    `PseudoLabelGenerator` takes one as its `refiner`. `DARP` does the same for methods that predict a batch of
    pseudo-labels in every step.

    Args:
        target: The class totals of the unlabeled set: a list of K numbers, the path of a `prior.json` written by
            `UnlabeledPriorEstimator`, or `oracle` (the true totals, for analysis). Only their ratios matter. None: the
            totals are proportional to the labeled counts.
        alpha: The number of images that class k keeps before the projection, as a multiple of `target_k`; at least 1.
            The most likely images are kept.
        tolerance: The largest accepted error of a class total, as a share of that total (of one image, if the total is
            smaller).
        max_iterations: The largest number of iterations of the solver. If it does not reach the target, a warning says
            how far it is off.

    Raises:
        SettingsError: An argument is outside its domain.
    """

    def __init__(
        self,
        target: str | list[float] | None = None,
        alpha: float = ALPHA,
        tolerance: float = TOLERANCE,
        max_iterations: int = MAX_ITERATIONS,
    ) -> None:
        check_target(target)
        self.target = target
        self.solver = Solver(alpha, tolerance, max_iterations)

    def __call__(self, probs: Tensor, data: LabeledUnlabeledDataModule) -> Tensor:
        """Refine predictions.

        Args:
            probs: `float32 [n, K]`, the predictions of this process' unlabeled images; each row sums to 1.
            data: The data module, after its `setup`.

        Returns:
            `float32 [n, K]`, the refined predictions; each row sums to 1.
        """
        solution = self.solver.solve(probs, unlabeled_totals(self.target, data))
        warn_if_short(solution)
        return solution.rows


def warn_if_short(solution: Solution, hint: str = "") -> None:
    """Warn if the solver did not reach the class totals, and say how far off they are; `hint` ends the sentence."""
    if not solution.converged:
        rank_zero_warn(
            f"DARP's target was not reached: a class total is off by {100 * solution.residual:.3g}% of its target{hint}"
        )


def reads_labels(pl_module: LightningModule) -> bool:
    """Tell whether a method trains on pseudo-labels that were made beforehand."""
    return isinstance(pl_module, ImageModule) and pl_module.reads_pseudo_labels
