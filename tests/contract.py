"""What the contract tests share: the methods, a small run of one, and how two states are compared."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from pytorch_lightning.plugins.precision import Precision

from tailmatch.callbacks import (
    DARP,
    DistributionAlignment,
    EarlyLearningCurves,
    LastEvaluations,
    PseudoLabelGenerator,
    PseudoLabelMonitor,
)
from tailmatch.callbacks.checkpoints import AtomicCheckpointIO, LastCheckpoint
from tailmatch.datamodules import Digits, ListedCounts
from tailmatch.datamodules.images import Sources
from tailmatch.lightning_modules import (
    ClassifierRetraining,
    FixMatch,
    ImageClassifier,
    MixMatch,
    MoCoPretraining,
    PostHocClassifier,
    ReMixMatch,
    RotationPretraining,
    SelfTraining,
    SemiSupervisedClassifier,
    SimMixMatch,
    Supervised,
)
from tailmatch.lightning_modules.heads import ComputedHead
from tailmatch.lightning_modules.networks import CategoryNetwork, CifarResNet, NetworkFactory

METHODS: list[type[ImageClassifier]] = [
    ClassifierRetraining,
    FixMatch,
    MixMatch,
    MoCoPretraining,
    ReMixMatch,
    RotationPretraining,
    SelfTraining,
    SimMixMatch,
    Supervised,
]

ARGUMENTS: dict[type[ImageClassifier], dict[str, Any]] = {
    FixMatch: {"threshold": 0.2},
    MoCoPretraining: {"queue_size": 20, "norm_splits": 2},
    ReMixMatch: {"strong_views": 2, "align": False},  # alignment is among the remedies
    SelfTraining: {"relabel_threshold": 0.12},
}
"""Arguments of a method that make a small run of it."""

COMPANIONS: dict[type[ImageClassifier], Callable[[], Callback]] = {
    SelfTraining: partial(PseudoLabelGenerator, every_n_epochs=1)
}
"""Callbacks without which a method does not train."""


plain_network = partial(CifarResNet, depth=8)
"""Makes a small network of images alone."""


def category_network(num_classes: int) -> CategoryNetwork:
    """A small network that reads the categories of `TaggedDigits`."""
    return CategoryNetwork(num_classes, ["shade", "side"], plain_network, embedding_dim=3, level_dropout=0.2)


class TaggedDigits(Digits):
    """Digits with two levels of categories: how bright one is, and its brighter half, which is not known of all."""

    category_values = {"side": ["left", "right"], "shade": ["dark", "gray", "light"]}

    def load(self) -> Sources:
        """See `Digits.load`."""
        train = super().load().train
        pixels = torch.as_tensor(train.pixels).float().mean(dim=1)
        left, right = (half.mean(dim=(1, 2)) for half in pixels.chunk(2, dim=2))
        bright = left + right
        shade = torch.bucketize(bright, bright.quantile(torch.tensor([1 / 3, 2 / 3])))
        side = (right > left).long()
        side[::5] = -1
        return Sources(train=replace(train, categories=torch.stack([side, shade], dim=1)))


def arguments(method: type[ImageClassifier], folder: Path, network: NetworkFactory = plain_network) -> dict[str, Any]:
    """Arguments of a method that make a small run of it, and the checkpoint that it begins with if it needs one."""
    own: dict[str, Any] = {"ema_decay": 0.5, **ARGUMENTS.get(method, {})}
    return {**own, "checkpoint": source_checkpoint(folder, network)} if method is ClassifierRetraining else own


def source_checkpoint(folder: Path, network: NetworkFactory = plain_network) -> str:
    """File of a network with random weights, the same in every process."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        made = network(10)
        if made.takes_categories:
            made.adapt_categories({"shade": ["light", "dark"], "side": ["right"]}, torch.tensor([[0, 0], [1, -1]]))
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"source-{os.getpid()}.ckpt"
    state = {f"network.{name}": value for name, value in made.state_dict().items()}
    torch.save({"state_dict": state, "categories": made.vocabulary}, file)
    return str(file)


