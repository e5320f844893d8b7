"""The newest pseudo-label of each unlabeled image, as state that is saved; and intervals of steps."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tailmatch.datamodules.arguments import SettingsError, check_count
from tailmatch.lightning_modules.training.distributed import gather_rows

NONE = -1
"""Stands for an image without a pseudo-label."""


def places(index: Tensor, chosen: Tensor, images: int) -> Tensor:
    """Compute where chosen rows are written, `int64 [B]`: at their index; others, and all but the last of one, at N.

    Args:
        index: Positions of the images in a set, `int64 [B]`.
        chosen: Which rows are written, `bool [B]`.
        images: Number N of images.
    """
    again = ((index[:, None] == index) & chosen).triu(1).any(dim=1)
    return torch.where(chosen & ~again, index, images)


class LabelMemory(nn.Module):
    """The newest pseudo-label of each of N unlabeled images. All processes have those of all images.

    Attributes:
        labels: `int32 [N + 1]`, -1 for none; the last entry belongs to no image and stays -1.
    """

    labels: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("labels", torch.full((1,), NONE, dtype=torch.int32))
        self.images: int | None = None
        self._running: Tensor | None = None  # what `counts` gives, kept up to date

    def adapt(self, images: int) -> None:
        """Take the number N of unlabeled images, and forget the labels of another number."""
        self.images = images
        self._resize(images)

    @torch.no_grad()
    def write(self, index: Tensor, labels: Tensor, chosen: Tensor) -> Tensor:
        """Replace the labels of some images by those of this step, of all processes; call it on all of them.

        Of an image that is in the step several times, the last chosen row counts.

        Args:
            index: Positions of the images in the unlabeled set, `int64 [B]`.
            labels: Pseudo-labels `int64 [B]`.
            chosen: Which rows are written, `bool [B]`.

        Returns:
            Where the rows of all processes were written, `int64 [W B]`; N for those that were not.

        Raises:
            SettingsError: A checkpoint had labels of another number of images.
        """
        self._check_images()
        index, labels, marks = gather_rows(torch.stack([index, labels, chosen.long()], dim=1)).unbind(dim=1)
        place = places(index, marks.bool(), len(self.labels) - 1)
        moved = (place < len(self.labels) - 1).long()
        written = torch.where(moved == 1, labels, NONE)
        if self._running is not None:
            before = self.labels.index_select(0, place).long()
            self._running.index_add_(0, before - NONE, -moved).index_add_(0, written - NONE, moved)
        self.labels.index_copy_(0, place, written.int())
        return place

    def replace(self, labels: Tensor) -> None:
        """Replace the labels of all images, `int32 [N]`, -1 for none; on all processes by the same ones."""
        self._running = None
        self.labels[:-1].copy_(labels)

    def counts(self, num_classes: int) -> Tensor:
        """Count the images without a label, and those of each label: `int64 [1 + K]`."""
        labels = self.labels[:-1].long()
        return torch.zeros(1 + num_classes, dtype=torch.long, device=labels.device).index_add_(
            0, labels - NONE, torch.ones_like(labels)
        )

    def running_counts(self, num_classes: int) -> Tensor:
        """Give what `counts` does, at the cost of the images of a step instead of all: after this, `write` counts."""
        if self._running is None or self._running.device != self.labels.device:
            self._running = self.counts(num_classes)
        return self._running

    def make_room(self, state: Mapping[str, Any], prefix: str) -> None:
        """Take the size that the tensors of a state dict have, before it is loaded: an evaluation knows no images.

        Args:
            state: State dict of the method.
            prefix: What the names of this module's tensors begin with, such as `weighting.memory.`.
        """
        given = state.get(f"{prefix}labels")
        # A tensor that is not contiguous may be far larger than the file.
        if isinstance(given, Tensor) and given.dim() == 1 and len(given) and given.is_contiguous():
            self._resize(len(given) - 1)

    def _check_images(self) -> None:
        """Refuse the labels of another number of images, which a checkpoint had."""
        if self.images is not None and len(self.labels) != self.images + 1:
            raise SettingsError(
                f"the checkpoint has pseudo-labels of {len(self.labels) - 1} unlabeled images, and there are "
                f"{self.images}: resume with the data of that run"
            )

    def _load_from_state_dict(self, *args: object) -> None:
        self._running = None
        super()._load_from_state_dict(*args)

    def _resize(self, images: int) -> None:
        if len(self.labels) != images + 1:
            self._running = None
            self.labels = torch.full((images + 1,), NONE, dtype=torch.int32, device=self.labels.device)


class PredictionMemory(LabelMemory):
    """The newest prediction of each of N unlabeled images: its class, and its confidence.

    Attributes:
        confidence: `float32 [N + 1]`, 0 where there is no prediction.
    """

    confidence: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("confidence", torch.zeros(1))

    def _resize(self, images: int) -> None:
        super()._resize(images)
        if len(self.confidence) != images + 1:
            self.confidence = torch.zeros(images + 1, device=self.confidence.device)

    @torch.no_grad()
    def predict(self, index: Tensor, probs: Tensor) -> None:
        """Replace the predictions of some images by those of this step, of all processes; call it on all of them.

        Args:
            index: Positions of the images in the unlabeled set, `int64 [B]`.
            probs: Predictions `float32 [B, K]`.
        """
        confidence, labels = probs.max(dim=1)
        place = self.write(index, labels, torch.ones_like(index, dtype=torch.bool))
        written = place < len(self.labels) - 1
        self.confidence.index_copy_(0, place, torch.where(written, gather_rows(confidence), 0))


class Interval(nn.Module):
    """A counter of steps that tells when n of them are over, without waiting for the device.

    Args:
        every: Number n of steps, at least 1.
        start: Number of steps before the first interval, at least 0.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    steps: Tensor

    def __init__(self, every: int, start: int = 0) -> None:
        super().__init__()
        check_count("every", every)
        check_count("start", start, 0)
        self.every = every
        self.start = start
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self._known: int | None = None  # the same number, without the device

    @property
    def counted(self) -> int:
        """The number of steps that were counted; only the first look after a resume waits for the device."""
        if self._known is None:
            self._known = int(self.steps)
        return self._known

    def tick(self) -> bool:
        """Count a step, and tell whether an interval ends with it."""
        self._known = self.counted + 1
        self.steps += 1
        past = self._known - self.start
        return past > 0 and past % self.every == 0

    def _load_from_state_dict(self, *args: object) -> None:
        self._known = None
        super()._load_from_state_dict(*args)
