"""What holds for the batches of every size, number of processes and step."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from tailmatch.datamodules.batches import (
    EvaluationBatches,
    LabeledBatches,
    PoolBatches,
    TrainingBatches,
    UnlabeledBatches,
    sampling_weights,
)

pytestmark = pytest.mark.filterwarnings("ignore:a batch of .* has more images than")

sizes, batch_sizes, worlds, seeds = st.integers(1, 60), st.integers(1, 70), st.integers(1, 5), st.integers(0, 2**40)
steps = st.integers(0, 200)
targets = st.lists(st.integers(1, 40), min_size=1, max_size=8).map(
    lambda counts: torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
)


def stream(kind: type[TrainingBatches], size: int, batch: int, seed: int, world: int, **options: Any) -> Any:
    """Make the batches of each process, as a function of the step at which an epoch of four steps begins."""

    def begun(start: int) -> list[list[list[int]]]:
        place = {"seed": seed, "world_size": world, "step": lambda: start, **options}
        return [list(kind(size, batch, 4, rank=rank, **place)) for rank in range(world)]

    return begun


@st.composite
def streams(draw: Callable[[Any], Any]) -> tuple[Any, int, int, int]:
    """Draw a stream of any kind, and its size, batch size and number of processes."""
    size, batch, world, seed = draw(sizes), draw(batch_sizes), draw(worlds), draw(seeds)
    kind = draw(st.sampled_from([LabeledBatches, UnlabeledBatches, PoolBatches, None]))
    if kind is None:  # labeled images drawn with replacement
        weights = torch.rand(size, dtype=torch.float64) + 0.1
        return stream(LabeledBatches, size, batch, seed, world, weights=weights), size, batch, world
    if kind is not LabeledBatches:
        assume(size >= world)
    return stream(kind, size, batch, seed, world), size, batch, world


@given(streams(), steps, st.integers(0, 3))
def test_an_epoch_begun_anywhere_goes_on_as_the_whole_and_all_processes_get_as_much(
    drawn: Any, start: int, resumed: int
) -> None:
    begun, size, batch, world = drawn
    whole = [first + second for first, second in zip(begun(start), begun(start + 4), strict=True)]
    assert [epochs[resumed : resumed + 4] for epochs in whole] == begun(start + resumed)
    for process in whole:
        assert [len(images) for images in process] == [batch] * 8
        assert all(0 <= image < size for images in process for image in images)


@given(sizes, batch_sizes, worlds, seeds, steps)
def test_labeled_processes_draw_together_what_one_draws(
    size: int, batch: int, world: int, seed: int, step: int
) -> None:
    many = stream(LabeledBatches, size, batch, seed, world)(step)
    together = [image for images in zip(*many, strict=True) for part in images for image in part]
    one = LabeledBatches(size, batch * world, 4, seed=seed, rank=0, world_size=1, step=lambda: step)
    assert together == [image for images in one for image in images]


@given(sizes, batch_sizes, seeds, st.integers(0, 500))
def test_each_pass_has_every_labeled_image_once(size: int, batch: int, seed: int, passes: int) -> None:
    made = LabeledBatches(size, batch, 1, seed=seed, rank=0, world_size=1, step=lambda: 0)
    first, last = passes * size, (passes + 1) * size - 1
    drawn = torch.cat([made.batch(step) for step in range(first // batch, last // batch + 1)])
    begin = first - first // batch * batch
    assert sorted(drawn[begin : begin + size].tolist()) == list(range(size))


@given(st.sampled_from([UnlabeledBatches, PoolBatches]), sizes, batch_sizes, worlds, seeds)
def test_a_process_goes_through_its_own_unlabeled_images_alone(
    kind: type[UnlabeledBatches], size: int, batch: int, world: int, seed: int
) -> None:
    assume(size >= world)
    seen: list[int] = []
    for rank in range(world):
        own = list(range(rank, size, world))
        made = kind(size, batch, 1, seed=seed, rank=rank, world_size=world, step=lambda: 0)
        drawn = torch.cat([made.batch(step) for step in range(-(-len(own) // batch))])
        assert sorted(drawn[: len(own)].tolist()) == own
        seen += own
    assert sorted(seen) == list(range(size))


@given(st.integers(1, 300), st.integers(1, 320), worlds)
def test_an_evaluation_has_every_image_once_and_equally_many_batches(size: int, batch: int, world: int) -> None:
    assume(size >= world)
    parts = [list(EvaluationBatches(size, batch, rank=rank, world_size=world)) for rank in range(world)]
    assert sorted(image for part in parts for images in part for image in images) == list(range(size))
    assert len({len(part) for part in parts}) == 1
    lengths = [len(images) for part in parts for images in part]
    # Where the last process has an image less and a batch would be empty, another has two.
    assert 1 <= min(lengths) and max(lengths) <= max(batch, 2 if size % world else 1)
    assert max(map(len, parts[0])) - min(map(len, parts[0])) <= 1


@given(targets)
def test_balanced_sampling_gives_every_class_the_same_share(targets: torch.Tensor) -> None:
    weights = sampling_weights(targets, "balanced")
    assert weights is not None
    shares = torch.zeros(int(targets.max()) + 1, dtype=torch.float64).index_add_(0, targets, weights / weights.sum())
    torch.testing.assert_close(shares, torch.full_like(shares, 1 / len(shares)))


@given(targets)
def test_the_effective_number_lies_between_no_weights_and_balance(targets: torch.Tensor) -> None:
    weights = sampling_weights(targets, "effective_number")
    assert weights is not None
    counts = torch.bincount(targets).double()
    share = weights[targets.diff(prepend=torch.tensor([-1])) > 0]  # of one image of each class
    order = counts.argsort(stable=True)
    assert (share[order].diff() <= 0).all() and (share <= 1).all()  # more of an image of a rarer class
    assert ((share * counts)[order].diff() >= -1e-9).all()  # but not more of the whole class
