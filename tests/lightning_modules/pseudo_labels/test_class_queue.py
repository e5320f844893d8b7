"""The queue of class features beside a list for each class."""

import torch

from tailmatch.lightning_modules.pseudo_labels.class_queue import ClassQueue


def test_each_class_keeps_its_newest_features() -> None:
    queue, kept = ClassQueue(4, 5, 3), [list[torch.Tensor]() for _ in range(4)]
    assert torch.equal(queue.prototypes, torch.zeros(4, 3))
    random = torch.Generator().manual_seed(0)
    for _ in range(9):
        features = torch.randn(12, 3, generator=random)
        target = torch.multinomial(torch.tensor([0.8, 0.1, 0.1, 0.0]), 12, replacement=True, generator=random)
        queue.update(features, target)
        for row, label in zip(features, target.tolist(), strict=True):
            kept[label] = [*kept[label], row][-5:]
        expected = torch.stack([torch.stack(rows).mean(dim=0) if rows else torch.zeros(3) for rows in kept])
        torch.testing.assert_close(queue.prototypes, expected)
    for place, rows in enumerate(kept):  # the same features, in the order of a ring
        assert {tuple(row.tolist()) for row in rows} == {
            tuple(row.tolist()) for row in queue.features[place][: len(rows)]
        }
    assert len(kept[0]) == 5 and 0 < len(kept[1]) and not kept[3]
    assert queue.counts.sum() == 9 * 12


def test_more_images_of_a_class_than_the_queue_holds_leave_the_last() -> None:
    queue = ClassQueue(2, 2, 1)
    queue.update(torch.tensor([[1.0], [2.0], [5.0], [3.0], [4.0]]), torch.tensor([0, 0, 1, 0, 0]))
    assert queue.prototypes.tolist() == [[3.5], [5.0]]
