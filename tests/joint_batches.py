"""Train two processes, and then one on the joint batches of both: the views and the random draws are the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Optimizer

from tailmatch.datamodules import ListedCounts
from tailmatch.lightning_modules import (
    CCL,
    CPE,
    CPG,
    AdaMatch,
    DyTrim,
    ImageClassifier,
    MoCoPretraining,
    SelfTraining,
    Supervised,
)
from tailmatch.lightning_modules.bases.balanced_head import BalancedHead
from tailmatch.lightning_modules.bases.mixing import MixingClassifier
from tailmatch.lightning_modules.losses import CrossEntropy, InverseWeights
from tailmatch.lightning_modules.networks import Network
from tailmatch.lightning_modules.training.distributed import place
from tests.contract import NO_REMEDY, REMEDIES, cases, prepare


def without_draws(method: type[ImageClassifier]) -> dict[str, Any]:
    """Return arguments without which a method draws random numbers in a step, which a process does for itself."""
    if issubclass(method, AdaMatch):
        return {"interpolate_logits": False}
    if issubclass(method, CPG):
        return {"copies": 0}
    return {"draw_images": False} if issubclass(method, BalancedHead | DyTrim) else {}


CASES: dict[str, tuple[type[ImageClassifier], str, dict[str, Any]]] = {
    **{
        f"{kind.__name__}-{remedy}": (kind, remedy, without_draws(kind))
        for kind, remedy in cases("two processes")
        if not issubclass(kind, CPE)  # whose heads have BatchNorms
    },
    "class weights": (Supervised, NO_REMEDY, {"class_weights": InverseWeights(), "loss": CrossEntropy()}),
    "some pseudo-labels": (SelfTraining, NO_REMEDY, {"top_k_per_class": 5}),
}
"""Methods and remedies by name, with other arguments; the last two have other weights on each process."""

NOT_COMPARED = ("scalars", "warm_start")
"""State of remedies that need not agree: a solver stops within its tolerance, and starts next time where it stopped."""

STEPS = 6
LABELED = 6
"""Number of labeled images of a step and process."""


class SmoothNetwork(Network):
    """A small network without BatchNorm, whose output is smooth in its weights."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, feature_dim=12, channels_last=False)
        self.layer = nn.Conv2d(3, 12, 3, padding=1)

    def _feature_map(self, normalized: Tensor) -> Tensor:
        return functional.gelu(self.layer(normalized))


class Recorder(Callback):
    """Notes the batches with their views, and the gradients of every step."""

    def __init__(self) -> None:
        self.batches: list[Any] = []
        self.gradients: list[dict[str, Tensor]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.batches.append(batch)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        parameters = pl_module.named_parameters()
        self.gradients.append({name: p.grad.clone() for name, p in parameters if p.grad is not None})


def train(name: str, folder: Path, batches: list[Any] | None = None, **options: Any) -> dict[str, Any]:
    """Train a case for a few steps; return what it did.

    Args:
        name: Name of the case.
        folder: Folder for files of the run.
        batches: Batches with views to train on, instead of the data's.
        **options: Options of the trainer.
    """
    method, remedy, arguments = CASES[name]
    # With Adam, the smallest gradient of a weight moves it as far as the largest, and so would what is rounded.
    changed: dict[str, Any] = {"optimizer": partial(SGD, lr=0.1, momentum=0.9), **arguments}
    if issubclass(method, MixingClassifier):
        changed["rampup_steps"] = 2
    if issubclass(method, MoCoPretraining):
        changed["norm_splits"] = 1
    remedies = [] if remedy == NO_REMEDY else [REMEDIES[remedy].make()]
    recorder = Recorder()
    trainer, model, data = prepare(
        partial(method, **changed), folder, *remedies, recorder, network=SmoothNetwork, max_steps=STEPS,
        limit_val_batches=0, enable_checkpointing=False, **options,
    )  # fmt: skip
    data.class_counts_rule = ListedCounts([8, 7, 6, 5, 4, 3, 2, 2, 2, 1], [6] * 10)
    if isinstance(model, CCL):  # whose BatchNorms of the joint batch magnify what is rounded
        model.contrasts.features[1], model.contrasts.centers[1] = nn.Identity(), nn.Identity()
    if batches is not None:
        given = iter(batches)
        model.on_after_batch_transfer = lambda *args: next(given)  # type: ignore[method-assign]
    with fixed_mixing():
        trainer.fit(model, data)
    return {
        "batches": recorder.batches,
        "gradients": recorder.gradients,
        "weights": model.state_dict(),
        "remedies": [{k: v for k, v in each.state_dict().items() if k not in NOT_COMPARED} for each in remedies],
    }


def joined(parts: list[Any], name: str = "") -> Any:
    """Join the batches of two processes; an order of all images is the same in both."""
    first = parts[0]
    if isinstance(first, dict):
        return {key: joined([part[key] for part in parts], key) for key in first}
    if isinstance(first, list):
        return [joined(list(views)) for views in zip(*parts, strict=True)]
    return first if name == "order" else torch.cat(parts)


@contextmanager
def fixed_mixing() -> Iterator[None]:
    """Mix each process' images with each other by fixed weights, also where one process has those of both."""
    bases, methods = (
        f"tailmatch.lightning_modules.{place}.mixup_partners" for place in ("bases.mixing", "methods.remix")
    )
    with mock.patch(bases, fixed_partners), mock.patch(methods, fixed_partners):
        yield


def fixed_partners(size: int, alpha: float, per_image: bool = False) -> tuple[Tensor, Tensor]:
    """Weights and partners as from `mixup_partners`: labeled images, then views of unlabeled ones."""
    rank, world_size = place()
    if world_size > 1:
        return _drawn(rank, size)
    weight, partner = torch.empty(size), torch.empty(size, dtype=torch.long)
    for process in range(2):
        own_weight, own_partner = _drawn(process, size // 2)
        here = _places(process, size)
        weight[here], partner[here] = own_weight, here[own_partner]
    return weight, partner


def _drawn(rank: int, size: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(rank)
    return 0.5 + torch.rand(size, generator=random) / 2, torch.randperm(size, generator=random)


def _places(process: int, size: int) -> Tensor:
    """Where the images of a process are among those of both: each view has the images of both, one after the other."""
    labeled, unlabeled = torch.arange(2 * LABELED), torch.arange(2 * LABELED, size).view(-1, 2, 2 * LABELED)
    return torch.cat([labeled.chunk(2)[process], unlabeled[:, process].flatten()])
