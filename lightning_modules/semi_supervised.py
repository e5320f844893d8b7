"""The base of semi-supervised methods: two streams and the pseudo-label stage."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from lightning_modules.classifier import ImageClassifier


@runtime_checkable
class PseudoLabelRefiner(Protocol):
    """A remedy that changes pseudo-labels: `callbacks` implement it and register with the method."""

    def refine(self, probs: Tensor, index: Tensor) -> Tensor:
        """Refined rows.

        Args:
            probs: `[B, K]` predictions (after sharpening), rows sum to 1.
            index: `int64 [B]` places in the unlabeled set.

        Returns:
            `[B, K]`, rows sum to 1.
        """


class PseudoLabelObserver(Protocol):
    """Something that watches the pseudo-labels, refined or not."""

    def observe(self, raw: Tensor, refined: Tensor, selected: Tensor, index: Tensor) -> None:
        """One step's pseudo-labels: `raw` and `refined [B, K]` probs, `selected bool [B]`, `index int64 [B]`."""


class SemiSupervisedClassifier(ImageClassifier):
    """A method with pseudo-labels: logits of the weak view -> probs -> sharpen -> refine -> select -> target.

    Args:
        **kwargs: The arguments of `ImageClassifier`.
    """

    streams = ("labeled", "unlabeled")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._refiners: list[PseudoLabelRefiner] = []
        self._observers: list[PseudoLabelObserver] = []

    def add_refiner(self, refiner: PseudoLabelRefiner) -> None:
        """Let a callback refine the pseudo-labels from now on. Refiners work in the order of their adding.

        Adding one twice (a second `fit`) has no effect.
        """
        if refiner not in self._refiners:
            self._refiners.append(refiner)

    def add_observer(self, observer: PseudoLabelObserver) -> None:
        """Let a callback see the pseudo-labels of every step from now on, once."""
        if observer not in self._observers:
            self._observers.append(observer)

    def refine(self, probs: Tensor, index: Tensor) -> Tensor:
        """Pass `probs [B, K]` of the unlabeled images `index [B]` through all refiners."""
        refined = probs
        for refiner in self._refiners:
            refined = refiner.refine(refined, index)
        for observer in self._observers:
            observer.observe(probs, refined, self.select(refined), index)
        return refined

    def select(self, probs: Tensor) -> Tensor:
        """Which refined pseudo-labels `[B, K]` teach, `bool [B]`; all, unless a method chooses."""
        return torch.ones(len(probs), dtype=torch.bool, device=probs.device)
