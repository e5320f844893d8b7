"""The memory of the features of labeled images."""

import torch

from tailmatch.lightning_modules.pseudo_labels.feature_memory import OUT_OF_REACH, FeatureMemory


def test_the_memory_has_the_newest_feature_of_an_image() -> None:
    memory = FeatureMemory(2)
    memory.adapt(4)
    memory.replace(torch.tensor([2, 0, 2]), torch.tensor([[1.0, 0], [0, 1], [3, 4]]), torch.tensor([5, 1, 5]))
    found = memory.similarities(torch.tensor([[1.0, 2.0]]), temperature=0.5)
    assert found.tolist() == [[4, OUT_OF_REACH, 22, OUT_OF_REACH]]
    assert memory.labels.tolist() == [1, -1, 5, -1, -1] and memory.features[-1].tolist() == [0, 0]


def test_room_is_made_for_as_many_features_as_labels() -> None:
    labels = torch.zeros(6, dtype=torch.int32)
    for features, room in ((torch.zeros(6, 2), 6), (torch.zeros(5, 2), 1), (torch.zeros(1, 2).expand(6, 2), 1)):
        memory = FeatureMemory(2)
        memory.make_room({"memory.labels": labels, "memory.features": features}, "memory.")
        assert (len(memory.labels), len(memory.features)) == (room, room)
