"""Which images make up step t: a pure function of (seed, stream, step, rank, world size).

Nothing here keeps state between steps, so a run that was killed and resumed at step t draws the batches
that an uninterrupted run draws.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning import Trainer
from torch import Tensor
from torch.utils.data import Sampler

from tailmatch.datamodules.arguments import SettingsError

LABELED_STREAM, UNLABELED_STREAM, VIEW_STREAM = 1, 2, 3
POOL_STREAM, SHUFFLE_STREAM = 4, 5
"""Stream numbers keep the random numbers of different uses apart; 0 is the split's."""

Sampling = Literal["uniform", "balanced", "effective_number"]

EFFECTIVE_NUMBER_BETA = 0.9999
"""Cui et al. 2019 (arXiv 1901.05555); the value of kaidic/LDAM-DRW and imbalanced-semi-self."""


def global_seed() -> int:
    """The seed given to `seed_everything`, 0 if it was not called.

    Lightning keeps it in the environment, where processes it launches find it too.
    """
    return int(os.environ.get("PL_GLOBAL_SEED", 0))


def mix_seed(*parts: int) -> int:
    """One well-mixed 63-bit seed from several numbers (numpy's SeedSequence)."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0]) >> 1


def generator(*parts: int) -> torch.Generator:
    """A CPU generator seeded from several numbers."""
    return torch.Generator().manual_seed(mix_seed(*parts))


def training_step_index(trainer: Trainer) -> int:
    """Training batches that were begun before the present one: the step t, also right after a resume.

    Internal API of Lightning (`tests/test_contract.py` would fail on another meaning): the loops are restored
    before the loaders are built, and the counter goes up only after the batch was moved to the device.
    """
    return int(trainer.fit_loop.epoch_loop.batch_progress.total.ready)


def sampling_weights(targets: Tensor, sampling: Sampling) -> Tensor | None:
    """Probability weight of every labeled image, None for sampling without replacement.

    Args:
        targets: `int64 [N]` classes.
        sampling: `uniform`: every image once an epoch. `balanced`: every class equally likely
            (OverFixMatch's over-sampling). `effective_number`: class weight `(1-beta)/(1-beta**n)` for each
            of its n images (Cui et al. 2019), as the resampling rule of LDAM-DRW.

    Returns:
        `float64 [N]` or None.
    """
    if sampling == "uniform":
        return None
    counts = torch.bincount(targets).double()
    if sampling == "balanced":
        weights = 1 / counts
    else:
        weights = (1 - EFFECTIVE_NUMBER_BETA) / (1 - EFFECTIVE_NUMBER_BETA**counts)
    return weights[targets]


class _Permutations:
    """Endless stream of positions 0..n-1, permuted anew each time all have passed."""

    def __init__(self, size: int, *seed: int) -> None:
        self.size = size
        self.seed = seed
        self._drawn: tuple[int, Tensor] = (-1, torch.empty(0))

    def take(self, start: int, count: int) -> Tensor:
        """Positions `start` to `start + count` of the stream, `int64 [count]`."""
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
    """Endless training batches, served in passes of an epoch.

    Args:
        batch_size: Images per batch and process.
        steps_per_epoch: Length of one pass.
        seed: Training seed.
        rank: This process.
        world_size: Number of processes.
        step: Gives the step at which a pass begins; read once at its start.
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
        """Positions in the stream's set of this process' batch at a step, `int64 [batch_size]`."""

    def __iter__(self) -> Iterator[list[int]]:
        start = self.step()  # now, since workers fetch ahead
        return (self.batch(step).tolist() for step in range(start, start + self.steps_per_epoch))

    def __len__(self) -> int:
        return self.steps_per_epoch


class LabeledBatches(TrainingBatches):
    """Batches of the labeled stream.

    Without weights, all processes together walk through one permutation of the labeled images; with weights,
    images are drawn with replacement.

    Args:
        size: Labeled images.
        batch_size: See `TrainingBatches`.
        steps_per_epoch: See `TrainingBatches`.
        weights: `float64 [size]` of `sampling_weights`, or None.
        **place: The other arguments of `TrainingBatches`.
    """

    def __init__(
        self, size: int, batch_size: int, steps_per_epoch: int, weights: Tensor | None = None, **place: Any
    ) -> None:
        super().__init__(batch_size, steps_per_epoch, **place)
        self.weights = weights
        self._permutations = _Permutations(size, self.seed, LABELED_STREAM)

    def batch(self, step: int) -> Tensor:
        """See `TrainingBatches.batch`."""
        if self.weights is not None:
            random = generator(self.seed, LABELED_STREAM, step, self.rank)
            return torch.multinomial(self.weights, self.batch_size, replacement=True, generator=random)
        return self._permutations.take((step * self.world_size + self.rank) * self.batch_size, self.batch_size)


class UnlabeledBatches(TrainingBatches):
    """Batches of the unlabeled stream: each process walks through its own images, index modulo world size.

    So each process owns fixed rows of whatever is kept per unlabeled image.

    Args:
        size: Unlabeled images.
        batch_size: See `TrainingBatches`.
        steps_per_epoch: See `TrainingBatches`.
        **place: The other arguments of `TrainingBatches`.

    Raises:
        SettingsError: A process owns fewer images than a batch.
    """

    stream = UNLABELED_STREAM
    images, batch_size_rule = "unlabeled images", "labeled_batch_size x unlabeled_ratio"

    def __init__(self, size: int, batch_size: int, steps_per_epoch: int, **place: Any) -> None:
        super().__init__(batch_size, steps_per_epoch, **place)
        owned = len(range(self.rank, size, self.world_size))
        if owned < batch_size:
            raise SettingsError(
                f"{owned} {self.images} for process {self.rank} of {self.world_size}, fewer than one batch of "
                f"{batch_size} ({self.batch_size_rule}): lower it or add images"
            )
        self._permutations = _Permutations(owned, self.seed, self.stream, self.rank)

    def batch(self, step: int) -> Tensor:
        """See `TrainingBatches.batch`."""
        own = self._permutations.take(step * self.batch_size, self.batch_size)
        return own * self.world_size + self.rank


class PoolBatches(UnlabeledBatches):
    """Batches of the pool of labeled and unlabeled images, in an order of their own."""

    stream = POOL_STREAM
    images, batch_size_rule = "labeled and unlabeled images", "labeled_batch_size"


class EvaluationBatches(Sampler[list[int]]):
    """All images once, in order, spread over the processes without repeats.

    Every process gets the same number of batches, so that collective calls in a step meet; batch sizes
    differ by one at most.

    Raises:
        SettingsError: There are fewer images than processes.
    """

    def __init__(self, size: int, batch_size: int, *, rank: int, world_size: int) -> None:
        if size < world_size:
            raise SettingsError(f"{size} evaluation images for {world_size} processes: use at most {size} processes")
        smallest, largest = size // world_size, -(-size // world_size)
        batches = min(-(-largest // batch_size), smallest)
        self.batches = torch.arange(rank, size, world_size).tensor_split(batches)

    def __iter__(self) -> Iterator[list[int]]:
        return (batch.tolist() for batch in self.batches)

    def __len__(self) -> int:
        return len(self.batches)
