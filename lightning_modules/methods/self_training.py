"""Self-training on pseudo-labels that a teacher predicted (Yang and Xu 2020, arXiv 2006.07529, section 2)."""

from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor
from torch.nn import functional

from tailmatch.datamodules.arguments import SettingsError, check_at_least, check_share
from tailmatch.datamodules.images import ImageRows
from tailmatch.datamodules.pseudo_labels.labels import PseudoLabels
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.losses import CrossEntropy
from tailmatch.lightning_modules.methods.supervised import Supervised
from tailmatch.lightning_modules.pseudo_labels.observer import SelfTrainingObserver
from tailmatch.lightning_modules.pseudo_labels.relabeling import check_labeled_predictions, relabel
from tailmatch.lightning_modules.pseudo_labels.selection import select
from tailmatch.lightning_modules.views import View


class SelfTraining(Supervised):
    """`Supervised` on labeled and pseudo-labeled images together.

        loss = sum_i w_i l_i / sum_i w_i        over both streams, which pass through the network together

    with w = 1 for a labeled image, `unlabeled_weight` for a selected pseudo-labeled one and 0 for the others, times
    the class weights. This is the mean over a batch of YyzHarry/imbalanced-semi-self `train_semi.py`, which draws from
    the union of both sets; the data module's `unlabeled_ratio` gives the same mixture if it is the ratio of the sets
    (5 there). The paper's weight of the unlabeled loss, omega, is 1 in that code. Margins and class weights follow
    the counts of labeled and selected images together (`dataset/imbalance_cifar.py`, `num_per_cls_dict`).

    Labels come from the data module's `pseudo_labels` (a file of `PseudoLabelWriter`) or from a
    `PseudoLabelGenerator`. They are selected when they arrive, once, among all unlabeled images. Observers are told of
    it (`add_observer`): `tailmatch.callbacks.SelfTrainingReport` prints and logs it, on the command line by itself.

    With `relabel_threshold` they also replace labels of labeled images that the teacher contradicts (`relabeling.py`),
    always from the given ones; the report lists them in `relabeled.csv` in the run folder.

    Args:
        num_classes: The number of classes; the command line takes it from the data module.
        soft: Train on the teacher's probs instead of its most likely class; needs the loss `CrossEntropy`, and a
            file with `probs`.
        unlabeled_weight: omega.
        threshold: Least confidence of a pseudo-label; 0 uses all, as the authors' code.
        top_k_per_class: The most confident pseudo-labels of each class, no more than this many; None for all.
        unlabeled_view: View of the unlabeled images; None is `view`, as there. `StrongView` makes a noisy student.
        relabel_threshold: Least confidence of a prediction that replaces a given label; None keeps them all. Which
            images are drawn follows the given labels all the same (the data module's `labeled_sampling`): with
            `balanced`, a class is then seen more or less often than the others, by the labels that it gained or lost.
        **kwargs: The arguments of `Supervised`.
    """

    selected_share: Tensor
    streams = ("labeled", "unlabeled")
    reads_pseudo_labels = True
    progress_bar = ("loss", "selected")

    def __init__(
        self,
        num_classes: int,
        *,
        soft: bool = False,
        unlabeled_weight: float = 1.0,
        threshold: float = 0.0,
        top_k_per_class: int | None = None,
        unlabeled_view: View | None = None,
        relabel_threshold: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, **kwargs)
        check_at_least("unlabeled_weight", unlabeled_weight, 0)
        check_share("threshold", threshold)
        if top_k_per_class is not None:
            check_at_least("top_k_per_class", top_k_per_class, 1)
        if relabel_threshold is not None:
            check_share("relabel_threshold", relabel_threshold)
        if soft and not isinstance(self.loss, CrossEntropy):
            raise SettingsError(
                f"soft is true and the loss is {type(self.loss).__name__}; soft labels need CrossEntropy"
            )
        self.soft = soft
        self.unlabeled_weight = unlabeled_weight
        self.threshold = threshold
        self.top_k_per_class = top_k_per_class
        self.unlabeled_view = unlabeled_view or self.view
        self.relabel_threshold = relabel_threshold
        self.register_buffer("selected_share", torch.zeros(()), persistent=False)
        self._observers: list[SelfTrainingObserver] = []
        self._expects_pseudo_labels = False
        # Of this process' unlabeled images, whose index modulo the world size is its rank:
        self._target: Tensor | None = None
        self._weights = torch.empty(0)
        self._relabeled: Tensor | None = None  # of all labeled images

    def add_observer(self, observer: SelfTrainingObserver) -> None:
        """Let a callback know of every labeling from now on, once."""
        if observer not in self._observers:
            self._observers.append(observer)

    def expect_pseudo_labels(self) -> None:
        """Say, before a fit begins, that `take_pseudo_labels` will be called in it: it may then begin without any."""
        self._expects_pseudo_labels = True

    def on_train_start(self) -> None:
        """Take the data module's pseudo-labels.

        Raises:
            SettingsError: There are none, and nobody said that they will come; or they do not fit `relabel_threshold`.
        """
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if data.pseudo_labels is not None:
            check_labeled_predictions(data, self.relabel_threshold)
            self.take_pseudo_labels(data.pseudo_labels, data.labeled_predictions)
        elif not self._expects_pseudo_labels:
            raise SettingsError(
                "SelfTraining has no pseudo-labels: give the data module's pseudo_labels a file that `tailmatch "
                "predict` wrote, or add tailmatch.callbacks.PseudoLabelGenerator"
            )

    def take_pseudo_labels(self, labels: PseudoLabels, labeled: PseudoLabels | None = None) -> None:
        """Train on these pseudo-labels of all unlabeled images from now on, and relabel by those of all labeled ones.

        Raises:
            SettingsError: They have no probs and `soft` needs them, or there are none to relabel with.
        """
        if self.soft and labels.probs is None:
            raise SettingsError(
                "soft is true and the pseudo-labels have no probs: write them with PseudoLabelWriter's probs"
            )
        selected = select(labels.label, labels.confidence, self.threshold, self.top_k_per_class)
        counts = torch.bincount(labels.label[selected], minlength=self.num_classes)
        labeled_counts = self.class_counts
        if self.relabel_threshold is not None:
            rows: ImageRows = self.trainer.datamodule.labeled  # type: ignore[attr-defined]
            relabeling = relabel(rows.targets, labeled, self.relabel_threshold)
            self._relabeled = relabeling.target(self.soft).to(self.device)
            labeled_counts = torch.bincount(relabeling.label, minlength=self.num_classes).to(self.device)
            for observer in self._observers:
                observer.observe_relabeling(self, relabeling, rows)
        self.adapt_loss(labeled_counts + counts.to(self.device))
        mine = slice(self.global_rank, None, self.trainer.world_size)
        target = labels.probs if self.soft and labels.probs is not None else labels.label.clamp(min=0)
        self._target = target[mine].to(self.device)
        self._weights = self.unlabeled_weight * selected[mine].to(self.device, torch.float32)
        self.selected_share.fill_(selected.float().mean())
        if not selected.any():
            rank_zero_warn(f"none of {len(selected)} pseudo-labels is selected: threshold is {self.threshold}")
        for observer in self._observers:
            observer.observe_selection(self, selected, counts)

    def make_views(self, batch: Batch) -> Batch:
        """One view of both streams."""
        batch["unlabeled"]["view"] = self.unlabeled_view(batch["unlabeled"]["image"])
        return super().make_views(batch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`. Before the first pseudo-labels, the labeled images teach alone."""
        images, target = batch["labeled"]["weak"], batch["labeled"]["target"]
        if self._relabeled is not None:
            target = self._relabeled[batch["labeled"]["index"]]
        elif self.soft:
            target = functional.one_hot(target, self.num_classes).float()
        weights = torch.ones(len(images), device=target.device)
        if self._target is not None:
            unlabeled = batch["unlabeled"]
            rows = unlabeled["index"] // self.trainer.world_size
            images = torch.cat([images, unlabeled["view"]])
            target = torch.cat([target, self._target[rows]])
            weights = torch.cat([weights, self._weights[rows]])
        loss = self.mean_loss(images, target, weights)
        self.track(loss=loss, selected=self.selected_share)
        return loss
