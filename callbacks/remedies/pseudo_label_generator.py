"""Label the unlabeled images within a training, by a teacher or by the student itself."""

import copy
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from tailmatch.callbacks.remedies.darp.callback import DARPRefinement
from tailmatch.datamodules import LabeledUnlabeledDataModule
from tailmatch.datamodules.arguments import MissingFileError, SettingsError, check_at_least
from tailmatch.datamodules.pseudo_labels.labels import PseudoLabels
from tailmatch.lightning_modules import SelfTraining
from tailmatch.lightning_modules.bases.classifier import check_same_classes
from tailmatch.lightning_modules.checkpoints.remote_files import is_url
from tailmatch.lightning_modules.checkpoints.trained_checkpoint import read_checkpoint
from tailmatch.lightning_modules.inference.predict_set import predict_set
from tailmatch.lightning_modules.networks import Network, NetworkFactory
from tailmatch.lightning_modules.training.distributed import gather_interleaved


class PseudoLabelGenerator(Callback):
    """Gives `SelfTraining` its pseudo-labels: a noisy-student loop in one run.

    The first labels are the teacher's, or without one those of the student's averaged weights after a warm-up. Every
    `every_n_epochs` from there the student's averaged weights, as they are then, label all unlabeled images anew
    (Xie et al. 2020, arXiv 1911.04252, "iterative training", where each student starts afresh: here it goes on).
    Noise is the method's `unlabeled_view`; labels are predicted without. Where the method relabels, the labeled images
    are predicted in the same way (a refiner does not change these).

    On several devices each process labels its own images (index modulo world size). Labels are saved in the order
    of the images, so that a resumed run goes on with them, also with another number of processes.

    Args:
        teacher: Checkpoint of this package, a file or a URL; null lets the student label.
        every_n_epochs: Epochs between labelings; null labels once.
        warmup_epochs: Epochs on the labeled images alone before the first labels; null is 0 with a teacher, else
            `every_n_epochs`.
        teacher_network: Makes the teacher's network; null if it is the student's.
        refiner: Changes the predictions of all unlabeled images before labels are taken from them.
    """

    def __init__(
        self,
        teacher: str | None = None,
        every_n_epochs: int | None = None,
        warmup_epochs: int | None = None,
        teacher_network: NetworkFactory | None = None,
        refiner: DARPRefinement | None = None,
    ) -> None:
        if every_n_epochs is not None:
            check_at_least("every_n_epochs", every_n_epochs, 1)
        if warmup_epochs is None:
            warmup_epochs = 0 if teacher is not None else every_n_epochs
        if warmup_epochs is None:
            raise SettingsError(
                "teacher, every_n_epochs and warmup_epochs are null: give one, so that someone can label"
            )
        check_at_least("warmup_epochs", warmup_epochs, 0)
        if teacher is None and teacher_network is not None:
            raise SettingsError("teacher_network is given without a teacher: name its checkpoint")
        self.teacher = teacher
        self.every_n_epochs = every_n_epochs
        self.warmup_epochs = warmup_epochs
        self.teacher_network = teacher_network
        self.refiner = refiner
        self._labels: PseudoLabels | None = None
        self._labeled: PseudoLabels | None = None  # those of the labeled images, to relabel them
        self._epoch = -1  # in which they were made

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Announce the labels to the method.

        Raises:
            SettingsError: The method is not `SelfTraining`, the data module brings labels too, or the warm-up fills
                the training.
            MissingFileError: There is no such teacher.
        """
        if stage != "fit":
            return
        if not isinstance(pl_module, SelfTraining):
            raise SettingsError(f"PseudoLabelGenerator labels for SelfTraining, and this is {type(pl_module).__name__}")
        data = trainer.datamodule  # type: ignore[attr-defined]
        if data.pseudo_label_file is not None:
            raise SettingsError(
                f"labels come from PseudoLabelGenerator and from pseudo_labels {data.pseudo_label_file}: choose one"
            )
        epochs = pl_module.total_epochs()
        if self.warmup_epochs >= epochs:
            raise SettingsError(
                f"PseudoLabelGenerator would never run: warmup_epochs is {self.warmup_epochs} and the training has "
                f"{epochs} epochs"
            )
        if self.teacher is not None and not is_url(self.teacher) and not Path(self.teacher).is_file():
            raise MissingFileError(f"no teacher {self.teacher}: give the checkpoint of a run")
        self._labels, self._labeled, self._epoch = None, None, -1
        pl_module.expect_pseudo_labels()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the labels of the run that is resumed.

        Raises:
            SettingsError: They are of another unlabeled set.
        """
        if self._labels is None or not isinstance(pl_module, SelfTraining):
            return
        unlabeled = trainer.datamodule.unlabeled  # type: ignore[attr-defined]
        if len(self._labels.label) != len(unlabeled):
            raise SettingsError(
                f"the checkpoint has pseudo-labels of {len(self._labels.label)} images, and {len(unlabeled)} are "
                "unlabeled: resume on the same images"
            )
        pl_module.take_pseudo_labels(self._labels, self._labeled)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Label before the first step of an epoch whose turn it is.

        (Lightning does not call `on_train_epoch_start` where a run goes on from the last step of the epoch before.)
        """
        due = due_epoch(trainer.current_epoch, self.warmup_epochs, self.every_n_epochs)
        if due > self._epoch and isinstance(pl_module, SelfTraining):
            self._epoch = due
            self._label(trainer, pl_module)

    def _label(self, trainer: Trainer, pl_module: SelfTraining) -> None:
        data: LabeledUnlabeledDataModule = trainer.datamodule  # type: ignore[attr-defined]
        network: Network = pl_module.network
        weights = pl_module.evaluated_weights()
        if self._labels is None and self.teacher is not None:
            network, weights = self._teacher(self.teacher, pl_module, data), nullcontext()
        with weights:
            probs = predict_set(trainer, network, data.evaluation_loader(data.unlabeled))
            if pl_module.relabel_threshold is not None:
                labeled = predict_set(trainer, network, data.evaluation_loader(data.labeled))
                self._labeled = most_likely(labeled, len(data.labeled), pl_module.soft)
        if self.refiner is not None:
            probs = self.refiner(probs, data)
        self._labels = most_likely(probs, len(data.unlabeled), pl_module.soft)
        pl_module.take_pseudo_labels(self._labels, self._labeled)

    def _teacher(self, checkpoint: str, pl_module: SelfTraining, data: LabeledUnlabeledDataModule) -> Network:
        network = copy.deepcopy(pl_module.network)
        if self.teacher_network is not None:
            with torch.random.fork_rng(devices=[]):  # its initial weights must not change what the step draws
                network = self.teacher_network(pl_module.num_classes).to(pl_module.device)
            network.adapt_categories(data.category_values, evaluated=data.unlabeled.categories)
        load_teacher(network, checkpoint, data.class_names)
        return network

    # Checkpoints

    def state_dict(self) -> dict[str, Any]:
        """The labels of all unlabeled images, in their order, those of the labeled ones, and when they were due."""
        parts = {"labels": self._labels, "labeled": self._labeled}
        kept = {name: None if labels is None else dict(vars(labels)) for name, labels in parts.items()}
        return {"epoch": self._epoch, **kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the labels of a checkpoint."""
        self._epoch = state_dict["epoch"]
        kept = (state_dict.get(name) for name in ("labels", "labeled"))
        self._labels, self._labeled = (None if labels is None else PseudoLabels(**labels) for labels in kept)


