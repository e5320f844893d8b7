"""The labels of an unlabeled set that `LabelMemory` keeps."""

from functools import partial
from pathlib import Path

import pytest
import torch

import tailmatch
from tailmatch.lightning_modules import FixMatch
from tailmatch.lightning_modules.pseudo_labels.label_memory import LabelMemory, PredictionMemory
from tailmatch.lightning_modules.weightings import HeadShareThresholds
from tests.contract import at_epoch_ends, plain_network, run, saved


def test_chosen_labels_replace_older_ones_and_are_counted() -> None:
    memory = LabelMemory()
    memory.adapt(5)
    assert memory.counts(3).tolist() == [5, 0, 0, 0]
    memory.write(torch.tensor([4, 0, 2]), torch.tensor([1, 2, 2]), torch.tensor([True, True, False]))
    memory.write(torch.tensor([4, 2]), torch.tensor([0, 0]), torch.tensor([False, True]))
    assert memory.labels.tolist() == [2, -1, 0, -1, 1, -1] and memory.counts(3).tolist() == [2, 1, 1, 1]


def test_of_an_image_that_is_twice_in_a_step_the_last_chosen_row_counts() -> None:
    memory = LabelMemory()
    memory.adapt(2)
    memory.write(torch.tensor([1, 1, 1, 0]), torch.tensor([0, 2, 1, 1]), torch.tensor([True, True, False, False]))
    assert memory.labels.tolist() == [-1, 2, -1]


def test_running_counts_are_those_of_all_labels() -> None:
    torch.manual_seed(0)
    memory = LabelMemory()
    memory.adapt(12)
    for step in range(20):
        assert torch.equal(memory.running_counts(3), memory.counts(3)), step
        memory.write(torch.randint(12, (8,)), torch.randint(3, (8,)), torch.rand(8) < 0.6)
    before = memory.running_counts(3).clone()
    other = LabelMemory()
    other.adapt(12)
    assert other.running_counts(3).tolist() == [12, 0, 0, 0]
    other.load_state_dict(memory.state_dict())
    assert torch.equal(other.running_counts(3), before)
    other.adapt(3)
    assert other.running_counts(3).tolist() == [3, 0, 0, 0]


def test_an_evaluation_takes_the_labels_of_a_checkpoint_and_a_fit_on_another_set_refuses_them() -> None:
    memory = LabelMemory()
    memory.adapt(3)
    memory.write(torch.tensor([1]), torch.tensor([2]), torch.tensor([True]))
    loaded = LabelMemory()
    loaded.make_room({"memory.labels": memory.labels}, "memory.")
    loaded.load_state_dict(memory.state_dict())
    assert loaded.labels.tolist() == [-1, 2, -1, -1]
    other = LabelMemory()
    other.adapt(4)
    other.make_room({"labels": memory.labels}, "")
    other.load_state_dict(memory.state_dict())
    with pytest.raises(ValueError, match="pseudo-labels of 3 unlabeled images, and there are 4: resume"):
        other.write(torch.tensor([1]), torch.tensor([2]), torch.tensor([True]))
    loaded.adapt(4)  # a new fit begins anew
    assert loaded.labels.tolist() == [-1] * 5


def test_predictions_have_their_confidence() -> None:
    memory = PredictionMemory()
    memory.adapt(3)
    memory.predict(torch.tensor([2, 0, 2]), torch.tensor([[0.6, 0.4], [0.3, 0.7], [0.2, 0.8]]))
    assert memory.labels.tolist() == [1, -1, 1, -1]
    torch.testing.assert_close(memory.confidence, torch.tensor([0.7, 0.0, 0.8, 0.0]))
    loaded = PredictionMemory()
    loaded.make_room(memory.state_dict(), "")
    loaded.load_state_dict(memory.state_dict())
    assert torch.equal(loaded.confidence, memory.confidence)


def test_a_method_is_loaded_with_the_labels_of_its_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(partial(FixMatch, threshold=0.13, weighting=HeadShareThresholds(2, 2)), folder, at_epoch_ends(folder))
    loaded = tailmatch.load(folder / "last.ckpt", network=plain_network)
    state = saved(folder)["state_dict"]
    assert isinstance(loaded, FixMatch) and (state["weighting.memory.labels"][:-1] >= 0).sum() > 20
    for name in ("memory.labels", "memory.confidence", "thresholds"):
        assert torch.equal(loaded.get_buffer(f"weighting.{name}"), state[f"weighting.{name}"])
