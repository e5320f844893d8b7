import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tailmatch.lightning_modules.inference.drift import (
    chi_square_tail,
    drift_of,
    largest_changes,
    likelihood_ratio,
    merged,
    williams,
)

COUNTS = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=2, max_size=12)


def arrays(*counts: list[int]) -> list[np.ndarray]:
    return [np.array(entry, np.int64) for entry in counts]


def test_numbers_worked_by_hand() -> None:
    window, reference = arrays([10, 30], [30, 10])  # 20 of each are expected in both
    assert likelihood_ratio(window, reference) == pytest.approx(2 * 2 * (10 * math.log(0.5) + 30 * math.log(1.5)))
    assert williams(window, reference) == pytest.approx(1 + 3 * 3 / 480)
    drift = drift_of([10, 30], [30, 10])
    assert (drift.images, drift.distance, drift.degrees) == (40, 0.5, 1)
    assert drift.g == pytest.approx(20.9299 / 1.01875, abs=1e-4)
    assert drift.p == pytest.approx(math.erfc(math.sqrt(drift.g / 2)))  # chi-square of one degree


@given(COUNTS)
def test_g_is_that_of_scipy_for_a_table_of_two_rows(pairs: list[tuple[int, int]]) -> None:
    kept = [(c + 1, r + 1) for c, r in pairs]
    window, reference = arrays(*(list(side) for side in zip(*kept, strict=True)))
    found = stats.chi2_contingency(np.stack([window, reference]), correction=False, lambda_="log-likelihood")
    assert likelihood_ratio(window, reference) == pytest.approx(found.statistic, abs=1e-9)
    assert chi_square_tail(found.statistic, len(kept) - 1) == pytest.approx(found.pvalue, rel=1e-9, abs=1e-300)


def test_a_huge_reference_gives_2_n_kl() -> None:
    window, reference = arrays([70, 20, 10], [600_000_000, 300_000_000, 100_000_000])
    kl = 0.7 * math.log(0.7 / 0.6) + 0.2 * math.log(0.2 / 0.3)
    assert likelihood_ratio(window, reference) == pytest.approx(2 * 100 * kl, rel=1e-4)


def test_rare_classes_are_merged_from_the_rarest_on() -> None:
    window, reference = arrays([100, 3, 1, 40, 0, 0], [100, 2, 4, 52, 4, 0])
    # of equal sizes, so that a group needs 10 in both: 0 + 4 + 5 + 5 do, then 92
    few, many = merged(window, reference)
    assert few.tolist() == [4, 40, 100] and many.tolist() == [10, 52, 100]
    few, many = merged(*arrays([50, 40, 1], [50, 40, 1]))  # what is left of the rarest joins the next
    assert few.tolist() == [41, 50]


@given(COUNTS)
def test_merging_keeps_the_sums_and_leaves_no_rare_class(pairs: list[tuple[int, int]]) -> None:
    window, reference = arrays(*(list(side) for side in zip(*pairs, strict=True)))
    if not window.sum() or not reference.sum():
        assert math.isnan(drift_of(window, reference).p)
        return
    few, many = merged(window, reference)
    assert few.sum() == window.sum() and many.sum() == reference.sum()
    if len(few) > 1:
        smaller = min(few.sum(), many.sum()) / (few.sum() + many.sum())
        assert ((few + many) * smaller >= 5 - 1e-9).all()


@given(COUNTS, st.randoms())
def test_the_order_of_classes_and_of_samples_changes_nothing(pairs: list[tuple[int, int]], random: object) -> None:
    window, reference = (list(side) for side in zip(*pairs, strict=True))
    if not sum(window) or not sum(reference):
        return
    there, back = drift_of(window, reference), drift_of(reference, window)
    assert (there.g, there.degrees, there.distance) == pytest.approx((back.g, back.degrees, back.distance))
    assert 0 <= there.distance <= 1 and there.g >= 0


def test_too_small_a_window_has_no_p_and_is_no_alarm() -> None:
    for window in ([0, 0], [3, 0]):
        drift = drift_of(window, [60, 40])
        assert math.isnan(drift.p) and drift.degrees == 0 and not drift.is_alarm(0.5)
    assert drift_of([3, 0], [60, 40]).distance == pytest.approx(0.4)


def test_an_alarm_needs_both_a_small_p_and_a_distance() -> None:
    drift = drift_of([5100, 4900], [4800, 5200])
    assert drift.p < 0.001 and drift.is_alarm(0.001) and drift.is_alarm(0.001, 0.03)
    assert not drift.is_alarm(0.001, 0.05) and not drift.is_alarm(drift.p)


@pytest.mark.parametrize(("classes", "size", "window"), [(10, 1000, 300), (10, 300, 300), (50, 1000, 200)])
def test_false_alarms_without_drift_are_as_many_as_p_says(classes: int, size: int, window: int) -> None:
    random = np.random.default_rng(0)
    shares = 100.0 ** -np.linspace(0, 1, classes)
    shares /= shares.sum()
    drawn = zip(random.multinomial(window, shares, 2000), random.multinomial(size, shares, 2000), strict=True)
    p = np.array([drift_of(*both).p for both in drawn])
    for level in (0.1, 0.01):
        assert abs((p < level).mean() - level) < 4 * math.sqrt(level / 2000)


def test_a_reversed_tail_is_seen_in_a_small_window() -> None:
    random = np.random.default_rng(0)
    shares = 100.0 ** -np.linspace(0, 1, 10)
    shares /= shares.sum()
    reference = random.multinomial(1000, shares)
    assert all(drift_of(random.multinomial(50, shares[::-1]), reference).p < 1e-6 for _ in range(200))


def test_the_largest_changes_come_first_and_unchanged_classes_are_left_out() -> None:
    assert largest_changes([6, 30, 14], [10, 20, 20], 2) == [(1, 0.4, 0.6), (2, 0.4, 0.28)]
    assert largest_changes([1, 2, 1], [2, 4, 2]) == []
