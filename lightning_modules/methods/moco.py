"""MoCo v2 (Chen et al. 2020, arXiv 2003.04297; He et al., CVPR 2020, arXiv 1911.05722)."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tailmatch.datamodules.arguments import SettingsError, check_count, check_positive, check_share
from tailmatch.datamodules.batches import SHUFFLE_STREAM, generator, global_seed, training_step_index
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.bases.pretraining import Pretraining
from tailmatch.lightning_modules.networks.split_norm import split_batch_norm
from tailmatch.lightning_modules.training.distributed import place, shuffle_rows, unshuffle_rows
from tailmatch.lightning_modules.training.weight_averaging import average_into
from tailmatch.lightning_modules.views import SimCLRView, View
from tailmatch.lightning_modules.views.base import to_device


class MoCoPretraining(Pretraining):
    r"""Momentum contrast: recognizes another view of the same image among views of other images in a queue.

    With `q` the query network's projection of one view, `k+` the key network's projection of another view of the same
    image, and `k_i` the keys in the queue, all of unit length:

        loss = CE(positive, [q . k+, q . k_1, ..., q . k_Q] / T)
        key network <- momentum * key network + (1 - momentum) * query network

    The new keys then replace the oldest keys in the queue. The key network begins as a copy of the query network and
    has its own BatchNorm statistics, as in facebookresearch/moco `moco/builder.py`.

    BatchNorm must not normalize an image's query and key within the same batch, or the batch statistics reveal which
    key belongs to a query. Therefore, the images of all processes are shuffled together for the key network, in an
    order that all processes share. On one device, this is only effective together with `norm_splits` (the authors train
    on eight). The queue may have any size of at least the batch of all processes; the authors require a multiple of it.

    The defaults are the authors' for ImageNet (`main_moco.py` with the README's options for v2).

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        queue_size: Number Q of keys of earlier steps in the queue, at least the batch of all processes.
        momentum: Weight in [0, 1] of the key network's own parameters when it moves towards the query network, in every
            training batch.
        temperature: Temperature T of the similarities, above 0.
        dim: Size of a projection.
        norm_splits: Number of parts of a batch that BatchNorm normalizes separately, which simulates this many devices
            on one; it must divide the batch size.
        view: View that is drawn twice, for query and key; None is that of MoCo v2: `SimCLRView` with crops of at least
            0.2 of the image and half the color jitter.
        **kwargs: Other arguments of `Pretraining`.

    Raises:
        SettingsError: An argument lies outside its domain.
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
        check_count("queue_size", queue_size)
        check_share("momentum", momentum)
        check_positive("temperature", temperature)
        check_count("dim", dim)
        check_count("norm_splits", norm_splits)
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
        """Copy the query network's weights, which may be pretrained, to the key network.

        Raises:
            SettingsError: BatchNorm is synchronized over the processes, so that it normalizes queries and keys by the
                same images.
        """
        if any(isinstance(module, nn.SyncBatchNorm) for module in self.modules()):
            raise SettingsError(
                "trainer.sync_batchnorm is true; MoCo needs each process' own statistics: set it to false"
            )
        super().begin_fit()
        self.key_network.load_state_dict(self.network.state_dict())

    def make_views(self, batch: Batch) -> Batch:
        """Make two views of each image, and draw the order of all processes' images for the key network."""
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
        logits = contrast_logits(query, keys.chunk(world_size)[rank], self.queue, self.temperature)
        loss = functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))
        self._keys = keys
        nearest = logits[:, 0] >= logits[:, 1:].amax(dim=1)
        self.track(loss=loss, contrast_accuracy=nearest.float().mean())
        return loss

    def on_after_backward(self) -> None:
        """Put the new keys into the queue, which the backward pass needs as it was."""
        enqueue(self.queue, self.pointer, self._keys)


def contrast_logits(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Compute similarities of `query [B, D]` to its row of `key [B, D]` and to `queue [Q, D]`, by T: `[B, 1 + Q]`."""
    with torch.autocast(query.device.type, enabled=False):
        positive = (query * key).sum(dim=1, keepdim=True)
        return torch.cat([positive, query @ queue.T], dim=1).div_(temperature)


def update_by_momentum(key_network: nn.Module, query_network: nn.Module, momentum: float) -> None:
    """Set each parameter of the key network to `momentum * key + (1 - momentum) * query`, in place."""
    average_into(list(key_network.parameters()), list(query_network.parameters()), momentum)


def enqueue(queue: Tensor, pointer: Tensor, keys: Tensor) -> None:
    """Replace the oldest keys of a ring buffer, in place and without waiting for the device.

    Args:
        queue: Ring buffer of keys, `[Q, D]`.
        pointer: Row of the oldest key, `int64 []`; it is advanced by n, modulo Q.
        keys: New keys of all processes, `[n, D]`.

    Raises:
        SettingsError: There are more new keys than rows in the queue.
    """
    if len(keys) > len(queue):
        raise SettingsError(
            f"queue_size is {len(queue)}; it must be at least the batch of all processes, {len(keys)} images"
        )
    places = (pointer + torch.arange(len(keys), device=queue.device)) % len(queue)
    queue.index_copy_(0, places, keys)
    pointer.add_(len(keys)).remainder_(len(queue))
