"""Wrong labels, drawn on purpose, to measure how well a method bears them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError, check_share

NAMED = 5
"""How many classes an error names; it counts the others."""


class LabelNoise(ABC):
    """A rule that gives each image a wrong class with probability `share`, independently of the other images.

    The published experiments draw their wrong labels by one of two conventions. Patrini et al. 2017 (arXiv 1609.03987;
    giorgiop/loss-correction `noise.py`, `multiclass_noisify`) and Zhang and Sabuncu 2018 (arXiv 1805.07836, section 4)
    draw each label on its own, from a row of a transition matrix with `1 - share` on its diagonal. Tanaka et al. 2018
    and ELR (shengliu66/ELR `data_loader/cifar10.py`) draw a class for exactly `share` of the images; for symmetric
    noise they draw it from all K classes, so that a part `share / K` of the images silently keeps its right label. This
    class follows the first convention: `share` is the probability of a wrong label, and the same images have the same
    labels in a larger labeled set.

    Args:
        share: The probability of a wrong class, in [0, 1]. 0 changes nothing.

    Raises:
        SettingsError: `share` is out of its domain.
    """

    def __init__(self, share: float) -> None:
        check_share("label_noise: share", share)
        self.share = share

    def __call__(self, targets: Tensor, class_names: Sequence[str], random: torch.Generator) -> Tensor:
        """Draw the classes after the noise.

        Args:
            targets: `int64 [N]`, the class of each image; -1, unknown, stays -1.
            class_names: The names of the K classes.
            random: A CPU generator; the number of draws is the same for every share.

        Returns:
            `int64 [N]`.
        """
        changed = (torch.rand(len(targets), generator=random) < self.share) & (targets >= 0)
        return torch.where(changed, self.mistakes(targets, class_names, random), targets)

    @abstractmethod
    def check(self, class_names: Sequence[str]) -> None:
        """Refuse classes that the noise cannot be applied to.

        Raises:
            SettingsError: There is no other class to mistake them for, or the rule names classes that do not exist.
        """

    @abstractmethod
    def mistakes(self, targets: Tensor, class_names: Sequence[str], random: torch.Generator) -> Tensor:
        """Draw the class that each image would be mistaken for, `int64 [N]`; see `__call__` for the arguments."""

    @abstractmethod
    def limit(self, num_classes: int) -> float:
        """Compute the share from which on the true class is not the most frequent label of its images any more."""


class SymmetricNoise(LabelNoise):
    """Symmetric noise: a wrong label is any of the K - 1 other classes with the same probability.

    This is Patrini's `build_uniform_P` and the uniform noise of Zhang & Sabuncu. On a long tail it makes most labels of
    a rare class wrong: with ten classes and a share of 0.2, a class of 1,000 images alone gives 22 wrong labels to a
    class of ten images, which keeps eight right ones.

    Args:
        share: The probability of a wrong class, in [0, 1].
    """

    def check(self, class_names: Sequence[str]) -> None:
        """Refuse a single class."""
        if len(class_names) < 2:
            raise SettingsError(f"label_noise: SymmetricNoise needs another class than {list(class_names)}")

    def mistakes(self, targets: Tensor, class_names: Sequence[str], random: torch.Generator) -> Tensor:
        """See `LabelNoise.mistakes`."""
        classes = len(class_names)
        return (targets + torch.randint(1, classes, targets.shape, generator=random)) % classes

    def limit(self, num_classes: int) -> float:
        """Compute `1 - 1/K`, as in Zhang & Sabuncu's theorem 1."""
        return 1 - 1 / num_classes


class PairNoise(LabelNoise):
    """Asymmetric noise: each class is mistaken for one other class.

    The configuration `noise/cifar10_pairs.yaml` has the pairs of Patrini et al. 2017 for CIFAR-10 (`noise.py`,
    `noisify_cifar10_asymmetric`).

    Args:
        share: The probability that an image of a class in `pairs` gets the wrong class, in [0, 1].
        pairs: The name of each class that is mistaken, and of the class that it is mistaken for; the other classes keep
            their labels. None: each class is mistaken for the next, the last for the first (the "pair flip" of Han et
            al. 2018, arXiv 1804.06872, section 4).
    """

    def __init__(self, share: float, pairs: dict[str, str] | None = None) -> None:
        super().__init__(share)
        self.pairs = pairs

    def check(self, class_names: Sequence[str]) -> None:
        """Refuse unknown names, a class that is mistaken for itself, and empty pairs."""
        if self.pairs is None:
            if len(class_names) < 2:
                raise SettingsError(f"label_noise: PairNoise needs another class than {list(class_names)}")
            return
        _check_pairs(self.pairs, class_names)

    def mistakes(self, targets: Tensor, class_names: Sequence[str], random: torch.Generator) -> Tensor:
        """See `LabelNoise.mistakes`."""
        classes = len(class_names)
        if self.pairs is None:
            return (targets + 1) % classes
        place = {name: k for k, name in enumerate(class_names)}
        other = torch.tensor([place[self.pairs.get(name, name)] for name in class_names])
        return other[targets]  # of -1 the last class, which `__call__` does not take

    def limit(self, num_classes: int) -> float:
        """Give 0.5."""
        return 0.5


def _check_pairs(pairs: Mapping[str, str], class_names: Sequence[str]) -> None:
    if not pairs:
        raise SettingsError("label_noise: pairs is empty, so no label would change: name classes, or leave it null")
    unknown = sorted({*pairs, *pairs.values()} - set(class_names))
    if unknown:
        more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
        known = ", ".join(class_names[:10]) + (", ..." if len(class_names) > 10 else "")
        raise SettingsError(
            f"label_noise: pairs has {', '.join(map(repr, unknown[:NAMED]))}{more}, and there is no such class; the "
            f"classes are {known}"
        )
    same = [name for name, other in pairs.items() if name == other]
    if same:
        raise SettingsError(f"label_noise: pairs has {same[0]!r} mistaken for itself; leave it out")


def noise_warnings(noise: LabelNoise, num_classes: int) -> list[str]:
    """Warn if there is so much noise that no method can undo it.

    Returns:
        The warnings, one sentence each.
    """
    limit = noise.limit(num_classes)
    if noise.share < limit:
        return []
    return [
        f"label_noise changes a share of {noise.share:g}: from {limit:g} on the true class is not the most frequent "
        "label of its images, and nothing can be learned from that but the wrong one"
    ]
