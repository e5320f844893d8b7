"""The labels of an unlabeled set that `LabelMemory` keeps."""

import pytest
import torch

from tailmatch.lightning_modules.weightings.label_memory import LabelMemory, PredictionMemory


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


def test_an_evaluation_takes_the_labels_of_a_checkpoint_and_a_fit_on_another_set_refuses_them() -> None:
    memory = LabelMemory()
    memory.adapt(3)
    memory.write(torch.tensor([1]), torch.tensor([2]), torch.tensor([True]))
    loaded = LabelMemory()
    loaded.load_state_dict(memory.state_dict())
    assert loaded.labels.tolist() == [-1, 2, -1, -1]
    other = LabelMemory()
    other.adapt(4)
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
    loaded.load_state_dict(memory.state_dict())
    assert torch.equal(loaded.confidence, memory.confidence)
