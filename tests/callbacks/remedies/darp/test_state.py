"""The rows of DARP in a checkpoint: half of the numbers, and the same bits after it."""

import io
from typing import Any

import pytest
import torch
from torch import Tensor

from tailmatch.callbacks.remedies.darp.solver import Solver
from tailmatch.callbacks.remedies.darp.state import Rows, known
from tests.callbacks.remedies.darp.test_solver import realistic_problem


def refine(rows: Rows, target: Tensor) -> None:
    """Refine as the callback does."""
    predicted = known(rows.predictions)
    everything = bool(predicted.all())
    probs = rows.predictions if everything else rows.predictions[predicted]
    solution = Solver().solve(probs, target * (len(probs) / target.sum()))
    rows.refine(solution.rows, None if everything else predicted, solution.prices)


def saved(rows: Rows) -> Any:
    """The state after a checkpoint on a disk."""
    file = io.BytesIO()
    torch.save(rows.state_dict(len(rows.predictions)), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def loaded(state: Any, count: int, classes: int) -> Rows:
    rows = Rows(count, classes)
    rows.load_state_dict(state, 0, 1)
    return rows


@pytest.mark.parametrize("classes", [3, 10, 100])
@pytest.mark.parametrize("seen", [1.0, 0.7])
def test_refined_rows_have_the_same_bits_after_a_checkpoint(classes: int, seen: float) -> None:
    probs, target = realistic_problem(5003, classes)
    random = torch.Generator().manual_seed(classes)
    order = torch.randperm(len(probs), generator=random)
    rows = Rows(len(probs), classes)
    rows.predict(order[: int(seen * len(probs))], probs[order[: int(seen * len(probs))]])
    refine(rows, target)
    again = order[-200:]  # predicted for the first time, if not all were seen
    rows.predict(again, probs[again.flip(0)])
    state = saved(rows)
    resumed = loaded(state, len(probs), classes)
    before = saved(resumed)  # a checkpoint before the first step
    resumed.to(torch.device("cpu"))
    for other in (resumed, loaded(before, len(probs), classes), loaded(saved(resumed), len(probs), classes)):
        other.to(torch.device("cpu"))
        assert torch.equal(other.solved, rows.solved) and torch.equal(other.predictions, rows.predictions)
        assert torch.equal(other.since, rows.since)
    numbers = sum(
        value.numel() for part in state.values() for value in (part.values() if isinstance(part, dict) else [part])
    )
    assert numbers == (len(probs) + len(again)) * classes + len(again) + 5 * classes


def test_before_the_first_refinement_there_are_predictions_alone() -> None:
    probs, _ = realistic_problem(100, 10)
    rows = Rows(100, 10)
    rows.predict(torch.arange(50), probs[:50])
    state = saved(rows)
    assert state["prices"] is None and len(state["since"]["index"]) == 0
    assert not loaded(state, 100, 10).solved.any()


def test_the_state_of_an_earlier_version_is_read_and_saved_again() -> None:
    probs, target = realistic_problem(1000, 10)
    rows = Rows(1000, 10)
    rows.predict(torch.arange(1000), probs)
    refine(rows, target)
    earlier = loaded({"predictions": probs, "refined": rows.solved}, 1000, 10)
    for other in (earlier, loaded(saved(earlier), 1000, 10)):
        other.to(torch.device("cpu"))
        assert torch.equal(other.solved, rows.solved)


def test_each_process_takes_its_own_images() -> None:
    probs, target = realistic_problem(1001, 10)
    rows = Rows(1001, 10)
    rows.predict(torch.arange(1001), probs)
    refine(rows, target)
    rows.predict(torch.tensor([5, 1000, 2, 4]), probs[:4])
    state = saved(rows)
    for rank in range(3):
        mine = Rows(len(range(rank, 1001, 3)), 10)
        mine.load_state_dict(state, rank, 3)
        mine.to(torch.device("cpu"))
        assert torch.equal(mine.predictions, rows.predictions[rank::3])
        assert (mine.solved - rows.solved[rank::3]).abs().max() <= 1e-6  # its neighbors are others
        assert torch.equal(mine.solved[mine.since], rows.solved[rank::3][rows.since[rank::3]])


def test_of_an_image_that_is_several_times_in_a_batch_the_last_prediction_counts() -> None:
    rows, probs = Rows(5, 2), torch.rand(6, 2)
    rows.predict(torch.tensor([1, 4, 1, 0, 4, 1]), probs)
    assert torch.equal(rows.predictions[[0, 1, 4]], probs[[3, 5, 4]])
    assert rows.since.tolist() == [True, True, False, False, True]
