"""The DARP solver against numbers worked by hand and a float64 reference."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from threadpoolctl import threadpool_limits
from torch import Tensor

from benchmarks import darp_reference
from tailmatch.callbacks.remedies.darp.dual import Problem
from tailmatch.callbacks.remedies.darp.noise import column_thresholds, find_cuts, kept_rows
from tailmatch.callbacks.remedies.darp.rows import Totals, to_logs
from tailmatch.callbacks.remedies.darp.solver import ALPHA, Solution, Solver
from tailmatch.lightning_modules.training.distributed import sum_over_processes
from tests.pretended_gpu import GPU, PretendedGPU
from tests.process_group import on_two_processes

SOLVER = Solver()
KINDS = {"one-hot": 60.0, "sharp": 12.0, "mixed": None, "soft": 1.0, "uniform": 1e-3}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threadpool_limits(1):  # NumPy's threads would only wait for each other
        yield


def remove_noise(probs: Tensor, totals: Totals, alpha: float) -> Tensor:
    return kept_rows(probs, find_cuts(probs, totals, alpha))


def random_problem(seed: int, rows: int = 200) -> tuple[Tensor, Tensor]:
    """Predictions and totals; the seed sets classes, imbalance, confidence, zero columns and zero priors."""
    generator = torch.Generator().manual_seed(seed)
    classes = (2, 3, 5, 10, 20, 50, 100, 200)[seed % 8]
    kind, imbalance = list(KINDS)[seed // 8 % 5], (1, 10, 100, 1000)[seed // 3 % 4]
    sharpness = KINDS[kind] or torch.exp(2 * torch.randn(rows, 1, generator=generator))
    bias = (0.7 if seed % 2 else 2.0) * torch.randn(classes, generator=generator)
    probs = torch.softmax((torch.randn(rows, classes, generator=generator) + bias) * sharpness, dim=1)
    target = torch.logspace(0, -math.log10(imbalance), classes, dtype=torch.float64)
    target = target[torch.randperm(classes, generator=generator)]
    if seed % 5 == 1:
        probs[:, seed % classes] = 0
        probs /= probs.sum(1, keepdim=True).clamp(min=1e-30)
    if seed % 7 == 1:
        target[seed % classes] = 0
    return probs, target * (rows / target.sum())


def realistic_problem(rows: int, classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.logspace(0, -2, classes, dtype=torch.float64)
    target *= rows / target.sum()
    logits = torch.randn(rows, classes, generator=generator)
    truth = torch.multinomial(target, rows, replacement=True, generator=generator)
    logits[torch.arange(rows), truth] += 3
    sharpness = torch.exp(0.6 * torch.randn(rows, 1, generator=generator)) * 1.5
    return torch.softmax(logits * sharpness - 0.5 * (target / rows).log().float(), dim=1), target


def assert_meets_totals(result: Solution, target: Tensor) -> None:
    rows = result.rows.double()
    assert result.rows.dtype == torch.float32
    assert (rows.sum(1) - 1).abs().max() <= 1e-5
    assert ((rows.sum(0) - target).abs() <= 1e-4 * target.clamp(min=1) + 1e-6 * len(rows)).all()
    assert result.converged and result.residual <= 1e-5
    assert rows.min() >= 0


@pytest.mark.parametrize("first", range(0, 200, 25))
def test_random_problems_match_the_converged_reference(first: int) -> None:
    for seed in range(first, first + 25):
        probs, target = random_problem(seed)
        result = SOLVER.solve(probs, target)
        assert_meets_totals(result, target)
        kept = darp_reference.remove_noise(probs.double().numpy(), target.numpy(), ALPHA)
        expected, gap = darp_reference.converge(kept, target.numpy())
        assert gap <= 1e-5, f"the reference has not converged on problem {seed}"
        torch.testing.assert_close(result.rows.double(), torch.from_numpy(expected), rtol=0, atol=1e-3)


def test_large_problem_matches_the_reference() -> None:
    probs, target = realistic_problem(6000, 30)
    result = SOLVER.solve(probs, target)
    assert_meets_totals(result, target)
    kept = darp_reference.remove_noise(probs.double().numpy(), target.numpy(), ALPHA)
    expected, gap = darp_reference.converge(kept, target.numpy())
    assert gap <= 1e-5
    torch.testing.assert_close(result.rows.double(), torch.from_numpy(expected), rtol=0, atol=1e-3)


def test_projection_worked_by_hand() -> None:
    # Rows (a, 1 - a) and (1 - a, a) have one entropy H, so that with w = exp(-(nu_0 - nu_1) H) column 0 is
    # a w / (a w + 1 - a) + (1 - a) w / ((1 - a) w + a). For a = 4/5 and w = 2: 8/9 + 1/3 = 11/9.
    probs = torch.tensor([[0.8, 0.2], [0.2, 0.8]])
    result = SOLVER.project(probs, torch.tensor([11 / 9, 7 / 9]))
    torch.testing.assert_close(result.rows, torch.tensor([[8 / 9, 1 / 9], [1 / 3, 2 / 3]]), rtol=0, atol=1e-4)
    entropy = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    expected = torch.tensor([0.0, math.log(2) / entropy], dtype=torch.float64)
    torch.testing.assert_close(result.nu, expected, rtol=0, atol=1e-3)
    assert torch.equal(probs, torch.tensor([[0.8, 0.2], [0.2, 0.8]])), "the input must stay"


def test_matching_totals_change_nothing() -> None:
    probs, _ = random_problem(26)
    result = SOLVER.project(probs, probs.double().sum(0))
    torch.testing.assert_close(result.rows, probs, rtol=0, atol=1e-6)
    assert result.iterations == 1 and result.nu.max() == 0


def test_noise_removal_worked_by_hand() -> None:
    # alpha = 1: int(2.6) = 2 of column 0 stay, 0.9 and 0.6, and int(1.4) = 1 of column 1, 0.8. The last row keeps
    # nothing, its two 1e-6 make it uniform.
    probs = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.45, 0.55]])
    result = remove_noise(probs, Totals.of(probs, torch.tensor([2.6, 1.4])), 1.0)
    torch.testing.assert_close(result[:, 0], torch.tensor([1.0, 1.0, 0.0, 0.5]), rtol=0, atol=1e-5)
    # The other entry of the first row is the floor over its scaled prediction, 0.9 * 2.6 / 1.5 = 1.56.
    assert result[0, 1].item() == pytest.approx(1e-6 / 1.56, rel=1e-4)
    # alpha = 2 and no last row: int(2.4) = 2 of column 0, times 1.2 / 1.5, and all of column 1, times 1.8 / 1.3.
    result = remove_noise(probs[:3], Totals.of(probs[:3], torch.tensor([1.2, 1.8])), 2.0)
    first, second = 0.72 / (0.72 + 0.18 / 1.3), 0.48 / (0.48 + 0.72 / 1.3)
    torch.testing.assert_close(result[:, 0], torch.tensor([first, second, 0.0]), rtol=0, atol=1e-5)


def test_tied_predictions_are_kept_in_proportion() -> None:
    # int(2 * 1) = 2 of column 0 stay: 0.6, and half of each of the two 0.4; their sum is 1, the scale too.
    probs = torch.tensor([[0.6, 0.4], [0.4, 0.6], [0.4, 0.6]])
    result = remove_noise(probs, Totals.of(probs, torch.tensor([1.0, 2.0])), 2.0)
    column = 2 / 1.6  # the scale of column 1, of which all stay
    expected = [0.6 / (0.6 + 0.4 * column), 0.2 / (0.2 + 0.6 * column), 0.2 / (0.2 + 0.6 * column)]
    torch.testing.assert_close(result[:, 0], torch.tensor(expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize("ties", [False, True])
def test_noise_removal_matches_a_sort(ties: bool) -> None:
    probs, target = realistic_problem(20_000, 12)  # more rows than the sample of the thresholds
    if ties:
        probs = (probs * 16).round() / 16
        probs[:6000] = 1 / 12
    result = remove_noise(probs, Totals.of(probs, target), ALPHA)
    expected = darp_reference.remove_noise(probs.double().numpy(), target.numpy(), ALPHA)
    torch.testing.assert_close(result.double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-7)


def test_thresholds_are_exact() -> None:
    probs, _ = realistic_problem(20_000, 5)
    kept = torch.tensor([0.0, 1.0, 777.0, 19_999.0, 20_000.0], dtype=torch.float64)
    threshold, share, excess = column_thresholds(probs, kept, 20_000, sum_over_processes)
    ordered = probs.sort(0, descending=True).values
    assert threshold[1:4].tolist() == [ordered[int(kept[k]) - 1, k].item() for k in (1, 2, 3)]
    assert (probs >= threshold.float()).sum(0).tolist() == (kept + excess).tolist()
    assert share[0] == 0 and (share[1:] > 0).all() and (share <= 1).all()


def test_entropies_keep_their_digits() -> None:
    small = torch.tensor([1e-9, 1e-6, 1e-3, 0.3], dtype=torch.float64)
    probs = torch.stack([1 - small - small / 2, small, small / 2], dim=1)
    expected = -(probs * probs.log()).sum(1)
    logs = probs.float()
    torch.testing.assert_close(to_logs(logs).double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(logs.double(), probs.float().double().log(), rtol=1e-6, atol=1e-9)
    extremes = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    torch.testing.assert_close(to_logs(extremes), torch.tensor([math.log(2), 0.0]), rtol=0, atol=1e-6)
    half = -math.log(2)
    torch.testing.assert_close(extremes, torch.tensor([[half, half, -math.inf], [0.0, -math.inf, -math.inf]]))


def test_row_order_does_not_matter() -> None:
    probs, target = realistic_problem(5000, 10)
    order = torch.randperm(len(probs), generator=torch.Generator().manual_seed(1))
    result, permuted = SOLVER.solve(probs, target), SOLVER.solve(probs[order], target)
    torch.testing.assert_close(permuted.rows, result.rows[order], rtol=0, atol=1e-4)


def test_warm_start_takes_fewer_iterations_to_the_same_rows() -> None:
    probs, target = realistic_problem(5000, 10)
    cold = SOLVER.solve(probs, target)
    changed = torch.softmax(probs.clamp(min=1e-9).log() * 1.01, dim=1)
    expected = SOLVER.solve(changed, target)
    warm = SOLVER.solve(changed, target, warm_start=cold.nu)
    torch.testing.assert_close(warm.rows, expected.rows, rtol=0, atol=1e-4)
    assert warm.iterations < expected.iterations
    assert SOLVER.solve(probs, target, warm_start=cold.nu).iterations == 1


def test_class_without_prior_is_emptied() -> None:
    probs, target = random_problem(18)
    target[3] = 0
    target *= len(probs) / target.sum()
    result = SOLVER.solve(probs, target)
    assert_meets_totals(result, target)
    assert result.rows[:, 3].max() < 1e-12


def test_totals_out_of_reach_end_with_a_residual() -> None:
    one_hot = torch.eye(3)[torch.zeros(100, dtype=torch.long)]  # none may move
    result = SOLVER.project(one_hot, torch.tensor([10.0, 45.0, 45.0]))
    assert not result.converged and result.residual == pytest.approx(90 / 10)
    torch.testing.assert_close(result.rows, one_hot)

    mixed = torch.cat([one_hot, torch.full((50, 3), 1 / 3)])  # the uniform rows may, but are too few
    result = SOLVER.project(mixed, torch.tensor([30.0, 60.0, 60.0]))
    assert not result.converged and result.residual == pytest.approx(70 / 30, abs=1e-3)
    torch.testing.assert_close(result.rows.sum(1), torch.ones(150), rtol=0, atol=1e-5)
    assert result.rows.isfinite().all() and result.nu.isfinite().all()
    assert result.rows[100:, 0].max() < 1e-3

    empty = torch.tensor([[0.7, 0.3, 0.0], [0.4, 0.6, 0.0]])  # nobody to fill the last column with
    result = SOLVER.project(empty, torch.tensor([0.5, 0.5, 1.0]))
    assert not result.converged and result.rows.isfinite().all()
    torch.testing.assert_close(result.rows.sum(1), torch.ones(2), rtol=0, atol=1e-5)


def test_the_tolerance_is_a_share_of_each_class_total() -> None:
    probs, target = realistic_problem(2000, 10)
    result = Solver(tolerance=0.05).project(probs, target)
    off = (result.rows.double().sum(0) - target).abs() / target.clamp(min=1)
    assert result.converged and 1e-3 < off.max() <= 0.05
    one_hot = torch.eye(2)[(torch.arange(1000) >= 995).long()]  # none may move: class 1 has 5 rows of 10
    result = Solver(tolerance=0.05).project(one_hot, torch.tensor([990.0, 10.0]))
    assert not result.converged and result.residual == pytest.approx(5 / 10)


def test_one_hot_rows_on_the_wrong_class_end_finite() -> None:
    one_hot = torch.eye(4)[torch.arange(400) % 2]
    for target in ([0.0, 0.0, 200.0, 200.0], [0.4, 0.4, 399.0, 0.2], [1.0, 133.0, 133.0, 133.0]):
        result = SOLVER.solve(one_hot, torch.tensor(target))
        torch.testing.assert_close(result.rows.sum(1), torch.ones(400), rtol=0, atol=1e-5)
        assert result.rows.isfinite().all() and math.isfinite(result.residual)


@pytest.mark.parametrize(
    ("probs", "target", "message"),
    [
        (torch.full((4, 2), 0.5), torch.tensor([5.0, -1.0]), "no negative entry"),
        (torch.full((4, 2), 0.5), torch.tensor([2.0, 1.0]), "sum to the number of rows, 4"),
        (torch.full((4, 2), 0.5), torch.tensor([1.0, 1.0, 2.0]), r"shape \(2,\)"),
        (torch.full((4, 2), 0.5, dtype=torch.float64), torch.tensor([2.0, 2.0]), "float32"),
        (torch.full((0, 2), 0.5), torch.tensor([0.0, 0.0]), "number of rows, 0"),
    ],
)
def test_misfits_are_named(probs: Tensor, target: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SOLVER.solve(probs, target)


def refine_rows_of_rank(rank: int, folder: Path, cases: list[tuple[Tensor, Tensor]]) -> None:
    largest = 0

    def reduce(value: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, value.numel())
        value = value.clone()
        dist.all_reduce(value)
        return value

    results = []
    for probs, target in cases:
        largest = 0
        result = Solver(reduce=reduce).solve(probs[rank::2].clone(), target)
        assert largest <= 30 * len(target), "only K-vectors may travel, at most 30 at once"
        results.append((result.rows, result.nu, result.converged))
    torch.save(results, folder / f"{rank}.pt")


@pytest.mark.xdist_group("processes")
def test_two_processes_equal_one(tmp_path: Path) -> None:
    sorted_by_class = realistic_problem(5001, 10)  # an odd number of rows, more than the sample
    order = sorted_by_class[0].argmax(1).argsort()
    cases = [random_problem(seed, 301) for seed in (2, 3, 13, 20, 21, 26, 37, 44)]
    cases += [(sorted_by_class[0][order], sorted_by_class[1])]
    on_two_processes(refine_rows_of_rank, tmp_path, cases)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for (probs, target), (even, nu, converged), (odd, other_nu, _) in zip(cases, *parts, strict=True):
        rows = torch.empty_like(probs)
        rows[0::2], rows[1::2] = even, odd
        alone = SOLVER.solve(probs, target)
        assert converged and torch.equal(nu, other_nu)
        torch.testing.assert_close(rows, alone.rows, rtol=0, atol=5e-4)


@pytest.mark.parametrize(("rows", "seed"), [(200, 1), (200, 5), (6000, 3)])  # of few rows, and of a sample of them
def test_a_gpu_gives_the_same_and_the_host_waits_once_for_an_evaluation(
    rows: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluations, evaluate = 0, Problem.at

    def counted(*args: Any) -> Any:
        nonlocal evaluations
        evaluations += 1
        return evaluate(*args)

    probs, target = random_problem(seed, rows)
    alone = SOLVER.solve(probs, target)
    monkeypatch.setattr(Problem, "at", counted)
    with PretendedGPU() as gpu:
        probs, target = probs.to(GPU), target.to(GPU)
        gpu.waits.clear()
        result = SOLVER.solve(probs, target)
        waits = [wait.callers for wait in gpu.waits]
        assert result.rows.device == result.nu.device == GPU
        assert torch.equal(result.rows.cpu(), alone.rows)
    assert evaluations >= 8 and evaluations == sum("at" in callers for callers in waits)
    assert len(waits) <= evaluations + 12  # one block of rows


def test_nearly_uniform_rows_and_a_prior_of_1_to_1000_take_long_and_arrive() -> None:
    probs, target = random_problem(35, rows=6000)
    result = SOLVER.solve(probs, target)
    assert result.converged and result.iterations > 50
    torch.testing.assert_close(result.rows.double().sum(0), target, rtol=0, atol=1e-4 * 6000)


def test_a_rank_may_have_no_rows() -> None:
    probs, target = random_problem(26)
    alone = SOLVER.solve(probs, target)
    calls: list[Tensor] = []

    def record(value: Tensor) -> Tensor:
        calls.append(value)
        return value

    Solver(reduce=record).solve(probs, target)
    replies = iter(calls)
    idle = Solver(reduce=lambda value: value + next(replies)).solve(probs[:0], target)
    assert idle.rows.shape == (0, probs.shape[1])
    torch.testing.assert_close(idle.nu, alone.nu)


def test_cold_start_from_a_part_of_the_rows_ends_at_the_same_prices() -> None:
    """From 512 rows a class on, a cold start solves for one row in eight first."""
    generator = torch.Generator().manual_seed(0)
    probs = torch.softmax(3 * torch.randn(6000, 10, generator=generator), dim=1)
    target = torch.logspace(0, -2, 10, dtype=torch.float64)
    target *= 6000 / target.sum()
    from_part = SOLVER.project(probs, target)
    from_zero = SOLVER.project(probs, target, warm_start=torch.zeros(10, dtype=torch.float64))
    assert from_part.converged and from_zero.converged
    assert from_part.iterations < from_zero.iterations
    assert torch.allclose(from_part.rows, from_zero.rows, atol=1e-4)
