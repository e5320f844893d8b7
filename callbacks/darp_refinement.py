"""DARP on the predictions of a whole unlabeled set, once."""

from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor

from callbacks.darp_solver import refine
from datamodules import LabeledUnlabeledDataModule
from datamodules.class_prior import unlabeled_totals
from lightning_modules.arguments import check_at_least
from lightning_modules.processes import sum_over_processes


class DARPRefinement:
    """Projects predictions onto given class totals, for labels that are made at one time (`PseudoLabelGenerator`).

    The `DARP` callback does the same within methods that predict a batch of pseudo-labels in every step.

    Args:
        target: See `DARP`.
        alpha: See `DARP`.
        tolerance: See `DARP`.
        max_iterations: See `DARP`.
    """

    def __init__(
        self,
        target: str | list[float] | None = None,
        alpha: float = 2.0,
        tolerance: float = 1e-5,
        max_iterations: int = 100,
    ) -> None:
        check_at_least("alpha", alpha, 1.0)
        check_at_least("max_iterations", max_iterations, 1)
        self.target = target
        self.alpha = alpha
        self.tolerance = tolerance
        self.max_iterations = max_iterations

    def __call__(self, probs: Tensor, data: LabeledUnlabeledDataModule) -> Tensor:
        """Refined rows.

        Args:
            probs: `float32 [n, K]` of this process' unlabeled images.
            data: After its `setup`.

        Returns:
            `[n, K]`, rows sum to 1.
        """
        result = refine(
            probs,
            unlabeled_totals(self.target, data).to(probs.device),
            alpha=self.alpha,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            reduce=sum_over_processes,
        )
        if not result.converged:
            rank_zero_warn(
                f"DARP's target was not reached: a class total is off by {result.residual:.2%} of the unlabeled images"
            )
        return result.rows
