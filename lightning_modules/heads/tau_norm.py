"""Tau-normalization: trained class weights, divided by a power of their length."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from tailmatch.datamodules import LabeledUnlabeledDataModule
from tailmatch.datamodules.arguments import SettingsError, check_at_least, check_each
from tailmatch.datamodules.images import ImageRows
from tailmatch.lightning_modules.checkpoints.weights import load_weights
from tailmatch.lightning_modules.heads.base import ComputedHead
from tailmatch.lightning_modules.metrics import recalls
from tailmatch.lightning_modules.networks import Network

GRID = tuple(step / 10 for step in range(21))
"""0 to 2 in 21 steps, as in facebookresearch/classifier-balancing `tau_norm.py`. (The paper uses (0, 1).)"""


class TauNorm(ComputedHead):
    """Tau-normalized class weights, `w_k / ||w_k||^tau`, with tau chosen by balanced accuracy on the validation images.

    Kang et al. 2020 (arXiv 1910.09217), section 4; facebookresearch/classifier-balancing `tau_norm.py`, which prints
    the mean recall for each tau and leaves the choice to the reader. Of several best ones, the smallest tau is chosen,
    which changes the weights least. The result is an ordinary linear head.

    Args:
        bias: Whether to keep the trained bias; False drops it, as the paper and the authors' code do.
        taus: Values of tau to choose from, at least 0 and rising: 0 is the trained head, 1 gives class weights of equal
            length. None is 0 to 2 in 21 steps.

    Raises:
        SettingsError: `taus` are empty, negative or do not rise.
    """

    def __init__(self, bias: bool = False, taus: Sequence[float] | None = None) -> None:
        if taus is not None:
            check_each("taus", taus, check_at_least, 0)
        self.bias = bias
        self.taus = list(GRID if taus is None else taus)
        if not self.taus or self.taus != sorted(set(self.taus)):
            raise SettingsError(f"taus are {self.taus}; they must be one or more rising numbers")

    def build(self, network: Network) -> nn.Module:
        """See `NewHead.build`.

        Raises:
            SettingsError: The network's head is not linear.
        """
        if not isinstance(network.head, nn.Linear):
            raise SettingsError(
                f"TauNorm changes the length of class weights, and the network's head is a "
                f"{type(network.head).__name__}; it must be linear (cosine_scale null)"
            )
        return network.head

    def begin(self, head: nn.Module, trained: Mapping[str, Tensor]) -> None:
        """See `NewHead.begin`."""
        load_weights(head, trained, "of the checkpoint's head")

    def images(self, data: LabeledUnlabeledDataModule) -> ImageRows:
        """See `ComputedHead.images`.

        Raises:
            SettingsError: There are no validation images.
        """
        if data.val is None:
            raise SettingsError(
                "TauNorm chooses tau on validation images, and there are none: give val_holdout (or validate_on_test, "
                "and say so where you report it)"
            )
        return data.val

    @torch.no_grad()
    def compute(self, head: nn.Module, features: Tensor, targets: Tensor) -> str:
        """See `ComputedHead.compute`."""
        weight, bias = head.get_parameter("weight"), head.get_parameter("bias")
        if not self.bias:
            bias.zero_()
        scores = torch.stack(
            [
                balanced_accuracy(functional.linear(features, tau_normalized(weight, tau), bias), targets)
                for tau in self.taus
            ]
        ).tolist()
        best = scores.index(max(scores))  # the first of several
        weight.copy_(tau_normalized(weight, self.taus[best]))
        return (
            f"tau {self.taus[best]:g} of {len(self.taus)} in [{self.taus[0]:g}, {self.taus[-1]:g}]: balanced accuracy "
            f"{scores[best]:.4f} on {len(targets)} validation images; {scores[0]:.4f} with tau {self.taus[0]:g} "
            f"({'with the trained' if self.bias else 'without'} bias)"
        )


def tau_normalized(weight: Tensor, tau: float) -> Tensor:
    """Divide rows of `weight [K, D]` by `length^tau` (arXiv 1910.09217, section 4); a row of zeros stays."""
    length = weight.norm(dim=1, keepdim=True)
    scaled: Tensor = weight / length.where(length > 0, 1).pow(tau)
    return scaled


def balanced_accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the mean recall `[]` over the classes in `targets [N]`, from `logits [N, K]`."""
    support = torch.bincount(targets, minlength=logits.shape[1])
    correct = torch.bincount(targets[logits.argmax(dim=1) == targets], minlength=logits.shape[1])
    return recalls(correct, support)[support > 0].double().mean()
