"""What a network says of a whole set of images within a fit, without a trace in the training."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from pytorch_lightning import Trainer
from rich.progress import Progress
from torch import Tensor

from tailmatch.datamodules.bases.image_data import Loader
from tailmatch.lightning_modules.bases.classifier import check_predictions
from tailmatch.lightning_modules.networks import Network
from tailmatch.lightning_modules.networks.evaluation_mode import evaluation_mode
from tailmatch.lightning_modules.networks.inputs import network_input
from tailmatch.lightning_modules.networks.tagged_images import TaggedImages

Compute = Callable[[Tensor | TaggedImages], Tensor]
"""From a batch of a network's input to rows `[B, D]`."""


def predict_set(
    trainer: Trainer, network: Network, loader: Loader, keep: Callable[[Tensor], Tensor] = lambda probs: probs
) -> Tensor:
    """Probabilities of this process' images, `float32 [n, K]` on the device.

    Args:
        trainer: The fit's trainer, whose precision and progress bar are used.
        network: Gives logits.
        loader: Every image once, over the processes.
        keep: What is kept of a batch's `probs [B, K]`; all, by default.

    Raises:
        SettingsError: A prediction is NaN.
    """

    def probs(images: Tensor | TaggedImages) -> Tensor:
        return network(images).float().softmax(dim=1)  # type: ignore[no-any-return]

    return torch.cat([keep(rows) for rows, _ in rows_of_set(trainer, network, loader, probs)])


def rows_of_set(
    trainer: Trainer, network: Network, loader: Loader, compute: Compute
) -> Iterator[tuple[Tensor, Mapping[str, Any]]]:
    """Go through a set in the trainer's precision: what is computed of each batch, and the batch itself.

    The network is in evaluation mode while it computes, without gradient; each of its modules is in its own mode again
    whenever the caller's code runs.

    Args:
        trainer: The fit's trainer, whose precision and progress bar are used.
        network: The network that `compute` calls; its device and categories are those of the input.
        loader: Every image once, over the processes.
        compute: Rows `[B, D]` of a batch of the network's input.

    Raises:
        SettingsError: A number is NaN or infinite. It is noticed after the last batch, since it waits for the device.
    """
    sums: list[Tensor] = []
    for batch in shown(trainer, loader):
        with torch.no_grad(), evaluation_mode(network), trainer.precision_plugin.val_step_context():
            rows = compute(network_input(network, batch))
        sums.append(rows.sum(dim=1))
        yield rows, batch
    if sums:
        check_predictions(torch.cat(sums))


def shown(trainer: Trainer, loader: Loader) -> Iterator[Any]:
    """The batches, with a progress bar on process 0 if the trainer shows one."""
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