def post_hoc(checkpoint: str, head: ComputedHead) -> Any:
    """What `run` calls for a computed head; it is no member of `METHODS`, for a fit is one step."""

    def made(num_classes: int, network: Any, ema_decay: float) -> PostHocClassifier:
        return PostHocClassifier(num_classes, checkpoint, head, network=network)

    return made


STEPS_PER_EPOCH, EPOCHS = 4, 3
KILLED_AFTER, SAVED_AFTER = 7, 6
"""Steps of a run that is killed: in the middle of the second epoch, after a checkpoint in it."""

NO_REMEDY = "no remedy"


def remedies(method: type[ImageClassifier]) -> list[str]:
    """Names of the remedies that fit a method."""
    return [NO_REMEDY, "DARP", "DistributionAlignment"] if issubclass(method, SemiSupervisedClassifier) else [NO_REMEDY]


def callbacks_of(remedy: str) -> list[Callback]:
    """New callbacks of a remedy."""
    if remedy == NO_REMEDY:
        return []
    chosen = (
        DARP(warmup_epochs=1, refine_every=2)
        if remedy == "DARP"
        else DistributionAlignment(list(range(1, 11)), batches=5)
    )
    return [chosen, PseudoLabelMonitor(), LastEvaluations(2), EarlyLearningCurves()]


class Killed(Exception):
    """What `Kill` raises."""


class Kill(Callback):
    """Stops the run with an exception after a number of steps, as a kill would."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == self.after:
            raise Killed


def run(
    method: type[ImageClassifier],
    folder: Path,
    *callbacks: Callback,
    ckpt: Path | None = None,
    network: NetworkFactory = plain_network,
    accelerator: str = "cpu",
    precision: Precision | None = None,
    **trainer: Any,
) -> Trainer:
    """Train a method for a few steps on digits, which have categories where the network reads them."""
    seed_everything(3, verbose=False)
    data = (TaggedDigits if network is category_network else Digits)(
        image_size=8,
        class_counts=ListedCounts([4] * 10, [6] * 10),
        labeled_batch_size=6,
        unlabeled_ratio=2,
        steps_per_epoch=STEPS_PER_EPOCH,
        val_holdout=2,
        test_holdout=3,
    )
    model = method(num_classes=10, network=network, **arguments(method, folder, network))
    made = Trainer(
        max_epochs=EPOCHS,
        accelerator=accelerator,
        default_root_dir=folder,
        callbacks=[*([COMPANIONS[method]()] if method in COMPANIONS else []), *callbacks],
        plugins=[AtomicCheckpointIO(), *([precision] if precision else [])],
        logger=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=3,
        enable_progress_bar=False,
        enable_model_summary=False,
        **trainer,
    )
    made.fit(model, data, ckpt_path=ckpt)
    return made


def last(folder: Path, **kwargs: Any) -> LastCheckpoint:
    """Saves `folder/last.ckpt`."""
    return LastCheckpoint(dirpath=folder, filename="last", enable_version_counter=False, **kwargs)


def at_epoch_ends(folder: Path) -> LastCheckpoint:
    """Saves `folder/last.ckpt` after every epoch."""
    return last(folder, every_n_epochs=1, save_on_train_epoch_end=True)


def saved(folder: Path) -> dict[str, Any]:
    """The checkpoint in a folder."""
    state: dict[str, Any] = torch.load(folder / "last.ckpt", weights_only=True)
    return state


def assert_same_training(whole: dict[str, Any], resumed: dict[str, Any], remedy: str = NO_REMEDY) -> None:
    """Two checkpoints hold the same bits."""
    for part in ("state_dict", "trained_weights", "optimizer_states", "lr_schedulers", "class_names", "categories"):
        if part in whole or part in resumed:
            assert_same(whole[part], resumed[part], part)
    for callback in () if remedy == NO_REMEDY else (remedy, "LastEvaluations", "EarlyLearningCurves"):
        assert_same(whole["callbacks"][callback], resumed["callbacks"][callback], callback)


def assert_same(a: Any, b: Any, where: str) -> None:
    """Two nests of tensors and plain values are the same."""
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        for number, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{number}]")
    else:
        assert a == b, where


def differs(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether any tensor of two state dicts differs."""
    return any(not torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))
