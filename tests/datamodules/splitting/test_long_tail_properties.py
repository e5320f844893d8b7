"""What holds for every long tail: sums, order, ratios."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tailmatch.datamodules.splitting.long_tail import (
    DARPCounts,
    LabeledFraction,
    SemiSelfCounts,
    darp_counts,
    scale_counts,
    semi_self_counts,
    semi_self_unlabeled_counts,
    step_counts,
)

largest = st.integers(1, 10_000)
classes = st.integers(2, 120)
gamma = st.floats(1, 1e4)
rho = st.floats(1e-4, 1)
pools = st.lists(st.integers(0, 5_000), min_size=2, max_size=20)


def falls(counts: list[int]) -> bool:
    return counts == sorted(counts, reverse=True) and min(counts) >= 0


@given(largest, gamma, classes)
def test_darps_tail_falls_from_the_largest_class_by_equal_ratios(largest: int, gamma: float, classes: int) -> None:
    counts = darp_counts(largest, gamma, classes)
    assert len(counts) == classes and falls(counts)
    assert counts[0] == largest and counts[-1] == int(largest / gamma)
    exact = [largest * gamma ** (-k / (classes - 1)) for k in range(classes)]
    assert all(-1e-6 * largest < value - count < 1 + 1e-6 * largest for value, count in zip(exact, counts, strict=True))


@given(largest, rho, classes)
def test_the_tails_of_semi_self_fall_to_their_ratio(largest: int, rho: float, classes: int) -> None:
    for profile in (semi_self_counts, step_counts):
        counts = profile(largest, rho, classes)
        assert len(counts) == classes and falls(counts)
        assert counts[0] == largest and counts[-1] == int(largest * rho)
    assert set(step_counts(largest, rho, classes)) == {largest, int(largest * rho)}


@given(st.integers(100, 5_000), rho, rho, st.integers(2, 100), st.integers(1, 10))
def test_the_unlabeled_pool_of_semi_self_has_the_promised_size(
    largest: int, labeled_rho: float, unlabeled_rho: float, classes: int, factor: int
) -> None:
    labeled = semi_self_counts(largest, labeled_rho, classes)
    unlabeled = semi_self_unlabeled_counts(labeled, unlabeled_rho, factor)
    assert falls(unlabeled)
    assert factor * sum(labeled) - classes < sum(unlabeled) <= factor * sum(labeled)
    rule = SemiSelfCounts(largest, labeled_rho, unlabeled_factor=factor, unlabeled_rho=unlabeled_rho)
    assert rule.counts([largest] * classes) == (labeled, unlabeled)


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=50).filter(any), st.integers(0, 100_000))
def test_a_scaled_profile_keeps_its_order_and_misses_less_than_an_image_a_class(counts: list[int], total: int) -> None:
    scaled = scale_counts(counts, total)
    assert total - len(counts) < sum(scaled) <= total
    pairs = sorted(zip(counts, scaled, strict=True))
    assert [new for _, new in pairs] == sorted(scaled)


@given(largest, gamma, st.integers(1, 10_000), gamma, classes, st.booleans())
def test_the_unlabeled_tail_of_darp_may_be_turned_round_or_scaled_to_a_total(
    largest: int, gamma: float, unlabeled: int, unlabeled_gamma: float, classes: int, reverse: bool
) -> None:
    available = [20_000] * classes

    def counts(**options: Any) -> list[int]:
        rule = DARPCounts(largest, gamma, unlabeled, unlabeled_gamma, **options)
        labeled, counted = rule.counts(available)
        assert labeled == darp_counts(largest, gamma, classes) and counted is not None
        return counted

    plain = counts()
    assert plain == darp_counts(unlabeled, unlabeled_gamma, classes)
    assert counts(unlabeled_reverse=True) == counts(unlabeled_profile="reversed") == plain[::-1]
    for profile in ("middle", "head-tail"):
        assert sorted(counts(unlabeled_profile=profile), reverse=True) == plain
    total = counts(unlabeled_max_is_total=True, unlabeled_reverse=reverse)
    assert unlabeled - classes < sum(total) <= unlabeled
    assert falls(total[::-1] if reverse else total)


@given(pools, st.floats(1e-4, 1))
def test_a_fraction_labels_at_least_an_image_and_at_most_all(available: list[int], fraction: float) -> None:
    labeled, unlabeled = LabeledFraction(fraction).counts(available)
    assert unlabeled is None
    for count, there in zip(labeled, available, strict=True):
        assert min(1, there) <= count <= there
        assert count in (0, 1) or abs(count - fraction * there) <= 0.5
