"""Class counts of long-tailed subsets, by the published formulas.

Two bodies of work draw their long-tailed subsets by different rules, and a comparison is only fair
within one of them:

* DARP (Kim et al., NeurIPS 2020, arXiv 2007.08844; `make_imb_data` in bbuing9/DARP `common.py`) gives
  the largest class and the ratio gamma of the largest to the smallest, for labeled and unlabeled images
  each.
* imbalanced-semi-self (Yang & Xu, NeurIPS 2020, arXiv 2006.07529; YyzHarry/imbalanced-semi-self
  `dataset/imbalance_cifar.py`) gives the ratio rho of the smallest class to the largest, and an
  unlabeled pool of 5 times the labeled total.

The functions return the counts; the `ClassCounts` objects are what a data module takes.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

from tailmatch.datamodules.arguments import SettingsError


def darp_counts(largest: int, gamma: float, num_classes: int, reverse: bool = False) -> list[int]:
    """Exponential profile of DARP: `int(largest * mu**k)`, `mu = gamma**(-1/(K-1))`, last `int(largest/gamma)`.

    Args:
        largest: Images of the largest class (N1 or M1).
        gamma: Largest class over smallest, >= 1; 1 is uniform.
        num_classes: K >= 2.
        reverse: Give the counts in reversed class order (the rarest class becomes the largest).

    Example:
        >>> darp_counts(1500, 100, 10)
        [1500, 899, 539, 323, 193, 116, 69, 41, 25, 15]
    """
    _check_profile("largest", largest, num_classes)
    if gamma < 1:
        raise SettingsError(f"gamma is {gamma}; it is the largest class over the smallest, so at least 1")
    # The authors take the power of the per-class factor, not of the whole ratio: the rounding differs.
    factor = (1 / gamma) ** (1 / (num_classes - 1))
    counts = [int(largest * factor**k) for k in range(num_classes - 1)] + [int(largest / gamma)]
    return counts[::-1] if reverse else counts


def semi_self_counts(largest: int, rho: float, num_classes: int) -> list[int]:
    """Exponential profile of imbalanced-semi-self (and LDAM): `int(largest * rho**(k/(K-1)))`.

    Args:
        largest: Images of the largest class.
        rho: Smallest class over largest, in (0, 1].
        num_classes: K >= 2.

    Example:
        >>> semi_self_counts(5000, 0.01, 10)
        [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    """
    _check_profile("largest", largest, num_classes)
    _check_rho("rho", rho)
    return [int(largest * rho ** (k / (num_classes - 1.0))) for k in range(num_classes)]


def step_counts(largest: int, rho: float, num_classes: int) -> list[int]:
    """Step profile of imbalanced-semi-self: the first half `largest`, the second `int(largest * rho)`.

    An odd class in the middle counts with the second half (the authors' loop drops it).
    """
    _check_profile("largest", largest, num_classes)
    _check_rho("rho", rho)
    head = num_classes // 2
    return [int(largest)] * head + [int(largest * rho)] * (num_classes - head)


def semi_self_unlabeled_counts(labeled: Sequence[int], rho: float, factor: int = 5) -> list[int]:
    """Unlabeled pool of imbalanced-semi-self: `factor` times the labeled total, spread by `rho`.

    The authors first spread the total's K-th part exponentially, then scale all classes up to the total
    and truncate, so the sum falls short by at most K - 1 images.
    """
    num_classes = len(labeled)
    total = sum(labeled) * factor
    spread = semi_self_counts(total // num_classes, rho, num_classes)
    scale = total / sum(spread)
    return [int(count * scale) for count in spread]


def scale_counts(counts: Sequence[int], total: int) -> list[int]:
    """The same profile with `total` images, rounded down: at most K - 1 fewer.

    Example:
        >>> scale_counts([3000] * 10, 3000)
        [300, 300, 300, 300, 300, 300, 300, 300, 300, 300]
    """
    return [count * total // sum(counts) for count in counts]


def _check_profile(name: str, largest: int, num_classes: int) -> None:
    if largest < 1:
        raise SettingsError(f"{name} is {largest}; the largest class needs at least 1 image")
    if num_classes < 2:
        raise SettingsError(f"num_classes is {num_classes}; a profile needs at least 2 classes")


def _check_rho(name: str, rho: float) -> None:
    if not 0 < rho <= 1:
        raise SettingsError(f"{name} is {rho}; it is the smallest class over the largest, in (0, 1]")


class ClassCounts(ABC):
    """How many images of each class become labeled and unlabeled."""

    @abstractmethod
    def counts(self, available: Sequence[int]) -> tuple[list[int], list[int] | None]:
        """Labeled and unlabeled images per class.

        Args:
            available: Images per class that labeled ones may be drawn from (K numbers); the unlabeled ones too, unless
                the data set has a separate pool for them.

        Returns:
            Two lists of K counts, labeled and unlabeled; None for the unlabeled ones is all that there are. A class
            may ask for more than is available; drawing then raises an error that names the class.
        """


class DARPCounts(ClassCounts):
    """DARP's long tail: labeled and unlabeled each with its own largest class and ratio.

    The defaults are the paper's CIFAR-10 setting with gamma_l = gamma_u = 100.

    Args:
        labeled_max: N1, labeled images of the first class.
        labeled_gamma: Imbalance ratio of the labeled set.
        unlabeled_max: M1, unlabeled images of the largest class (the authors: 2 N1 on CIFAR-10); 0 for none but
            those without a class (STL-10).
        unlabeled_gamma: Imbalance ratio of the unlabeled set; 1 is uniform.
        unlabeled_reverse: Reverse the unlabeled set's class order ("100 (reversed)" in the paper).
        unlabeled_max_is_total: Take `unlabeled_max` as the number of unlabeled images of all classes together, spread
            by `unlabeled_gamma`: with ratio 1 and M1 = 3000, each of 10 classes has 300 images instead of 3,000
            (docs/data.md).

    Raises:
        SettingsError: No unlabeled images are to be drawn, but reversed ones or a total of them.
    """

    def __init__(
        self,
        labeled_max: int = 1500,
        labeled_gamma: float = 100.0,
        unlabeled_max: int = 3000,
        unlabeled_gamma: float = 100.0,
        *,
        unlabeled_reverse: bool = False,
        unlabeled_max_is_total: bool = False,
    ) -> None:
        if unlabeled_max == 0 and (unlabeled_reverse or unlabeled_max_is_total):
            raise SettingsError(
                f"unlabeled_max is 0, so unlabeled_reverse ({unlabeled_reverse}) and unlabeled_max_is_total "
                f"({unlabeled_max_is_total}) would do nothing: leave them out, or ask for unlabeled images"
            )
        self.labeled_max = labeled_max
        self.labeled_gamma = labeled_gamma
        self.unlabeled_max = unlabeled_max
        self.unlabeled_gamma = unlabeled_gamma
        self.unlabeled_reverse = unlabeled_reverse
        self.unlabeled_max_is_total = unlabeled_max_is_total

    def counts(self, available: Sequence[int]) -> tuple[list[int], list[int]]:
        """See `ClassCounts.counts`."""
        num_classes = len(available)
        labeled = darp_counts(self.labeled_max, self.labeled_gamma, num_classes)
        if self.unlabeled_max == 0:
            return labeled, [0] * num_classes
        unlabeled = darp_counts(self.unlabeled_max, self.unlabeled_gamma, num_classes, reverse=self.unlabeled_reverse)
        return labeled, scale_counts(unlabeled, self.unlabeled_max) if self.unlabeled_max_is_total else unlabeled


class SemiSelfCounts(ClassCounts):
    """The long tail of imbalanced-semi-self.

    The authors take their unlabeled images from another source (80 Million Tiny Images, SVHN `extra`). So does
    `tailmatch.datamodules.SVHN`; with other data sets they are drawn from what the labeled images leave of their class.

    Args:
        labeled_max: Images of the first class; None takes all of the smallest available class' size.
        labeled_rho: Smallest labeled class over the largest.
        profile: `exponential` or `step`.
        unlabeled_factor: Unlabeled total over labeled total (5 in the paper); 0 for none.
        unlabeled_rho: Smallest unlabeled class over the largest.
    """

    def __init__(
        self,
        labeled_max: int | None = None,
        labeled_rho: float = 0.01,
        profile: Literal["exponential", "step"] = "exponential",
        unlabeled_factor: int = 5,
        unlabeled_rho: float = 0.01,
    ) -> None:
        self.labeled_max = labeled_max
        self.labeled_rho = labeled_rho
        self.profile = semi_self_counts if profile == "exponential" else step_counts
        self.unlabeled_factor = unlabeled_factor
        self.unlabeled_rho = unlabeled_rho

    def counts(self, available: Sequence[int]) -> tuple[list[int], list[int]]:
        """See `ClassCounts.counts`."""
        largest = min(available) if self.labeled_max is None else self.labeled_max
        labeled = self.profile(largest, self.labeled_rho, len(available))
        if self.unlabeled_factor == 0:
            return labeled, [0] * len(available)
        return labeled, semi_self_unlabeled_counts(labeled, self.unlabeled_rho, self.unlabeled_factor)


class ListedCounts(ClassCounts):
    """Counts given one by one.

    Args:
        labeled: K labeled counts.
        unlabeled: K unlabeled counts; None takes all that are left.
    """

    def __init__(self, labeled: list[int], unlabeled: list[int] | None = None) -> None:
        self.labeled = labeled
        self.unlabeled = unlabeled

    def counts(self, available: Sequence[int]) -> tuple[list[int], list[int] | None]:
        """See `ClassCounts.counts`."""
        for name, values in (("labeled", self.labeled), ("unlabeled", self.unlabeled)):
            if values is not None and (len(values) != len(available) or min(values) < 0):
                raise SettingsError(
                    f"{name} is {list(values)}; it needs one count >= 0 for each of {len(available)} classes"
                )
        return self.labeled, self.unlabeled


class LabeledFraction(ClassCounts):
    """A fraction of every class labeled (at least one image), the rest unlabeled: the data keeps its own tail.

    Args:
        fraction: In (0, 1]; 1 uses all images as labeled.
    """

    def __init__(self, fraction: float = 0.1) -> None:
        if not 0 < fraction <= 1:
            raise SettingsError(f"fraction is {fraction}; it is the labeled share of every class, in (0, 1]")
        self.fraction = fraction

    def counts(self, available: Sequence[int]) -> tuple[list[int], None]:
        """See `ClassCounts.counts`."""
        return [min(count, max(1, round(count * self.fraction))) for count in available], None
