"""The relative threshold of AdaMatch (Berthelot et al., ICLR 2022, arXiv 2106.04732)."""

from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.training.distributed import mean_over_processes
from tailmatch.lightning_modules.weightings.base import Weighting


class RelativeThreshold(Weighting):
    r"""AdaMatch: one threshold, in proportion to the confidence in the labeled images of the step.

        a pseudo-label counts if max q >= threshold * mean(max p(labeled))

    q is refined, and p the prediction on a labeled image (of its weak view). So the threshold is low as long as the
    network is not confident of labeled images either. It has no state.

    The equation is that of google-research/adamatch `semi_supervised/adamatch.py`, where the method's `threshold` is
    0.9. `AdaMatch` has this weighting, and that default. It needs a method whose pseudo-labels come with the
    predictions on the labeled images, as those of `FixMatch`, `FixMatchABC`, `FixMatchRetraining`, `BOAT` and `CPE` do.
    """

    def forward(self, probs: Tensor, refined: Tensor, index: Tensor, labeled: Tensor | None) -> Tensor:
        """See `Weighting.forward`.

        Raises:
            SettingsError: The method does not give the predictions on the labeled images.
        """
        if labeled is None:
            raise SettingsError(
                "weighting is RelativeThreshold, and this method weighs pseudo-labels without the predictions on the "
                "labeled images, to which the threshold is relative: use it with FixMatch or AdaMatch"
            )
        level = self.threshold * mean_over_processes(labeled.amax(dim=1, keepdim=True))
        return (refined.amax(dim=1) >= level).float()
