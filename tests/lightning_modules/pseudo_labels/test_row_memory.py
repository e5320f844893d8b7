"""The rows of numbers of a set's images that `RowMemory` keeps."""

import pytest
import torch

from tailmatch.lightning_modules.pseudo_labels.row_memory import RowMemory


def test_the_last_chosen_row_of_an_image_counts() -> None:
    memory = RowMemory(2, 1.0)
    memory.adapt(3)
    rows = torch.arange(8.0).view(4, 2)
    memory.write(torch.tensor([1, 1, 1, 0]), rows, torch.tensor([True, True, False, False]))
    assert memory.rows.tolist() == [[1, 1], [2, 3], [1, 1], [1, 1]]
    memory.write(torch.tensor([2]), rows[3:])
    assert memory.rows[2].tolist() == [6, 7]


def test_an_evaluation_takes_the_rows_of_a_checkpoint_and_a_fit_on_another_set_refuses_them() -> None:
    memory = RowMemory(2)
    memory.adapt(3)
    memory.write(torch.tensor([1]), torch.ones(1, 2))
    loaded, other = RowMemory(2), RowMemory(2)
    other.adapt(4)
    for made in (loaded, other):
        made.make_room({"features.rows": memory.rows}, "features.")
        made.load_state_dict(memory.state_dict())
    assert torch.equal(loaded.rows, memory.rows)
    with pytest.raises(ValueError, match="numbers of 3 images, and there are 4: resume"):
        other.write(torch.tensor([1]), torch.ones(1, 2))
    loaded.adapt(4)  # a new fit begins anew
    assert loaded.rows.tolist() == [[0, 0]] * 5
