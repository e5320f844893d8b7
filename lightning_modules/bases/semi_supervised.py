"""The base of semi-supervised methods: two streams and the pseudo-label stage."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from tailmatch.datamodules.arguments import check_positive
from tailmatch.lightning_modules.bases.classifier import ImageClassifier


@runtime_checkable
class PseudoLabelRefiner(Protocol):
    """A remedy that changes pseudo-labels: `callbacks` implement it and register with the method."""

    def refine(self, probs: Tensor, index: Tensor) -> Tensor:
        """Refined rows.

        Args:
            probs: `float32 [B, K]` predictions, rows sum to 1.
            index: `int64 [B]` places in the unlabeled set.

        Returns:
            `[B, K]`, rows sum to 1.
        """


@runtime_checkable
class TargetedRefiner(PseudoLabelRefiner, Protocol):
    """A refiner with class totals that it moves pseudo-labels to: reports show them beside the pseudo-labels."""

    @property
    def target_totals(self) -> Tensor:
        """Class totals of the unlabeled set, `[K]` in any scale; they may change within a training."""


class PseudoLabelObserver(Protocol):
    """Something that watches the pseudo-labels, refined or not."""

    def observe(self, raw: Tensor, refined: Tensor, selected: Tensor, index: Tensor) -> None:
        """One step's pseudo-labels: `raw` and `refined [B, K]` probs, `selected bool [B]`, `index int64 [B]`."""


class SemiSupervisedClassifier(ImageClassifier):
    """A method with pseudo-labels: probs of weak views -> align -> sharpen -> refine -> select -> target.

    Args:
        num_classes: The number of classes; the command line takes it from the data module.
        temperature: T of the pseudo-labels' sharpening, above 0; 1 leaves them as they are.
        **kwargs: The arguments of `ImageClassifier`.
    """

    streams = ("labeled", "unlabeled")

    def __init__(self, num_classes: int, *, temperature: float = 1.0, **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        check_positive("temperature", temperature)
        self.temperature = temperature
        self._aligners: list[PseudoLabelRefiner] = []
        self._refiners: list[PseudoLabelRefiner] = []
        self._observers: list[PseudoLabelObserver] = []

    def add_refiner(self, refiner: PseudoLabelRefiner, before_sharpening: bool = False) -> None:
        """Let a callback refine the pseudo-labels from now on. Refiners work in the order of their adding.

        Adding one twice (a second `fit`) has no effect.

        Args:
            refiner: A callback with `refine`; with `target_totals` too, reports know what it aims at.
            before_sharpening: Whether it works on the predictions as they are (distribution alignment), or on the
                sharpened ones (DARP).
        """
        refiners = self._aligners if before_sharpening else self._refiners
        if refiner not in refiners:
            refiners.append(refiner)

    def target_totals(self) -> Tensor | None:
        """What the pseudo-labels are refined to, `[K]` in any scale: the target of the last refiner that has one."""
        for refiner in reversed([*self._aligners, *self._refiners]):
            if isinstance(refiner, TargetedRefiner):
                return refiner.target_totals
        return None

    def add_observer(self, observer: PseudoLabelObserver) -> None:
        """Let a callback see the pseudo-labels of every step from now on, once."""
        if observer not in self._observers:
            self._observers.append(observer)

    def pseudo_labels(self, probs: Tensor, index: Tensor) -> Tensor:
        """Sharpened and refined predictions, `[B, K]`: call it once a step.

        Autocast ends here: whatever the precision of the training, remedies compute in float32.

        Args:
            probs: `float32 [B, K]` predictions on weak views, rows sum to 1.
            index: `int64 [B]` places in the unlabeled set.
        """
        with torch.autocast(probs.device.type, enabled=False):
            aligned = probs
            for aligner in self._aligners:
                aligned = aligner.refine(aligned, index)
            refined = sharpen(aligned, self.temperature)
            for refiner in self._refiners:
                refined = refiner.refine(refined, index)
            for observer in self._observers:
                observer.observe(sharpen(probs, self.temperature), refined, self.select(refined), index)
        return refined

    def select(self, probs: Tensor) -> Tensor:
        """Which refined pseudo-labels `[B, K]` teach, `bool [B]`; all, unless a method chooses."""
        return torch.ones(len(probs), dtype=torch.bool, device=probs.device)


def sharpen(probs: Tensor, temperature: float) -> Tensor:
    """`p_k^(1/T) / sum_j p_j^(1/T)` of rows `[B, K]` (MixMatch, arXiv 1905.02249, equation 7).

    Rows are divided by their maximum first: with T = 0.1, thousands of classes would underflow in float32.
    """
    if temperature == 1:
        return probs
    powers = (probs / probs.amax(dim=1, keepdim=True)).pow(1 / temperature)
    return powers / powers.sum(dim=1, keepdim=True)
