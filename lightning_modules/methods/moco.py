"""MoCo v2 (Chen et al. 2020, arXiv 2003.04297; He et al., CVPR 2020, arXiv 1911.05722)."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tailmatch.datamodules.arguments import SettingsError, check_at_least, check_positive, check_share
from tailmatch.datamodules.batches import SHUFFLE_STREAM, generator, global_seed, training_step_index
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.bases.pretraining import Pretraining
from tailmatch.lightning_modules.networks.split_norm import split_batch_norm
from tailmatch.lightning_modules.training.distributed import place, shuffle_rows, unshuffle_rows
from tailmatch.lightning_modules.training.weight_averaging import average_into
from tailmatch.lightning_modules.views import SimCLRView, View
from tailmatch.lightning_modules.views.base import to_device


class MoCoPretraining(Pretraining):
    r"""Tells a second view of an image from the views of many others, kept in a queue.

    With `q` the query network's projection of one view, `k+` the key network's of another, `k_i` the queue, all of
    unit length:

        loss = CE(positive, [q . k+, q . k_1, ..., q . k_Q] / T)
        key network <- momentum * key network + (1 - momentum) * query network

    The keys then take the place of the oldest in the queue. The key network begins as a copy of the query network, and
    keeps BatchNorm statistics of its own, as in facebookresearch/moco `moco/builder.py`.

    A sample's query and key must not share the batch that normalizes them, or they are told apart by its statistics:
    over all processes, the key network sees the images in another order, the same on all of them. On one device that is
    of use together with `norm_splits` only (the authors train on eight). The queue is a ring of any size above the
    batch of all processes; the authors' must be a multiple of it.

    Defaults are the authors' for ImageNet (`main_moco.py` with the README's options for v2).

    Args:
        num_classes: The number of classes; the command line takes it from the data module.
        queue_size: Q, keys of earlier steps.
        momentum: Of the key network, moved at every training batch.
        temperature: T.
        dim: Length of a projection.
        norm_splits: Parts of a batch that BatchNorm takes apart, to train on one device as on this many; must divide
            the batch.
        view: View whose two draws are query and key; None is MoCo v2's: SimCLR's with crops of at least 0.2 of the
            image and half its jitter.
        **kwargs: The arguments of `Pretraining`.
    """

    progress_bar = ("loss", "contrast_accuracy")
    queue: Tensor
    pointer: Tensor

    def __init__(
        self,
        num_classes: int,
        *,
        queue_size: int = 65536,
        momentum: float = 0.999,
        temperature: float = 0.2,
        dim: int = 128,
        norm_splits: int = 1,
        view: View | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, **kwargs)
        check_at_least("queue_size", queue_size, 1)
        check_share("momentum", momentum)
        check_positive("temperature", temperature)
        check_at_least("dim", dim, 1)
        check_at_least("norm_splits", norm_splits, 1)
        self.momentum = momentum
        self.temperature = temperature
        self.view = view or SimCLRView(scale=(0.2, 1.0), jitter=0.5)
        width = self.network.feature_dim
        self.network.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, dim))
        if norm_splits > 1:
            split_batch_norm(self.network, norm_splits)
        self.key_network = copy.deepcopy(self.network).requires_grad_(False)
        self.register_buffer("queue", functional.normalize(torch.randn(queue_size, dim), dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    def begin_fit(self) -> None:
        """Begin with equal networks.

        Raises:
            SettingsError: BatchNorm is synchronized, so that queries and keys are normalized by the same images again.
        """
        if any(isinstance(module, nn.SyncBatchNorm) for module in self.modules()):
            raise SettingsError(
                "trainer.sync_batchnorm is true; MoCo needs each process' own statistics: set it to false"
            )
        super().begin_fit()
        self.key_network.load_state_dict(self.network.state_dict())

    def make_views(self, batch: Batch) -> Batch:
        """Two views of the pool, and the order of all processes' images for the key network."""
        pool = batch["pool"]
        pool["query"], pool["key"] = self.view(pool["image"]), self.view(pool["image"])
        random = generator(global_seed(), SHUFFLE_STREAM, training_step_index(self.trainer))  # the same on each rank
        order = torch.randperm(len(pool["key"]) * self.trainer.world_size, generator=random)
        pool["order"] = to_device(order, pool["key"].device)
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        pool = batch["pool"]
        query = functional.normalize(self.network(pool["query"]).float(), dim=1)
        with torch.no_grad():
            update_by_momentum(self.key_network, self.network, self.momentum)
            shuffled = shuffle_rows(pool["key"], pool["order"])
            keys = functional.normalize(self.key_network(shuffled).float(), dim=1)
            keys = unshuffle_rows(keys, pool["order"])
        rank, world_size = place()
        logits = contrast_logits(query, keys.chunk(world_size)[rank], self.queue.clone(), self.temperature)
        loss = functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))
        enqueue(self.queue, self.pointer, keys)
        self.track(loss=loss, contrast_accuracy=(logits.argmax(dim=1) == 0).float().mean())
        return loss


def contrast_logits(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Similarities over T, `[B, 1 + Q]`, of `query [B, D]` to its own row of `key [B, D]` and to `queue [Q, D]`."""
    with torch.autocast(query.device.type, enabled=False):
        positive = (query * key).sum(dim=1, keepdim=True)
        return torch.cat([positive, query @ queue.T], dim=1) / temperature


def update_by_momentum(key_network: nn.Module, query_network: nn.Module, momentum: float) -> None:
    """Move each parameter of the key network to `momentum * own + (1 - momentum) * query's`, in place."""
    average_into(list(key_network.parameters()), list(query_network.parameters()), momentum)


def enqueue(queue: Tensor, pointer: Tensor, keys: Tensor) -> None:
    """Write keys over the oldest of a ring, in place and without waiting for the device.

    Args:
        queue: `[Q, D]`.
        pointer: `int64 []`, row of the oldest key; moves on.
        keys: `[n, D]`, those of all processes.

    Raises:
        SettingsError: There are more keys than places.
    """
    if len(keys) > len(queue):
        raise SettingsError(
            f"queue_size is {len(queue)}; it must be at least the batch of all processes, {len(keys)} images"
        )
    places = (pointer + torch.arange(len(keys), device=queue.device)) % len(queue)
    queue.index_copy_(0, places, keys)
    pointer.add_(len(keys)).remainder_(len(queue))
