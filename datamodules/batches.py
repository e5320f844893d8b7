"""Draw the images of step t as a pure function of (seed, stream, step, rank, world size).

Nothing here keeps state between steps, so that a run that was killed and resumed at step t draws the batches that an
uninterrupted run draws.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from pytorch_lightning import Trainer
from torch import Tensor
from torch.utils.data import Sampler

from tailmatch.datamodules.arguments import SettingsError

LABELED_STREAM, UNLABELED_STREAM, VIEW_STREAM = 1, 2, 3
POOL_STREAM, SHUFFLE_STREAM, BALANCED_STREAM = 4, 5, 6
"""The numbers of random streams, which keep the random numbers of different uses apart; 0 is the split's."""

Sampling = Literal["uniform", "balanced", "effective_number"]

EFFECTIVE_NUMBER_BETA = 0.9999
"""Cui et al. 2019 (arXiv 1901.05555); the value of kaidic/LDAM-DRW and imbalanced-semi-self."""


def global_seed() -> int:
    """Read the seed given to `seed_everything`; it is 0 if that was not called.

    Lightning keeps it in the environment, where processes it launches find it too.
    """
    return int(os.environ.get("PL_GLOBAL_SEED", 0))


def mix_seed(*parts: int) -> int:
    """Mix several numbers into one 63-bit seed (numpy's SeedSequence)."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]) >> 1


def generator(*parts: int) -> torch.Generator:
    """Make a CPU generator seeded from several numbers."""
    return torch.Generator().manual_seed(mix_seed(*parts))


def training_step_index(trainer: Trainer) -> int:
    """Count the training batches that were begun before the present one: the step t, also right after a resume.

    This is internal API of Lightning (`tests/test_contract.py` would fail on another meaning): the loops are restored
    before the loaders are built, and the counter goes up only after the batch was moved to the device.
    """
    return int(trainer.fit_loop.epoch_loop.batch_progress.total.ready)


def sampling_weights(targets: Tensor, sampling: Sampling) -> Tensor | None:
    """Compute the probability weight of each labeled image.

    Args:
        targets: `int64 [N]`, the class of each image.
        sampling: `uniform`: each image once per pass over the data, without replacement. `balanced`: each class is
            equally likely (OverFixMatch's over-sampling). `effective_number`: each of the n images of a class has the
            weight `(1-beta)/(1-beta**n)` (Cui et al. 2019), as in the resampling rule of LDAM-DRW.

    Returns:
        `float64 [N]`, or None for sampling without replacement.
    """
    if sampling == "uniform":
        return None
    counts = torch.bincount(targets).double()
    if sampling == "balanced":
        weights = 1 / counts
    else:
        weights = (1 - EFFECTIVE_NUMBER_BETA) / (1 - EFFECTIVE_NUMBER_BETA**counts)
    return weights[targets]


def cumulative(weights: Tensor) -> Tensor:
    """Sum weights up to each image, as shares of the total, `float64 [N]`, to draw an image by a search.

    The draws are those of `torch.multinomial(weights, ..., replacement=True)`, which sums all weights in each step and
    refuses more than 2^24.
    """
    up_to = weights.double().cumsum(0)
    up_to /= up_to[-1].clone()
    up_to[-1] = 1
    return up_to


class _Permutations:
    """An endless stream of the positions 0 to n - 1, permuted anew each time all have passed."""

    def __init__(self, size: int, *seed: int) -> None:
        self.size = size
        self.seed = seed
        self._drawn: tuple[int, Tensor] = (-1, torch.empty(0))

    def take(self, start: int, count: int) -> Tensor:
        """Compute the entries `start` to `start + count` of the stream, `int64 [count]`."""
        parts = []
        while count:
            cycle, offset = divmod(start, self.size)
            if self._drawn[0] != cycle:
                self._drawn = (cycle, torch.randperm(self.size, generator=generator(*self.seed, cycle)))
            part = self._drawn[1][offset : offset + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return torch.cat(parts)


class TrainingBatches(Sampler[list[int]], ABC):
    """Endless training batches; an iteration gives those of one epoch.

    Args:
        batch_size: The number of images per batch and process.
        steps_per_epoch: The number of batches in one epoch.
        seed: The training seed.
        rank: The number of this process.
        world_size: The number of processes.
        step: A function that gives the step at which an epoch begins; it is called once, at the start.
    """

    def __init__(
        self,
        batch_size: int,
        steps_per_epoch: int,
        *,
        seed: int,
        rank: int,
        world_size: int,
        step: Callable[[], int],
    ) -> None:
        self.batch_size, self.steps_per_epoch = batch_size, steps_per_epoch
        self.seed, self.rank, self.world_size, self.step = seed, rank, world_size, step

    @abstractmethod
    def batch(self, step: int) -> Tensor:
        """Draw this process' batch of a step: positions in the stream's set, `int64 [batch_size]`."""

    def __iter__(self) -> Iterator[list[int]]:
        start = self.step()  # now, since workers fetch ahead
        return (self.batch(step).tolist() for step in range(start, start + self.steps_per_epoch))

    def __len__(self) -> int:
        return self.steps_per_epoch


class LabeledBatches(TrainingBatches):
    """Batches of the labeled stream.

    Without weights, all processes together go through one permutation of the labeled images; with weights, images are
    drawn with replacement. Either way, the images of a step depend on the number of them on all processes together, and
    not on the number of processes.

    Args:
        size: The number of labeled images.
        batch_size: The number of images per batch and process.
        steps_per_epoch: The number of batches in one epoch.
        weights: `float64 [size]`, the result of `sampling_weights`, or None.
        **place: The other arguments of `TrainingBatches`.
    """

    stream = LABELED_STREAM

    def __init__(
        self, size: int, batch_size: int, steps_per_epoch: int, weights: Tensor | None = None, **place: Any
    ) -> None:
        super().__init__(batch_size, steps_per_epoch, **place)
        self._up_to = None if weights is None else cumulative(weights)
        self._permutations = _Permutations(size, self.seed, self.stream)

    def batch(self, step: int) -> Tensor:
        """See `TrainingBatches.batch`."""
        if self._up_to is not None:
            random = generator(self.seed, self.stream, step, 0)
            joint = self.batch_size * self.world_size
            drawn = torch.searchsorted(self._up_to, torch.rand(joint, dtype=torch.float64, generator=random))
            return drawn[self.rank * self.batch_size :][: self.batch_size]
        return self._permutations.take((step * self.world_size + self.rank) * self.batch_size, self.batch_size)


class BalancedBatches(LabeledBatches):
    """Batches of labeled images beside those of `LabeledBatches`, with a random stream of their own."""

    stream = BALANCED_STREAM


class UnlabeledBatches(TrainingBatches):
    """Batches of the unlabeled stream: process r goes through its own images, those with index modulo world size = r.

    Each process thus owns fixed rows of whatever is kept per unlabeled image. If it owns fewer images than a batch
    has, the stream goes round within a batch.

    Args:
        size: The number of unlabeled images.
        batch_size: The number of images per batch and process.
        steps_per_epoch: The number of batches in one epoch.
        **place: The other arguments of `TrainingBatches`.

    Raises:
        SettingsError: There are no images, or a process owns none.
    """

    stream = UNLABELED_STREAM
    images, batch_size_rule = "unlabeled images", "labeled_batch_size x unlabeled_ratio"

    def __init__(self, size: int, batch_size: int, steps_per_epoch: int, **place: Any) -> None:
        super().__init__(batch_size, steps_per_epoch, **place)
        if not size:
            raise SettingsError(
                f"no {self.images}, and the method trains on them: put images into the folder unlabeled/ (of a table: "
                "leave their targets empty), label a smaller share of each class (class_counts.fraction), or use "
                "Supervised"
            )
        owned = len(range(self.rank, size, self.world_size))
        if not owned:
            raise SettingsError(f"{size} {self.images} for {self.world_size} processes: use at most {size} processes")
        if owned < batch_size:
            rank_zero_warn(
                f"a batch of {batch_size} ({self.batch_size_rule}) has more images than the {owned} {self.images} of a "
                f"process, so it has each of them {batch_size // owned} times or more: a smaller one takes less time"
            )
        self._permutations = _Permutations(owned, self.seed, self.stream, self.rank)

    def batch(self, step: int) -> Tensor:
        """See `TrainingBatches.batch`."""
        own = self._permutations.take(step * self.batch_size, self.batch_size)
        return own * self.world_size + self.rank


class PoolBatches(UnlabeledBatches):
    """Batches of the pool of labeled and unlabeled images, with a random stream of their own."""

    stream = POOL_STREAM
    images, batch_size_rule = "labeled and unlabeled images", "labeled_batch_size"


class EvaluationBatches(Sampler[list[int]]):
    """Batches of all images once, in order, spread over the processes without repeats.

    Each process gets the same number of batches, so that collective calls in a step meet. The sizes of the batches
    differ by one at most. With a batch size of 1, the last batch of a process may be empty.

    Args:
        size: The number of images.
        batch_size: The largest number of images per batch and process.
        rank: The number of this process.
        world_size: The number of processes.

    Raises:
        SettingsError: There are fewer images than processes.
    """

    def __init__(self, size: int, batch_size: int, *, rank: int, world_size: int) -> None:
        if size < world_size:
            raise SettingsError(f"{size} evaluation images for {world_size} processes: use at most {size} processes")
        largest = -(-size // world_size)
        batches = -(-largest // batch_size)
        self.batches = torch.arange(rank, size, world_size).tensor_split(batches)

    def __iter__(self) -> Iterator[list[int]]:
        return (batch.tolist() for batch in self.batches)

    def __len__(self) -> int:
        return len(self.batches)
