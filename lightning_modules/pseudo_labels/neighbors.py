"""Pseudo-labels and similarities to labeled images that correct each other (SimMatch, arXiv 2203.06915)."""

import torch
from torch import Tensor, nn

from tailmatch.datamodules.arguments import check_count, check_positive, check_share
from tailmatch.lightning_modules.pseudo_labels.label_memory import LabelMemory
from tailmatch.lightning_modules.pseudo_labels.row_memory import RowMemory

OUT_OF_REACH = -1e4
"""The similarity to an image that has not come yet: its weight is 0 beside any other, and its product with 0 is 0."""


class Neighbors(nn.Module):
    """A refiner that smooths predictions by similarities to labeled images, and corrects these by the predictions.

    It remembers the newest embedding and the class of each of N labeled images. In a step: `look`, the pseudo-label
    stage, the loss on `corrected`, then `write`.

    Args:
        dim: Size D of an embedding.
        smoothing: Share in [0, 1] of the prediction in a pseudo-label.
        temperature: Temperature of the similarities, above 0.

    Attributes:
        corrected: Corrected similarities of the step after `refine`, probs `[B, N]`.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    corrected: Tensor

    def __init__(self, dim: int, smoothing: float, temperature: float) -> None:
        super().__init__()
        check_count("dim", dim)
        check_share("smoothing", smoothing)
        check_positive("similarity_temperature", temperature)
        self.smoothing = smoothing
        self.temperature = temperature
        self.memory = LabelMemory()
        self.embeddings = RowMemory(dim)

    def adapt(self, images: int) -> None:
        """Take the number N of labeled images."""
        self.memory.adapt(images)
        self.embeddings.adapt(images)

    def look(self, embeddings: Tensor, smooths: bool) -> None:
        """Take embeddings `[B, D]` of the rows that will be refined, and whether they will be smoothed."""
        self._similarities, self._smooths = self.similarities(embeddings), smooths

    def refine(self, probs: Tensor, index: Tensor) -> Tensor:
        """See `PseudoLabelRefiner.refine`."""
        classes = self.memory.labels[:-1].long()
        self.corrected = corrected_similarities(self._similarities, probs, classes)
        if not self._smooths:
            return probs
        shares = class_shares(self._similarities, classes, probs.shape[1])
        return self.smoothing * probs + (1 - self.smoothing) * shares

    def similarities(self, embeddings: Tensor) -> Tensor:
        """Compute the products of `[B, D]` with the embeddings of all images, by the temperature: logits `[B, N]`.

        The memory may change before the backward pass.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            found = embeddings @ self.embeddings.rows[:-1].clone().T / self.temperature
        return torch.where(self.memory.labels[:-1] >= 0, found, OUT_OF_REACH)

    def write(self, index: Tensor, embeddings: Tensor, target: Tensor) -> None:
        """Remember this step's labeled images, those of all processes; call it on all of them.

        Args:
            index: Positions of the images in the labeled set, `int64 [B]`.
            embeddings: Embeddings `float32 [B, D]`.
            target: Classes of the images, `int64 [B]`.
        """
        self.memory.write(index, target, torch.ones_like(index, dtype=torch.bool))
        self.embeddings.write(index, embeddings)


def corrected_similarities(similarities: Tensor, probs: Tensor, classes: Tensor) -> Tensor:
    """Compute weights of labeled images, `[B, N]`, in proportion to `exp(similarity) p[class]`.

    Args:
        similarities: Logits `[B, N]`.
        probs: Predictions `[B, K]`.
        classes: Classes `int64 [N]` of the labeled images, -1 where the similarity is out of reach.
    """
    log_probs = probs.clamp(min=torch.finfo(probs.dtype).tiny).log()
    return (similarities + log_probs[:, classes.clamp(min=0)]).softmax(dim=1)


def class_shares(similarities: Tensor, classes: Tensor, num_classes: int) -> Tensor:
    """Sum the softmax of similarities `[B, N]` over the images of each class `int64 [N]`, `[B, K]`."""
    members = classes[:, None] == torch.arange(num_classes, device=classes.device)
    return similarities.softmax(dim=1) @ members.float()
