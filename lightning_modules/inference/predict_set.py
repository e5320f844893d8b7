"""Predictions of a whole set of images during a fit, without an effect on the training."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from pytorch_lightning import Trainer
from rich.progress import Progress
from torch import Tensor

from tailmatch.datamodules.bases.image_data import Loader
from tailmatch.lightning_modules.networks import Network
from tailmatch.lightning_modules.networks.evaluation_mode import evaluation_mode
from tailmatch.lightning_modules.networks.inputs import network_input
from tailmatch.lightning_modules.networks.tagged_images import TaggedImages
from tailmatch.lightning_modules.training.finite import check_predictions

Compute = Callable[[Tensor | TaggedImages], Tensor]
"""A function that computes rows `[B, D]` of a batch of a network's input."""


def predict_set(
    trainer: Trainer, network: Network, loader: Loader, keep: Callable[[Tensor], Tensor] = lambda probs: probs
) -> Tensor:
    """Predict this process' images: probabilities `float32 [n, K]` on the device.

    Args:
        trainer: The fit's trainer, whose precision and progress bar are used.
        network: Network that outputs logits.
        loader: Loader that gives this process its part of the images; all processes together see each image once.
        keep: Function that reduces a batch's probabilities `[B, K]` to those that are returned; the default keeps all.

    Raises:
        NotFiniteError: A prediction is NaN.
    """

    def probs(images: Tensor | TaggedImages) -> Tensor:
        return network(images).float().softmax(dim=1)  # type: ignore[no-any-return]

    return torch.cat([keep(rows) for rows, _ in rows_of_set(trainer, network, loader, probs)])


def rows_of_set(
    trainer: Trainer, network: Network, loader: Loader, compute: Compute
) -> Iterator[tuple[Tensor, Mapping[str, Any]]]:
    """Iterate over a set in the trainer's precision; yield the computed rows of each batch, and the batch.

    The network computes in evaluation mode and without gradient. Each of its modules is in its previous mode whenever
    the caller's code runs.

    Args:
        trainer: The fit's trainer, whose precision and progress bar are used.
        network: Network that `compute` calls; it determines the device of the input, and which categories it has.
        loader: Loader that gives this process its part of the images; all processes together see each image once.
        compute: Function that computes rows `[B, D]` of a batch of the network's input.

    Raises:
        NotFiniteError: A row is NaN or infinite. This is checked after the last batch, since it waits for the device.
    """
    sums: list[Tensor] = []
    for batch in shown(trainer, loader):
        if not len(batch["image"]):  # the other processes have an image more
            continue
        with torch.no_grad(), evaluation_mode(network), trainer.precision_plugin.val_step_context():
            rows = compute(network_input(network, batch))
        sums.append(rows.sum(dim=1))
        yield rows, batch
    if sums:
        check_predictions(torch.cat(sums), network, trainer)


def shown(trainer: Trainer, loader: Loader) -> Iterator[Any]:
    """Iterate over the batches of a loader, with a progress bar on process 0 if the trainer shows one."""
    bar = trainer.progress_bar_callback
    if bar is None or not trainer.is_global_zero:
        yield from loader
        return
    live = getattr(bar, "progress", None)  # rich shows one display at a time: Lightning's, if it is rich
    progress = live if isinstance(live, Progress) else Progress()
    if progress is not live:
        progress.start()
    task = progress.add_task("Predictions", total=len(loader))
    try:
        for batch in loader:
            yield batch
            progress.advance(task)
    finally:
        progress.remove_task(task)
        if progress is not live:
            progress.stop()
