"""Supervised training on the labeled stream: the baseline."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from lightning_modules.classifier import Batch, ImageClassifier
from lightning_modules.fixmatch import check_share
from lightning_modules.views import WeakView


class Supervised(ImageClassifier):
    """Cross-entropy on labeled images alone.

    Args:
        label_smoothing: In [0, 1].
        view: View of the labeled images; None is the weak view.
        **kwargs: The arguments of `ImageClassifier`.
    """

    def __init__(self, label_smoothing: float = 0.0, view: nn.Module | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_share("label_smoothing", label_smoothing)
        self.label_smoothing = label_smoothing
        self.view = view or WeakView()

    def make_views(self, batch: Batch) -> Batch:
        """One view of the labeled stream."""
        batch["labeled"]["weak"] = self.view(batch["labeled"]["image"])
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageClassifier.training_step`."""
        labeled = batch["labeled"]
        logits = self.network(labeled["weak"]).float()
        loss = functional.cross_entropy(logits, labeled["target"], label_smoothing=self.label_smoothing)
        self.track(loss=loss)
        return loss
