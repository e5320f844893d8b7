"""Class counts against the published numbers."""

import numpy as np
import pytest

from tailmatch.datamodules.splitting.long_tail import (
    DARPCounts,
    LabeledFraction,
    ListedCounts,
    SemiSelfCounts,
    darp_counts,
    semi_self_counts,
    semi_self_unlabeled_counts,
    step_counts,
)


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [
        # Printed by the authors' `make_imb_data(1500, 10, gamma)`.
        (100, [1500, 899, 539, 323, 193, 116, 69, 41, 25, 15]),
        (1, [1500] * 10),
    ],
)
def test_darp_counts_are_the_published_ones(gamma: int, expected: list[int]) -> None:
    assert darp_counts(1500, gamma, 10) == expected


def test_darp_unlabeled_counts_may_be_uniform_or_reversed() -> None:
    available = [5000] * 10
    assert DARPCounts(unlabeled_gamma=1).counts(available)[1] == [3000] * 10
    reverse = DARPCounts(unlabeled_gamma=100, unlabeled_reverse=True).counts(available)[1]
    assert reverse == darp_counts(3000, 100, 10)[::-1] and reverse[-1] == 3000
    assert DARPCounts(unlabeled_profile="reversed").counts(available)[1] == reverse


def test_unlabeled_profiles_are_those_of_simpro() -> None:
    # LeapLabTHU/SimPro, `make_imb_data(4000, 10, 100, 0, flag_LT)` for flag_LT 3 and 4, worked with numpy.
    falling = np.array(darp_counts(4000, 100, 10))
    middle = falling[list(range(0, 10, 2))[::-1] + list(range(1, 10, 2))].tolist()
    ends = falling[list(range(1, 10, 2)) + list(range(0, 10, 2))[::-1]].tolist()
    assert middle[4] == 4000 and ends[0] > ends[4] and ends[-1] == 4000
    for profile, expected in (("middle", middle), ("head-tail", ends)):
        rule = DARPCounts(500, 100, 4000, 100, unlabeled_profile=profile)  # type: ignore[arg-type]
        assert rule.counts([5000] * 10) == (darp_counts(500, 100, 10), expected)


def test_darp_counts_of_cifar100_are_those_of_the_authors_formula() -> None:
    mu = np.power(1 / 20, 1 / 99)  # `make_imb_data` of bbuing9/DARP common.py, for run.sh's 300 and 0.5 * 300
    expected = [[int(most * np.power(mu, k)) for k in range(99)] + [int(most / 20)] for most in (300, 0.5 * 300)]
    assert DARPCounts(300, 20, 150, 20).counts([450] * 100) == tuple(expected)


def test_darp_m1_may_be_the_total_or_none() -> None:
    available = [5000] * 10
    total = DARPCounts(unlabeled_gamma=1, unlabeled_max_is_total=True)
    assert total.counts(available)[1] == [300] * 10
    tail = DARPCounts(unlabeled_max=100, unlabeled_gamma=4, unlabeled_max_is_total=True).counts([50] * 3)[1]
    assert tail == [57, 28, 14]  # 100, 50, 25 of 175
    assert DARPCounts(450, 20, unlabeled_max=0).counts(available)[1] == [0] * 10


def test_semi_self_counts_are_the_published_ones() -> None:
    labeled = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert semi_self_counts(5000, 0.01, 10) == labeled
    assert SemiSelfCounts().counts([5000] * 10)[0] == labeled


def test_semi_self_unlabeled_pool_is_five_times_the_labeled_total() -> None:
    labeled = semi_self_counts(5000, 0.01, 10)
    for rho in (1.0, 0.02, 0.01):
        counts = semi_self_unlabeled_counts(labeled, rho)
        assert 5 * sum(labeled) - 10 < sum(counts) <= 5 * sum(labeled)
        assert counts[-1] / counts[0] == pytest.approx(rho, rel=0.01)


def test_step_profile_halves_the_classes() -> None:
    assert step_counts(500, 0.1, 4) == [500, 500, 50, 50]
    assert step_counts(500, 0.1, 3) == [500, 50, 50]
    assert SemiSelfCounts(labeled_rho=0.1, profile="step").counts([500] * 4)[0] == [500, 500, 50, 50]


def test_fraction_keeps_at_least_one_labeled() -> None:
    assert LabeledFraction(0.1).counts([100, 9, 3, 0]) == ([10, 1, 1, 0], None)


def test_listed_counts_take_all_there_are_or_the_list() -> None:
    assert ListedCounts([3, 1]).counts([10, 5]) == ([3, 1], None)
    assert ListedCounts([3, 1], [0, 2]).counts([10, 5]) == ([3, 1], [0, 2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: darp_counts(10, 0.5, 3), "gamma is 0.5"),
        (lambda: darp_counts(0, 10, 3), "largest is 0"),
        (lambda: darp_counts(10, 10, 1), "num_classes is 1"),
        (
            lambda: DARPCounts(unlabeled_max=0, unlabeled_reverse=True),
            r"unlabeled_max is 0, so unlabeled_profile \(reversed\)",
        ),
        (lambda: DARPCounts(unlabeled_profile="head"), "unlabeled_profile is 'head'"),  # type: ignore[arg-type]
        (
            lambda: DARPCounts(unlabeled_profile="middle", unlabeled_reverse=True),
            "unlabeled_reverse is true and unlabeled_profile is middle",
        ),
        (lambda: semi_self_counts(10, 100, 3), "rho is 100"),
        (lambda: LabeledFraction(0), "fraction is 0"),
        (lambda: ListedCounts([1]).counts([5, 5]), r"labeled is \[1\]; it needs one count"),
        (lambda: ListedCounts([1, 1], [-1, 2]), r"unlabeled\[0\] is -1; it must be at least 0"),
    ],
)
def test_bad_values_are_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
