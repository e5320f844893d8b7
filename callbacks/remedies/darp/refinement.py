"""What every refinement by DARP shares, and that of the predictions of a whole unlabeled set at one time."""

from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor

from tailmatch.callbacks.remedies.darp.solver import Refinement, refine
from tailmatch.datamodules import LabeledUnlabeledDataModule
from tailmatch.datamodules.arguments import check_at_least
from tailmatch.lightning_modules.pseudo_labels.class_prior import unlabeled_totals
from tailmatch.lightning_modules.training.distributed import sum_over_processes

ALPHA = 2.0  # bbuing9/DARP `arguments.py`


class Refinery:
    """What `DARP` and `DARPRefinement` share: how predictions are refined to class totals.

    Args:
        target: Class totals of the unlabeled set: null in proportion to the labeled counts, a list of K numbers,
            a `prior.json` of `UnlabeledPriorEstimator`, or `oracle` (the truth, for analysis).
        alpha: Class k keeps its `alpha * target_k` most likely images before the projection.
        tolerance: Largest error of a class total that the solver leaves, as a share of it.
        max_iterations: Most iterations of the solver; where the target cannot be reached, a warning names the
            error that is left.
    """

    def __init__(
        self,
        target: str | list[float] | None = None,
        alpha: float = ALPHA,
        tolerance: float = 1e-5,
        max_iterations: int = 200,
    ) -> None:
        check_at_least("alpha", alpha, 1.0)
        check_at_least("max_iterations", max_iterations, 1)
        self.target = target
        self.alpha = alpha
        self.tolerance = tolerance
        self.max_iterations = max_iterations

    def refined(self, probs: Tensor, totals: Tensor, warm_start: Tensor | None = None, hint: str = "") -> Refinement:
        """Refine the rows of all processes; see `darp_solver.refine`.

        Args:
            probs: `float32 [n, K]` of this process.
            totals: `[K]` of all processes.
            warm_start: `[K]`, or None.
            hint: What the warning adds where the totals were not reached.
        """
        result = refine(
            probs,
            totals.to(probs.device),
            alpha=self.alpha,
            warm_start=None if warm_start is None else warm_start.to(probs.device),
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
            reduce=sum_over_processes,
        )
        if not result.converged:
            rank_zero_warn(
                f"DARP's target was not reached: a class total is off by {result.residual:.2%} of the unlabeled "
                f"images{hint}"
            )
        return result


class DARPRefinement(Refinery):
    """Projects predictions onto given class totals, for labels that are made at one time (`PseudoLabelGenerator`).

    The `DARP` callback does the same within methods that predict a batch of pseudo-labels in every step. The arguments
    are those of `Refinery`.
    """

    def __call__(self, probs: Tensor, data: LabeledUnlabeledDataModule) -> Tensor:
        """Refined rows.

        Args:
            probs: `float32 [n, K]` of this process' unlabeled images.
            data: After its `setup`.

        Returns:
            `[n, K]`, rows sum to 1.
        """
        return self.refined(probs, unlabeled_totals(self.target, data)).rows
