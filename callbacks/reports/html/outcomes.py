"""What a network says of each image of a set: its two most likely classes, and their probabilities."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tailmatch.lightning_modules.training.distributed import sum_over_processes


@dataclass(frozen=True)
class Outcomes:
    """Predictions of n images of a set, in the order of the set.

    Attributes:
        position: Position of each image in the set, `int64 [n]`.
        predicted: The most likely class, `int64 [n]`.
        second: The second most likely class, `int64 [n]`.
        confidence: Probability of the most likely class, `float64 [n]`.
        second_confidence: Probability of the second most likely class, `float64 [n]`.
        target: The class of each image, `int64 [n]`, -1 where it is not known.
    """

    position: Tensor
    predicted: Tensor
    second: Tensor
    confidence: Tensor
    second_confidence: Tensor
    target: Tensor

    @property
    def correct(self) -> Tensor:
        """Whether each prediction is right, `bool [n]`."""
        return self.predicted == self.target

    @property
    def margin(self) -> Tensor:
        """Difference of the two probabilities, `float64 [n]`, in [0, 1]."""
        return self.confidence - self.second_confidence


class Collector:
    """Collects the predictions of the batches of a set, on the device, without waiting for it.

    Args:
        size: Number of images in the set, N.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._parts: list[tuple[Tensor, ...]] = []

    def add(self, probs: Tensor, index: Tensor, target: Tensor | None) -> None:
        """Add a batch: probabilities `[B, K]`, the position of each image in the set, and its class if it is known."""
        top = probs.float().topk(2, dim=1)
        known = torch.full_like(index, -1) if target is None else target
        self._parts.append((index, *top.indices.unbind(dim=1), *top.values.unbind(dim=1), known))

    def gathered(self) -> Outcomes:
        """Put the predictions of all processes together; every process calls this."""
        table = torch.zeros(self.size, 6, dtype=torch.float64)  # classes are exact, too
        if self._parts:
            index, *columns = (torch.cat(column).cpu() for column in zip(*self._parts, strict=True))
            seen = torch.ones(len(index), dtype=torch.float64)
            table[index] = torch.stack([seen, *(column.double() for column in columns)], dim=1)
        table = sum_over_processes(table)
        position = table[:, 0].nonzero().squeeze(1)
        predicted, second, confidence, second_confidence, target = table[position, 1:].unbind(dim=1)
        return Outcomes(position, predicted.long(), second.long(), confidence, second_confidence, target.long())