def due_epoch(epoch: int, warmup_epochs: int, every_n_epochs: int | None) -> int:
    """The last epoch up to `epoch` that begins with new labels, -1 if there was none."""
    since = epoch - warmup_epochs
    if since < 0:
        return -1
    return warmup_epochs if every_n_epochs is None else epoch - since % every_n_epochs


def load_teacher(network: Network, checkpoint: str, class_names: list[str]) -> None:
    """Give a network the (averaged) weights of a checkpoint's.

    Raises:
        SettingsError: It is of other classes, or of another network.
    """
    source = read_checkpoint(checkpoint)
    check_same_classes(source.class_names or class_names, class_names, f"teacher {checkpoint}")
    try:
        network.take_vocabulary(source.categories)
        network.load_state_dict(source.backbone | {f"head.{name}": tensor for name, tensor in source.head.items()})
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise SettingsError(f"teacher {checkpoint} has another network ({reason}): set teacher_network") from error


def most_likely(probs: Tensor, total: int, keep_probs: bool) -> PseudoLabels:
    """Pseudo-labels of all images from this process' `probs [n, K]`.

    Args:
        probs: Rows sum to 1.
        total: N, images of all processes.
        keep_probs: Whether the labels have the rows too.
    """
    confidence, label = probs.max(dim=1)
    rows = gathered(probs, total) if keep_probs else None
    return PseudoLabels(gathered(label, total), gathered(confidence, total), rows)


def gathered(rows: Tensor, total: int) -> Tensor:
    """Rows `[n, ...]` of all processes in the order of the images, `[N, ...]` on the CPU."""
    parts = gather_interleaved(rows.reshape(len(rows), -1), total, torch.device("cpu"))
    return parts.reshape(total, *rows.shape[1:])
