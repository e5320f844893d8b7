"""The paired t-test against scipy, and wins counted by hand."""

import math

import pytest
from scipy import stats

from tailmatch.command_line.comparison.paired import p_value, paired, two_sided


def test_student_s_distribution_is_that_of_scipy() -> None:
    for freedom in (*range(1, 12), 30, 99):
        for t in (0.0, 0.1, 1.0, 2.5, 7.0, 40.0):
            assert two_sided(-t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), abs=1e-14)


def test_the_test_is_that_of_scipy() -> None:
    first, second = [0.70, 0.71, 0.69, 0.75], [0.68, 0.70, 0.70, 0.71]
    found = paired(dict(zip("abcd", first, strict=True)), dict(zip("abcd", second, strict=True)))
    assert found is not None and found.p == pytest.approx(stats.ttest_rel(first, second).pvalue, abs=1e-12)


def test_shared_seeds_alone_count() -> None:
    found = paired({"0": 0.7, "1": 0.6, "2": 0.5, "4": 9}, {"2": 0.5, "1": 0.7, "0": 0.6, "3": 9})
    assert found is not None and (found.n, found.wins, found.ties) == (3, 1, 1)
    assert found.mean == pytest.approx(0) and found.p == pytest.approx(1)
    lower = paired({"0": 1.0}, {"0": 2.0}, smaller=True)
    assert lower is not None and (lower.n, lower.wins, lower.p) == (1, 1, None)
    assert paired({"0": 1.0}, {"1": 2.0}) is None and paired({"0": math.nan}, {"0": 2.0}) is None


def test_equal_differences_have_no_test() -> None:
    assert p_value([0.1, 0.1, 0.1]) is None and p_value([0.0, 0.0]) is None and p_value([1.0]) is None
