"""Batches are pure functions of (seed, step, rank)."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tailmatch.datamodules.batches import (
    LABELED_STREAM,
    EvaluationBatches,
    LabeledBatches,
    PoolBatches,
    UnlabeledBatches,
    generator,
    mix_seed,
    sampling_weights,
)


def labeled(start: int = 0, rank: int = 0, world_size: int = 1, **kwargs: object) -> LabeledBatches:
    arguments = {"seed": 7, "rank": rank, "world_size": world_size, "step": lambda: start, **kwargs}
    return LabeledBatches(10, 4, 6, **arguments)  # type: ignore[arg-type]


def unlabeled(start: int = 0, rank: int = 0, world_size: int = 1) -> UnlabeledBatches:
    return UnlabeledBatches(23, 4, 6, seed=7, rank=rank, world_size=world_size, step=lambda: start)


@pytest.mark.parametrize("make", [labeled, unlabeled, lambda start: labeled(start, weights=torch.ones(10))])
def test_a_pass_begun_at_step_t_goes_on_where_another_was(make: object) -> None:
    whole = list(make(0)) + list(make(6))  # type: ignore[operator]
    assert list(make(4)) == whole[4:10]  # type: ignore[operator]


def test_the_step_is_read_when_the_pass_begins_not_when_the_first_batch_is_taken() -> None:
    steps = [3]
    batches = LabeledBatches(10, 4, 6, seed=7, rank=0, world_size=1, step=lambda: steps[0])
    iterator = iter(batches)
    steps[0] = 100
    assert next(iterator) == batches.batch(3).tolist()


def test_every_image_comes_once_before_any_comes_again() -> None:
    drawn = torch.cat([labeled().batch(step) for step in range(5)])
    assert sorted(drawn[:10].tolist()) == sorted(drawn[10:].tolist()) == list(range(10))
    assert drawn[:10].tolist() != drawn[10:].tolist()


def test_labeled_processes_share_one_permutation() -> None:
    both = [labeled(rank=rank, world_size=2).batch(step) for step in range(5) for rank in range(2)]
    assert torch.equal(torch.cat(both), torch.cat([labeled().batch(step) for step in range(10)]))


@pytest.mark.parametrize("weights", [None, torch.arange(1.0, 11)])
def test_the_labeled_images_of_a_step_do_not_hinge_on_the_number_of_processes(weights: torch.Tensor | None) -> None:
    for step in range(7):
        for size in (1, 2, 4):
            place = {"seed": 7, "world_size": size, "step": lambda: 0, "weights": weights}
            parts = [LabeledBatches(10, 4 // size, 6, rank=rank, **place).batch(step) for rank in range(size)]  # type: ignore[arg-type]
            assert torch.equal(torch.cat(parts), labeled(weights=weights).batch(step))


def test_unlabeled_processes_own_fixed_images() -> None:
    for rank in range(2):
        drawn = torch.cat([unlabeled(rank=rank, world_size=2).batch(step) for step in range(6)])
        assert set(drawn.tolist()) == set(range(rank, 23, 2))


def test_fewer_unlabeled_images_than_a_batch_come_several_times() -> None:
    with pytest.warns(UserWarning, match=r"a batch of 7 .* the 3 unlabeled images .* each of them 2 times"):
        few = UnlabeledBatches(7, 7, 6, seed=0, rank=1, world_size=2, step=lambda: 0)
    drawn = torch.cat([few.batch(step) for step in range(6)])
    for start in range(0, 42, 3):
        assert sorted(drawn[start : start + 3].tolist()) == [1, 3, 5]


def test_no_unlabeled_images_name_what_would_give_some() -> None:
    place = {"seed": 0, "rank": 1, "world_size": 2, "step": lambda: 0}
    with pytest.raises(ValueError, match=r"no unlabeled images.* unlabeled/ .*class_counts.fraction.*Supervised"):
        UnlabeledBatches(0, 4, 6, **place)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 unlabeled images for 2 processes: use at most 1"):
        UnlabeledBatches(1, 4, 6, **place)  # type: ignore[arg-type]


def test_pool_processes_own_fixed_images_in_an_order_of_their_own() -> None:
    place = {"seed": 7, "rank": 1, "world_size": 2, "step": lambda: 0}
    pool = PoolBatches(24, 4, 6, **place)  # type: ignore[arg-type]
    drawn = torch.cat([pool.batch(step) for step in range(3)]).tolist()
    assert sorted(drawn) == list(range(1, 24, 2))
    other = UnlabeledBatches(24, 4, 6, **place)  # type: ignore[arg-type]
    assert drawn != torch.cat([other.batch(step) for step in range(3)]).tolist()
    with pytest.warns(UserWarning, match=r"a batch of 4 \(labeled_batch_size\) .* the 3 labeled and unlabeled images"):
        PoolBatches(7, 4, 6, **place)  # type: ignore[arg-type]


def test_balanced_sampling_makes_classes_equally_likely() -> None:
    targets = torch.tensor([0] * 90 + [1] * 9 + [2])
    weights = sampling_weights(targets, "balanced")
    place: dict[str, Any] = {"seed": 0, "rank": 0, "world_size": 1, "step": lambda: 0}
    drawn = LabeledBatches(100, 30_000, 1, weights, **place).batch(0)
    shares = torch.bincount(targets[drawn]) / 30_000
    assert shares.tolist() == pytest.approx([1 / 3] * 3, abs=0.015)


@pytest.mark.parametrize("size", [2, 3, 1000])
def test_weighted_draws_are_those_of_multinomial(size: int) -> None:
    weights = torch.rand(size, dtype=torch.float64, generator=generator(1)) ** 3
    drawn = [
        LabeledBatches(size, 6, 1, weights, seed=4, rank=rank, world_size=2, step=lambda: 0).batch(3)
        for rank in range(2)
    ]
    random = generator(4, LABELED_STREAM, 3, 0)
    assert torch.equal(torch.cat(drawn), torch.multinomial(weights, 12, replacement=True, generator=random))


def test_as_many_weighted_images_as_multinomial_refuses_are_drawn() -> None:
    size = 2**24 + 10
    with pytest.raises(RuntimeError):
        torch.multinomial(torch.ones(size), 2, replacement=True)
    place: dict[str, Any] = {"seed": 0, "rank": 0, "world_size": 1, "step": lambda: 0}
    drawn = LabeledBatches(size, 1000, 1, torch.ones(size), **place).batch(0)
    assert 0 <= drawn.min() < size / 100 and size * 0.99 < drawn.max() < size


def test_effective_number_weights_by_hand() -> None:
    # Cui et al.: (1 - 0.9999) / (1 - 0.9999**n), for n = 1 and 2: 1 and 1 / 1.9999.
    weights = sampling_weights(torch.tensor([0, 1, 1]), "effective_number")
    assert weights is not None
    assert weights.tolist() == pytest.approx([1, 1 / 1.9999, 1 / 1.9999], rel=1e-9)
    assert sampling_weights(torch.tensor([0, 1]), "uniform") is None


@given(data=st.data())
def test_evaluation_takes_every_image_once_in_equally_many_batches(data: st.DataObject) -> None:
    world_size = data.draw(st.integers(1, 9))
    size, batch_size = data.draw(st.integers(world_size, 60)), data.draw(st.integers(1, 20))
    parts = [list(EvaluationBatches(size, batch_size, rank=r, world_size=world_size)) for r in range(world_size)]
    assert sorted(i for part in parts for batch in part for i in batch) == list(range(size))
    assert len({len(part) for part in parts}) == 1
    sizes = [len(batch) for part in parts for batch in part]
    assert max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1
    empty = [(batch_size, place + 1 == len(part)) for part in parts for place, batch in enumerate(part) if not batch]
    assert set(empty) <= {(1, True)}  # only the last batch, of a batch size of 1


def test_evaluation_needs_an_image_a_process() -> None:
    with pytest.raises(ValueError, match="1 evaluation images for 2 processes"):
        EvaluationBatches(1, 4, rank=0, world_size=2)


def test_seeds_of_neighbors_differ() -> None:
    assert len({mix_seed(seed, step, rank) for seed in range(5) for step in range(20) for rank in range(2)}) == 200
