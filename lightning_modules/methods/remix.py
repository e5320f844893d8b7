"""Remix (Chou et al., ECCV 2020 workshops, arXiv 2007.03943): mixup that leaves labels to rare classes."""

from typing import Any

import torch
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError, check_at_least, check_positive, check_share
from tailmatch.lightning_modules.methods.supervised import Supervised
from tailmatch.lightning_modules.networks.tagged_images import TaggedImages
from tailmatch.lightning_modules.views.base import to_device
from tailmatch.lightning_modules.views.mixup import mixup, mixup_partners


class Remix(Supervised):
    r"""Supervised training on mixtures whose label is that of the rarer class, if this class is much rarer.

    An image i of class a is mixed with an image j of class b, with the share l of image i. With the labeled class
    counts n:

        loss = mean(m CE(z(l x_i + (1 - l) x_j), a) + (1 - m) CE(..., b))
        m = 0 if n_a >= kappa n_b and l < tau;  1 if n_b >= kappa n_a and 1 - l < tau;  else l

    One share `max(l, 1 - l)` is drawn for a batch, as in `Supervised`: the mixtures are those of l, since the partners
    are a permutation, and with a tau of 0.5 the first case never occurs.

    Equations and defaults are those of the paper (section 3), and of ntucllab/imbalanced-DL.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        kappa: Ratio of class counts, at least 1, from which on the rarer class has the whole label.
        tau: The share of the image of the other class must be below it, in [0, 1]; 1 ignores the shares.
        mixup: Parameter alpha of mixup, above 0; see `Supervised`.
        **kwargs: Other arguments of `Supervised`, but for `class_weights`.

    Raises:
        SettingsError: An argument lies outside its domain, or there are `class_weights`.
    """

    def __init__(
        self, num_classes: int, *, kappa: float = 3.0, tau: float = 0.5, mixup: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(num_classes, mixup=mixup, **kwargs)
        check_at_least("kappa", kappa, 1)
        check_share("tau", tau)
        check_positive("mixup", mixup)
        if self.class_weights is not None:
            raise SettingsError("class_weights and Remix both favor rare classes: leave one out")
        self.kappa = kappa
        self.tau = tau

    def mean_loss(self, images: Tensor | TaggedImages, target: Tensor, weights: Tensor | None = None) -> Tensor:
        """Compute the mean loss `[]` of mixtures of images; see `Supervised.mean_loss`."""
        share, partner = mixup_partners(len(target), self.mixup)
        share, partner = to_device(share, target.device), to_device(partner, target.device)
        logits = self.network(mixup(images, share, partner)).float()  # type: ignore[arg-type]
        label = label_share(share, self.class_counts[target], self.class_counts[target[partner]], self.kappa, self.tau)
        losses: Tensor = label * self.loss(logits, target) + (1 - label) * self.loss(logits, target[partner])
        return losses.mean()


def label_share(share: Tensor, own: Tensor, other: Tensor, kappa: float, tau: float) -> Tensor:
    """Compute the share m of an image's own label in that of a mixture, `float32 [B]`.

    Args:
        share: Share of the image itself in the mixture, `[B]`.
        own: Labeled images of its class, `[B]`.
        other: Labeled images of its partner's class, `[B]`.
        kappa: Ratio of both from which on the rarer class has the whole label.
        tau: The share of the image of the other class must be below it.
    """
    share = torch.where((own >= kappa * other) & (share < tau), 0.0, share)
    return torch.where((other >= kappa * own) & (1 - share < tau), 1.0, share)
