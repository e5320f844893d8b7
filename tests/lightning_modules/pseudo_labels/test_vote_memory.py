"""Votes by hand: who wins, with which target, and what a window leaves."""

import pytest
import torch
from torch import Tensor

from tailmatch.lightning_modules.pseudo_labels.vote_memory import VoteMemory, agreeing


def voted(*votes: list[int], visits: int = 201, share: float = 0.06, least: int = 2) -> VoteMemory:
    """A memory after a window in which image i voted for each class of `votes[i]`, once a step."""
    memory = VoteMemory(share, 0.8, least)
    memory.adapt(len(votes))
    index = torch.arange(len(votes))
    for step in range(visits):
        rows = [(row[step], True) if step < len(row) else (0, False) for row in votes]
        memory.vote(index, torch.tensor([row[0] for row in rows]), torch.tensor([row[1] for row in rows]))
    memory.close()
    return memory


def test_who_wins_a_vote_of_201_visits() -> None:
    memory = voted([2] * 13, [2] * 12, [1] * 16 + [0] * 4, [0] * 3 + [1] * 17, [])
    assert memory.labels.tolist() == [2, -1, -1, 1, -1, -1]
    assert memory.counts(3).tolist() == [3, 0, 1, 1]
    targets = memory.targets(torch.tensor([3, 0, 3]), 3)
    torch.testing.assert_close(targets, torch.tensor([[0.15, 0.85, 0.0], [0.0, 0.0, 1.0], [0.15, 0.85, 0.0]]))


def test_few_visits_need_few_votes_and_one_is_not_enough() -> None:
    memory = voted([1, 1], [1], [1, 0], visits=2)
    assert memory.labels.tolist() == [1, -1, -1, -1]
    assert voted([1], visits=1, least=1).labels.tolist() == [1, -1]


def test_a_window_forgets_the_votes_of_the_last_one_and_its_winners() -> None:
    memory = voted([1, 1], [2, 2], visits=2)
    memory.vote(torch.tensor([1, 1]), torch.tensor([0, 0]), torch.tensor([True, True]))  # one visit
    assert memory.visits.tolist() == [0, 1, 0] and memory.votes[1].tolist() == [1, 0, 0, 0, 0]
    assert memory.labels.tolist() == [1, 2, -1]  # until the window ends
    memory.vote(torch.tensor([1]), torch.tensor([0]), torch.tensor([True]))
    memory.close()
    assert memory.labels.tolist() == [-1, 0, -1] and memory.targets(torch.tensor([1]), 3).tolist() == [[1, 0, 0]]
    memory.close()
    assert (memory.labels == -1).all() and not memory.won_votes.any()


def test_votes_for_a_fifth_class_are_counted_without_a_name() -> None:
    memory = voted([4, 3, 2, 1, 0] + [0] * 40, [0] * 40 + [4, 3, 2, 1], visits=60)
    assert memory.labels.tolist() == [-1, 0, -1]
    assert memory.targets(torch.tensor([1]), 5)[0].tolist() == pytest.approx([40 / 43, 0, 1 / 43, 1 / 43, 1 / 43])


def test_a_vote_is_the_same_class_in_both_views_with_confidence() -> None:
    weak = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.86, 0.14]])
    strong = torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.855, 0.145]])
    assert agreeing(weak, strong, 0.855).tolist() == [True, False, False, True]


def test_any_counts_equal_those_of_a_table_of_all_votes() -> None:
    random = torch.Generator().manual_seed(2)
    memory, table = VoteMemory(0.0, 0.6, 1), torch.zeros(7, 4)

    def drawn(high: int) -> Tensor:
        return torch.randint(high, (5,), generator=random)

    memory.adapt(7)
    for _ in range(30):
        index, labels, chosen = torch.randperm(7, generator=random)[:5], drawn(4), drawn(2).bool()
        memory.vote(index, labels, chosen)
        table[index[chosen], labels[chosen]] += 1
    most, label = table.max(dim=1)
    memory.close()
    assert memory.labels[:-1].tolist() == torch.where(most > 0.6 * table.sum(dim=1), label, -1).tolist()
    torch.testing.assert_close(memory.targets(torch.arange(7), 4), table / table.sum(dim=1, keepdim=True))
