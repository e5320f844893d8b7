"""Class counts of long-tailed subsets, by the published formulas.

Two bodies of work draw their long-tailed subsets by different rules, and a comparison is only fair within one of them:

* DARP (Kim et al., NeurIPS 2020, arXiv 2007.08844; `make_imb_data` in bbuing9/DARP `common.py`) gives the size of the
  largest class and the ratio gamma of the largest to the smallest, separately for labeled and unlabeled images.
* imbalanced-semi-self (Yang & Xu, NeurIPS 2020, arXiv 2006.07529; YyzHarry/imbalanced-semi-self
  `dataset/imbalance_cifar.py`) gives the ratio rho of the smallest class to the largest, and an unlabeled pool of 5
  times the labeled total.

The functions return the counts. A data module takes a `ClassCounts` object.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, get_args

from tailmatch.datamodules.arguments import (
    SettingsError,
    check_at_least,
    check_choice,
    check_count,
    check_each,
    check_positive_share,
)
from tailmatch.datamodules.splitting.class_ranks import Profile, arranged

RHO = ": the smallest class over the largest"
GAMMA = ": the largest class over the smallest"
"""The meaning of the two imbalance ratios, for messages."""


def darp_counts(largest: int, gamma: float, num_classes: int) -> list[int]:
    """Compute DARP's exponential profile: `int(largest * mu**k)`, `mu = gamma**(-1/(K-1))`, last `int(largest/gamma)`.

    Args:
        largest: The number of images of the largest class (N1 or M1), at least 1.
        gamma: The ratio of the largest class to the smallest, at least 1; 1 is uniform.
        num_classes: K, at least 2.

    Returns:
        K counts.

    Raises:
        SettingsError: An argument is out of its domain.

    Example:
        >>> darp_counts(1500, 100, 10)
        [1500, 899, 539, 323, 193, 116, 69, 41, 25, 15]
    """
    _check_profile(largest, num_classes)
    check_at_least("gamma", gamma, 1, GAMMA)
    # The authors take the power of the per-class factor, not of the whole ratio: the rounding differs.
    factor = (1 / gamma) ** (1 / (num_classes - 1))
    return [int(largest * factor**k) for k in range(num_classes - 1)] + [int(largest / gamma)]


def semi_self_counts(largest: int, rho: float, num_classes: int) -> list[int]:
    """Compute the exponential profile of imbalanced-semi-self (and LDAM): `int(largest * rho**(k/(K-1)))`.

    Args:
        largest: The number of images of the largest class, at least 1.
        rho: The ratio of the smallest class to the largest, in (0, 1]; 1 is uniform.
        num_classes: K, at least 2.

    Returns:
        K counts.

    Raises:
        SettingsError: An argument is out of its domain.

    Example:
        >>> semi_self_counts(5000, 0.01, 10)
        [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    """
    _check_profile(largest, num_classes, rho)
    return [int(largest * rho ** (k / (num_classes - 1.0))) for k in range(num_classes)]


def step_counts(largest: int, rho: float, num_classes: int) -> list[int]:
    """Compute the step profile of imbalanced-semi-self: first half `largest`, second half `int(largest * rho)`.

    An odd class in the middle belongs to the second half (the authors' loop drops it). The arguments are those of
    `semi_self_counts`.
    """
    _check_profile(largest, num_classes, rho)
    head = num_classes // 2
    return [int(largest)] * head + [int(largest * rho)] * (num_classes - head)


def semi_self_unlabeled_counts(labeled: Sequence[int], rho: float, factor: int = 5) -> list[int]:
    """Compute the unlabeled counts of imbalanced-semi-self: `factor` times the labeled total, spread by `rho`.

    The authors spread a K-th of the total exponentially, then scale all classes up to the total and truncate, so that
    the sum falls short by at most K - 1 images.
    """
    num_classes = len(labeled)
    total = sum(labeled) * factor
    spread = semi_self_counts(total // num_classes, rho, num_classes)
    scale = total / sum(spread)
    return [int(count * scale) for count in spread]


def scale_counts(counts: Sequence[int], total: int) -> list[int]:
    """Scale a profile to `total` images in all; each class is rounded down, so that at most K - 1 images are missing.

    Example:
        >>> scale_counts([3000] * 10, 3000)
        [300, 300, 300, 300, 300, 300, 300, 300, 300, 300]
    """
    return [count * total // sum(counts) for count in counts]


def _check_profile(largest: int, num_classes: int, rho: float = 1.0) -> None:
    check_count("largest", largest, 1, ": the images of the largest class")
    check_count("num_classes", num_classes, 2)
    check_positive_share("rho", rho, RHO)


class ClassCounts(ABC):
    """A rule for how many images of each class become labeled and unlabeled."""

    @abstractmethod
    def counts(self, available: Sequence[int]) -> tuple[list[int], list[int] | None]:
        """Compute the number of labeled and of unlabeled images of each class.

        Args:
            available: The number of images of each of the K classes from which labeled images are drawn, and unlabeled
                ones too, unless the data set has a separate pool for them.

        Returns:
            K labeled counts, and K unlabeled counts or None for all images that are left. A count may exceed what is
            available; `draw_split` then raises an error that names the class.
        """


class DARPCounts(ClassCounts):
    """DARP's long tail: the labeled and the unlabeled set each have a largest class and an imbalance ratio.

    The defaults are the paper's CIFAR-10 setting with gamma 100 for both sets.

    Args:
        labeled_max: N1, the number of labeled images of the first class, at least 1.
        labeled_gamma: The imbalance ratio of the labeled set: the largest class over the smallest, at least 1.
        unlabeled_max: M1, the number of unlabeled images of the largest class (the authors: 2 N1 on CIFAR-10). 0: no
            images but those without a class are unlabeled (STL-10).
        unlabeled_gamma: The imbalance ratio of the unlabeled set, at least 1; 1 is a uniform set.
        unlabeled_profile: Which classes have the most unlabeled images: the same as labeled ones (`consistent`), those
            with the fewest labeled ones (`reversed`, "100 (reversed)" in the paper), or, as in SimPro, those of the
            `middle`, or both ends (`head-tail`). A uniform set has `unlabeled_gamma` 1.
        unlabeled_reverse: The same as `unlabeled_profile: reversed`, for configurations that have it.
        unlabeled_max_is_total: Whether `unlabeled_max` is the number of unlabeled images of all classes together,
            spread by `unlabeled_gamma`: with ratio 1 and M1 = 3000, each of 10 classes has 300 images instead of 3,000
            (docs/data.md).

    Raises:
        SettingsError: An argument is out of its domain, `unlabeled_max` is 0 and another argument asks for a profile of
            unlabeled images or a total of them, or `unlabeled_reverse` comes with another profile.
    """

    def __init__(
        self,
        labeled_max: int = 1500,
        labeled_gamma: float = 100.0,
        unlabeled_max: int = 3000,
        unlabeled_gamma: float = 100.0,
        *,
        unlabeled_profile: Profile = "consistent",
        unlabeled_reverse: bool = False,
        unlabeled_max_is_total: bool = False,
    ) -> None:
        check_count("labeled_max", labeled_max)
        check_at_least("labeled_gamma", labeled_gamma, 1, GAMMA)
        check_count("unlabeled_max", unlabeled_max, 0)
        check_at_least("unlabeled_gamma", unlabeled_gamma, 1, GAMMA)
        check_choice("unlabeled_profile", unlabeled_profile, get_args(Profile))
        if unlabeled_reverse and unlabeled_profile not in ("consistent", "reversed"):
            raise SettingsError(
                f"unlabeled_reverse is true and unlabeled_profile is {unlabeled_profile}: leave one of them out"
            )
        profile: Profile = "reversed" if unlabeled_reverse else unlabeled_profile
        if unlabeled_max == 0 and (profile != "consistent" or unlabeled_max_is_total):
            raise SettingsError(
                f"unlabeled_max is 0, so unlabeled_profile ({profile}) and unlabeled_max_is_total "
                f"({unlabeled_max_is_total}) would do nothing: leave them out, or ask for unlabeled images"
            )
        self.labeled_max = labeled_max
        self.labeled_gamma = labeled_gamma
        self.unlabeled_max = unlabeled_max
        self.unlabeled_gamma = unlabeled_gamma
        self.unlabeled_profile = profile
        self.unlabeled_max_is_total = unlabeled_max_is_total

    def counts(self, available: Sequence[int]) -> tuple[list[int], list[int]]:
        """See `ClassCounts.counts`."""
        num_classes = len(available)
        labeled = darp_counts(self.labeled_max, self.labeled_gamma, num_classes)
        if self.unlabeled_max == 0:
            return labeled, [0] * num_classes
        falling = darp_counts(self.unlabeled_max, self.unlabeled_gamma, num_classes)
        unlabeled = arranged(falling, self.unlabeled_profile, labeled)
        return labeled, scale_counts(unlabeled, self.unlabeled_max) if self.unlabeled_max_is_total else unlabeled


class SemiSelfCounts(ClassCounts):
    """The long tail of imbalanced-semi-self: a labeled profile, and a multiple of its total as unlabeled images.

    The authors take their unlabeled images from another source (80 Million Tiny Images, SVHN `extra`). So does
    `tailmatch.datamodules.SVHN`; with other data sets they are drawn from the images of each class that are not
    labeled.

    Args:
        labeled_max: The number of labeled images of the first class, at least 1. None: as many as the class with the
            fewest images has.
        labeled_rho: The imbalance ratio of the labeled set: the smallest class over the largest, in (0, 1].
        profile: The shape of the labeled set: `exponential`, or `step` with all of the first half of the classes large
            and the rest small.
        unlabeled_factor: The total of unlabeled images over the total of labeled ones (5 in the paper). 0: no images
            but those without a class are unlabeled.
        unlabeled_rho: The imbalance ratio of the unlabeled set, in (0, 1]; 1 is a uniform set.

    Raises:
        SettingsError: An argument is out of its domain.
    """

    def __init__(
        self,
        labeled_max: int | None = None,
        labeled_rho: float = 0.01,
        profile: Literal["exponential", "step"] = "exponential",
        unlabeled_factor: int = 5,
        unlabeled_rho: float = 0.01,
    ) -> None:
        if labeled_max is not None:
            check_count("labeled_max", labeled_max)
        check_positive_share("labeled_rho", labeled_rho, RHO)
        check_choice("profile", profile, ("exponential", "step"))
        check_count("unlabeled_factor", unlabeled_factor, 0)
        check_positive_share("unlabeled_rho", unlabeled_rho, RHO)
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
    """Class counts given one by one, in the order of the classes.

    Args:
        labeled: The number of labeled images of each of the K classes.
        unlabeled: The number of unlabeled images of each class. None: all images that are not labeled.

    Raises:
        SettingsError: A count is no whole number, or negative.
    """

    def __init__(self, labeled: list[int], unlabeled: list[int] | None = None) -> None:
        check_each("labeled", labeled, check_count, 0)
        if unlabeled is not None:
            check_each("unlabeled", unlabeled, check_count, 0)
        self.labeled = labeled
        self.unlabeled = unlabeled

    def counts(self, available: Sequence[int]) -> tuple[list[int], list[int] | None]:
        """See `ClassCounts.counts`."""
        for name, values in (("labeled", self.labeled), ("unlabeled", self.unlabeled)):
            if values is not None and len(values) != len(available):
                raise SettingsError(
                    f"{name} is {list(values)}; it needs one count for each of {len(available)} classes"
                )
        return self.labeled, self.unlabeled


class LabeledFraction(ClassCounts):
    """The same share of every class labeled, at least one image, and the rest unlabeled: the data keeps its own tail.

    Args:
        fraction: The labeled share of each class, in (0, 1]; 1 labels all images.

    Raises:
        SettingsError: `fraction` is out of its domain.
    """

    def __init__(self, fraction: float = 0.1) -> None:
        check_positive_share("fraction", fraction)
        self.fraction = fraction

    def counts(self, available: Sequence[int]) -> tuple[list[int], None]:
        """See `ClassCounts.counts`."""
        return [min(count, max(1, round(count * self.fraction))) for count in available], None
