"""The base of semi-supervised methods: labeled and unlabeled streams, and the pseudo-label stage."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from pytorch_lightning import Callback
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError, check_positive
from tailmatch.lightning_modules.bases.classifier import ImageClassifier
from tailmatch.lightning_modules.training.finite import tensors_in


@runtime_checkable
class PseudoLabelRefiner(Protocol):
    """A remedy that changes pseudo-labels: a callback that implements `refine` and registers with `add_refiner`."""

    def refine(self, probs: Tensor, index: Tensor) -> Tensor:
        """Refine the pseudo-labels of a batch.

        Args:
            probs: Predictions `float32 [B, K]`, whose rows sum to 1.
            index: Positions of the images in the unlabeled set, `int64 [B]`.

        Returns:
            Refined predictions `[B, K]`, whose rows sum to 1.
        """


@runtime_checkable
class TargetedRefiner(PseudoLabelRefiner, Protocol):
    """A refiner that moves pseudo-labels towards target class totals, which reports show beside the pseudo-labels."""

    @property
    def target_totals(self) -> Tensor:
        """Target class totals of the unlabeled set, `[K]` in any scale; they may change during a training."""


class LossShift(Protocol):
    """A remedy that shifts logits in the losses, such as by a log prior: a callback that registers with `add_shift`.

    Evaluation has the logits without a shift. A shift of the pseudo-labels' logits is a refiner before sharpening,
    since `softmax(z + s)` is `p e^s`, normalized. The refiners of a step come before its losses, so that a prior which
    `refine` updates is the old one for the pseudo-labels and the new one in the losses.
    """

    balances: bool
    """Whether logits that are trained with it are those of equally frequent classes: `LogitAdjustment` is refused."""

    def labeled_shift(self) -> Tensor | None:
        """Return what is added to the logits in the labeled loss, `float32 [K]`; None for nothing."""

    def unlabeled_shift(self) -> Tensor | None:
        """Return what is added to the logits in the unlabeled losses, `float32 [K]`; None for nothing."""


class PseudoLabelObserver(Protocol):
    """A callback that receives the pseudo-labels of every step, before and after refinement."""

    def observe(self, raw: Tensor, refined: Tensor, weights: Tensor, index: Tensor) -> None:
        """Receive the pseudo-labels of one step.

        Args:
            raw: Sharpened predictions before any refinement, probs `[B, K]`.
            refined: Pseudo-labels after all refinement, probs `[B, K]`.
            weights: Weight of each pseudo-label in the loss, at least 0, `float32 [B]`; 0 and 1 for a selection.
            index: Positions of the images in the unlabeled set, `int64 [B]`.
        """


class SemiSupervisedClassifier(ImageClassifier):
    """A method with pseudo-labels: probs of weak views -> align -> sharpen -> refine -> weigh -> target.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        temperature: Temperature T, above 0, that sharpens the pseudo-labels; 1 leaves them unchanged.
        **kwargs: Other arguments of `ImageClassifier`.

    Raises:
        SettingsError: `temperature` is not above 0.
    """

    streams: tuple[str, ...] = ("labeled", "unlabeled")

    def __init__(self, num_classes: int, *, temperature: float = 1.0, **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        check_positive("temperature", temperature)
        self.temperature = temperature
        self._aligners: list[PseudoLabelRefiner] = []
        self._refiners: list[PseudoLabelRefiner] = []
        self._observers: list[PseudoLabelObserver] = []
        self._shifts: list[LossShift] = []
        self._shifts_are_applied = False

    def add_refiner(self, refiner: PseudoLabelRefiner, before_sharpening: bool = False) -> None:
        """Register a refiner of the pseudo-labels. Refiners are called in the order in which they were added.

        Adding a refiner again, as in a second `fit`, has no effect.

        Args:
            refiner: Object with `refine`, such as a callback. If it also has `target_totals`, reports show them.
            before_sharpening: Whether it refines the predictions before they are sharpened (as distribution alignment
                does), or after (as DARP does).
        """
        refiners = self._aligners if before_sharpening else self._refiners
        if refiner not in refiners:
            refiners.append(refiner)

    def target_totals(self) -> Tensor | None:
        """Return the target class totals `[K]`, in any scale, of the last refiner that has them, or None."""
        for refiner in reversed([*self._aligners, *self._refiners]):
            if isinstance(refiner, TargetedRefiner):
                return refiner.target_totals
        return None

    def add_observer(self, observer: PseudoLabelObserver) -> None:
        """Register an observer of the pseudo-labels of every step. Adding it again has no effect."""
        if observer not in self._observers:
            self._observers.append(observer)

    def add_shift(self, shift: LossShift) -> None:
        """Register a shift of the logits in the losses. Several add up; adding one again has no effect."""
        if shift not in self._shifts:
            self._shifts.append(shift)
            self.balanced_evaluation |= shift.balances

    def labeled_shift(self) -> Tensor | None:
        """Return the shift `[K]` of the logits in the labeled loss, or None. Ask after `pseudo_labels`."""
        self._shifts_are_applied = True
        return _total([shift.labeled_shift() for shift in self._shifts])

    def unlabeled_shift(self) -> Tensor | None:
        """Return the shift `[K]` of the logits in the unlabeled losses, or None. Ask after `pseudo_labels`."""
        self._shifts_are_applied = True
        return _total([shift.unlabeled_shift() for shift in self._shifts])

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Refuse a method that does not apply the shifts of its remedies, after the first step.

        Raises:
            SettingsError: A remedy shifts logits, and the method's step asked for no shift.
        """
        if self._shifts and not self._shifts_are_applied:
            raise SettingsError(
                f"{type(self._shifts[0]).__name__} shifts the logits in the losses, and {type(self).__name__} does not "
                "apply shifts: leave it out, or let the method's step add labeled_shift() and unlabeled_shift()"
            )

    def pseudo_labels(self, probs: Tensor, index: Tensor, labeled: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Align, sharpen, refine and weigh predictions. Call this once in each step, without gradient.

        Autocast is disabled here: remedies compute in float32, whatever the precision of the training.

        Args:
            probs: Predictions on weak views, `float32 [B, K]`, whose rows sum to 1.
            index: Positions of the images in the unlabeled set, `int64 [B]`.
            labeled: Predictions on the labeled images of the step, `float32 [L, K]`, for `weigh`; None if there are
                none before the pseudo-labels are made, as where labeled images are mixed with them.

        Returns:
            Pseudo-labels, probs `[B, K]`, and their weights in the loss, `float32 [B]`.
        """
        with torch.autocast(probs.device.type, enabled=False):
            aligned = probs
            for aligner in self._aligners:
                aligned = aligner.refine(aligned, index)
            refined = sharpen(aligned, self.temperature)
            for refiner in self._refiners:
                refined = refiner.refine(refined, index)
            weights = self.weigh(probs, refined, index, labeled)
            for observer in self._observers:
                observer.observe(sharpen(probs, self.temperature), refined, weights, index)
        return refined, weights

    def weigh(self, probs: Tensor, refined: Tensor, index: Tensor, labeled: Tensor | None) -> Tensor:
        """Compute the weights of the pseudo-labels in the loss, `float32 [B]`, at least 0; the default is 1 for all.

        It is called once in each step, so that it may update the method's buffers. On several processes, each has its
        own rows.

        Args:
            probs: Predictions before alignment and sharpening, `float32 [B, K]`.
            refined: Pseudo-labels, probs `[B, K]`.
            index: Positions of the images in the unlabeled set, `int64 [B]`.
            labeled: Predictions on the labeled images of the step, `float32 [L, K]`, or None (see `pseudo_labels`).
        """
        return torch.ones(len(probs), device=probs.device)

    def saved_numbers(self, checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
        """Collect the tensors of a checkpoint that must be finite: those of its remedies too."""
        numbers, states = super().saved_numbers(checkpoint), checkpoint.get("callbacks", {})
        for remedy in (*self._aligners, *self._refiners, *self._shifts):
            if isinstance(remedy, Callback):
                numbers |= tensors_in(states.get(remedy.state_key, {}), type(remedy).__name__)
        return numbers


def shifted(logits: Tensor, shift: Tensor | None) -> Tensor:
    """Add a shift `[K]` to logits `[B, K]`; None leaves them as they are."""
    return logits if shift is None else logits + shift


def _total(shifts: list[Tensor | None]) -> Tensor | None:
    total = None
    for shift in shifts:
        total = shift if total is None else shifted(total, shift)
    return total


def sharpen(probs: Tensor, temperature: float) -> Tensor:
    """Compute `p_k^(1/T) / sum_j p_j^(1/T)` of rows `[B, K]` (MixMatch, arXiv 1905.02249, equation 7).

    Each row is first divided by its maximum: otherwise, with T = 0.1 and thousands of classes, float32 underflows.
    """
    if temperature == 1:
        return probs
    powers = (probs / probs.amax(dim=1, keepdim=True)).pow(1 / temperature)
    return powers / powers.sum(dim=1, keepdim=True)
