"""Label the unlabeled images during a training, by a teacher or by the student itself."""

import copy
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from tailmatch.callbacks.remedies.darp.callback import DARPRefinement
from tailmatch.datamodules import LabeledUnlabeledDataModule
from tailmatch.datamodules.arguments import MissingFileError, SettingsError, check_count
from tailmatch.datamodules.pseudo_labels.labels import PseudoLabels
from tailmatch.lightning_modules import SelfTraining
from tailmatch.lightning_modules.checkpoints.differences import check_same_classes
from tailmatch.lightning_modules.checkpoints.remote_files import is_url
from tailmatch.lightning_modules.checkpoints.trained_checkpoint import read_checkpoint
from tailmatch.lightning_modules.inference.predict_set import predict_set
from tailmatch.lightning_modules.networks import Network, NetworkFactory
from tailmatch.lightning_modules.networks.module_network import as_network
from tailmatch.lightning_modules.training.distributed import gather_interleaved
from tailmatch.lightning_modules.training.finite import NotFiniteError, check_file, infinite_by_design


class PseudoLabelGenerator(Callback):
    """Generator of the pseudo-labels of `SelfTraining`: a noisy-student loop in one run.

    The teacher makes the first labels. Without a teacher, the student's averaged weights make them after a warm-up.
    After that, every `every_n_epochs` epochs, the current averaged weights of the student label all unlabeled images
    anew. This is the "iterative training" of Xie et al. 2020 (arXiv 1911.04252), except that there each student starts
    from scratch, while here the same student continues.

    Labels are predicted without noise; the noise of the training is the method's `unlabeled_view`. If the method
    relabels, the labeled images are predicted in the same way, but not refined.

    On several devices each process labels its own images (index modulo world size). The labels are saved in the order
    of the images, so that a resumed run continues with them on any number of processes.

    Args:
        teacher: The path or URL of the teacher's checkpoint, made by this package. None: the student makes the labels.
        every_n_epochs: The number of epochs between two labelings. None: images are labeled once.
        warmup_epochs: The number of epochs on the labeled images alone, before the first labels. None: 0 with a
            teacher, otherwise `every_n_epochs`.
        teacher_network: The teacher's network, or a function that makes it for K classes. None: the teacher has the
            student's network.
        refiner: The refinement of the predictions of all unlabeled images before the labels are taken from them. None:
            no refinement.

    Raises:
        SettingsError: An argument is outside its domain, nothing says when to label, or `teacher_network` is given
            without `teacher`.
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
            check_count("every_n_epochs", every_n_epochs)
        if warmup_epochs is None:
            warmup_epochs = 0 if teacher is not None else every_n_epochs
        if warmup_epochs is None:
            raise SettingsError(
                "teacher, every_n_epochs and warmup_epochs are None, so that nothing would be labeled: give one of them"
            )
        check_count("warmup_epochs", warmup_epochs, 0)
        if teacher is None and teacher_network is not None:
            raise SettingsError("teacher_network is given without a teacher: name its checkpoint")
        self.teacher = teacher
        self.every_n_epochs = every_n_epochs
        self.warmup_epochs = warmup_epochs
        self.teacher_network = teacher_network
        self.refiner = refiner
        self._labels: PseudoLabels | None = None
        self._labeled: PseudoLabels | None = None  # predictions of the labeled images, to relabel them
        self._epoch = -1  # the epoch in which the labels were made

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Announce the labels to the method.

        Raises:
            SettingsError: The method is not `SelfTraining`, the data module has a pseudo-label file, or the warm-up is
                at least as long as the training.
            MissingFileError: The teacher's checkpoint does not exist.
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
        """Give the method the labels of the checkpoint, if the run was resumed.

        Raises:
            SettingsError: The labels are those of another unlabeled set.
        """
        if self._labels is None or not isinstance(pl_module, SelfTraining):
            return
        unlabeled = trainer.datamodule.unlabeled  # type: ignore[attr-defined]
        if len(self._labels.label) != len(unlabeled):
            raise SettingsError(
                f"the checkpoint has pseudo-labels of {len(self._labels.label)} images, and {len(unlabeled)} are "
                "unlabeled: resume on the same images"
            )
        pl_module.take_pseudo_labels(self._labels, self._labeled, known=True)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Label before the first step of an epoch in which labels are due."""
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
                network = as_network(self.teacher_network, pl_module.num_classes).to(pl_module.device)
            network.adapt_categories(data.category_values, evaluated=data.unlabeled.categories)
        load_teacher(network, checkpoint, data.class_names)
        return network

    # Checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Give the labels of all images, in their order, and the epoch in which they were made."""
        parts = {"labels": self._labels, "labeled": self._labeled}
        kept = {name: None if labels is None else dict(vars(labels)) for name, labels in parts.items()}
        return {"epoch": self._epoch, **kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the labels of a checkpoint."""
        self._epoch = state_dict["epoch"]
        kept = (state_dict.get(name) for name in ("labels", "labeled"))
        self._labels, self._labeled = (None if labels is None else PseudoLabels(**labels) for labels in kept)


def due_epoch(epoch: int, warmup_epochs: int, every_n_epochs: int | None) -> int:
    """Compute the last epoch up to `epoch` that begins with new labels; -1 if there is none."""
    since = epoch - warmup_epochs
    if since < 0:
        return -1
    return warmup_epochs if every_n_epochs is None else epoch - since % every_n_epochs


def load_teacher(network: Network, checkpoint: str, class_names: list[str]) -> None:
    """Load the evaluated (averaged) weights of a checkpoint into a network.

    Raises:
        SettingsError: The checkpoint has other classes, or another network.
        NotFiniteError: Weights of the checkpoint are NaN or infinite.
    """
    source = read_checkpoint(checkpoint)
    check_same_classes(source.class_names or class_names, class_names, f"teacher {checkpoint}")
    try:
        network.take_vocabulary(source.categories)
        weights = source.backbone | {f"head.{name}": tensor for name, tensor in source.head.items()}
        check_file(weights, f"teacher {checkpoint}", infinite_by_design(network))
        network.load_state_dict(weights)
    except NotFiniteError:
        raise
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise SettingsError(f"teacher {checkpoint} has another network ({reason}): set teacher_network") from error


def most_likely(probs: Tensor, total: int, keep_probs: bool) -> PseudoLabels:
    """Take the most likely class of each image as its pseudo-label, and gather the labels of all processes.

    Args:
        probs: `float32 [n, K]`, the predictions of this process; each row sums to 1.
        total: N, the number of images of all processes.
        keep_probs: Whether to keep the probabilities of all classes beside the labels.
    """
    confidence, label = probs.max(dim=1)
    rows = gathered(probs, total) if keep_probs else None
    return PseudoLabels(gathered(label, total), gathered(confidence, total), rows)


def gathered(rows: Tensor, total: int) -> Tensor:
    """Gather the rows `[n, ...]` of all processes in the order of the images, `[N, ...]` on the CPU."""
    parts = gather_interleaved(rows.reshape(len(rows), -1), total, torch.device("cpu"))
    return parts.reshape(total, *rows.shape[1:])
