"""Self-training on pseudo-labels that a teacher predicted (Yang and Xu 2020, arXiv 2006.07529, section 2)."""

from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor
from torch.nn import functional

from tailmatch.datamodules.arguments import SettingsError, check_at_least, check_count, check_share
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
    """Supervised training on labeled and pseudo-labeled images together.

        loss = sum_i w_i l_i / sum_i w_i        over both streams, which pass through the network together

    where w is 1 for a labeled image, `unlabeled_weight` for a selected pseudo-labeled image and 0 for the others, times
    the class weights. This is the mean over a batch of YyzHarry/imbalanced-semi-self `train_semi.py`, which draws from
    the union of both sets; the mixture is the same if the data module's `unlabeled_ratio` is the ratio of the sizes of
    the sets (5 in that code). The paper's weight omega of the unlabeled loss is 1 in that code. Margins and class
    weights follow the counts of labeled and selected images together (`dataset/imbalance_cifar.py`,
    `num_per_cls_dict`).

    Pseudo-labels come from the data module's `pseudo_labels` (a file that `PseudoLabelWriter` wrote) or from a
    `PseudoLabelGenerator`. Whenever new ones arrive, they are selected once, among all unlabeled images. Observers
    (`add_observer`) are told of the selection; `tailmatch.callbacks.SelfTrainingReport`, which the command line adds to
    every run, prints and logs it.

    With `relabel_threshold`, confident predictions also replace the labels of labeled images that they contradict
    (`relabel`). Each relabeling starts from the given labels. Sampling also follows the given labels: with
    `labeled_sampling: balanced`, a class that gained or lost labels is drawn more or less often than the others. The
    report lists the changes in `relabeled.csv` in the run folder.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        soft: Whether the targets are the teacher's probabilities instead of its most likely class. This needs the loss
            `CrossEntropy`, and pseudo-labels with `probs`.
        unlabeled_weight: Weight omega, at least 0, of a selected pseudo-labeled image.
        threshold: Smallest confidence, in [0, 1], of a selected pseudo-label; 0 uses all, as the authors' code does.
        top_k_per_class: Largest number of selected pseudo-labels of each class, the most confident first; None for no
            limit.
        unlabeled_view: View of the unlabeled images; None is `view`, as in the authors' code. `StrongView` makes a
            noisy student.
        relabel_threshold: Smallest confidence, in [0, 1], of a prediction that replaces a given label; None keeps all
            labels. The data module's `labeled_sampling` still follows the given labels.
        **kwargs: Other arguments of `Supervised`.

    Raises:
        SettingsError: An argument lies outside its domain, or `soft` is true and the loss is not `CrossEntropy`.
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
            check_count("top_k_per_class", top_k_per_class)
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
        # Rows of this process' unlabeled images only, those whose index modulo the world size is its rank:
        self._target: Tensor | None = None
        self._weights = torch.empty(0)
        self._relabeled: Tensor | None = None  # targets of all labeled images

    def add_observer(self, observer: SelfTrainingObserver) -> None:
        """Register an observer that is told of every labeling. Adding it again has no effect."""
        if observer not in self._observers:
            self._observers.append(observer)

    def expect_pseudo_labels(self) -> None:
        """Allow a fit to begin without pseudo-labels, since `take_pseudo_labels` will be called during it."""
        self._expects_pseudo_labels = True

    def on_train_start(self) -> None:
        """Take the data module's pseudo-labels.

        Raises:
            SettingsError: There are none, and `expect_pseudo_labels` was not called; or there are predictions of
                labeled images without `relabel_threshold`, or the reverse.
        """
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if data.pseudo_labels is not None:
            check_labeled_predictions(data, self.relabel_threshold)
            resumed = self.trainer.ckpt_path is not None
            self.take_pseudo_labels(data.pseudo_labels, data.labeled_predictions, known=resumed)
        elif not self._expects_pseudo_labels:
            raise SettingsError(
                "SelfTraining has no pseudo-labels: give the data module's pseudo_labels a file that `tailmatch "
                "predict` wrote, or add tailmatch.callbacks.PseudoLabelGenerator"
            )

    def take_pseudo_labels(
        self, labels: PseudoLabels, labeled: PseudoLabels | None = None, *, known: bool = False
    ) -> None:
        """Train on new pseudo-labels from the present step on.

        Args:
            labels: Pseudo-labels of all unlabeled images.
            labeled: Predictions of all labeled images, for `relabel_threshold`; None without it.
            known: Whether they are those of a resumed run, of which the observers were told when they were new.

        Raises:
            SettingsError: `soft` is true and `labels` have no probs, or `relabel_threshold` is set and `labeled` is
                None.
        """
        if self.soft and labels.probs is None:
            raise SettingsError(
                "soft is true and the pseudo-labels have no probs: write them with PseudoLabelWriter's probs"
            )
        observers = [] if known else self._observers
        selected = select(labels.label, labels.confidence, self.threshold, self.top_k_per_class)
        counts = torch.bincount(labels.label[selected], minlength=self.num_classes)
        labeled_counts = self.class_counts
        if self.relabel_threshold is not None:
            rows: ImageRows = self.trainer.datamodule.labeled  # type: ignore[attr-defined]
            relabeling = relabel(rows.targets, labeled, self.relabel_threshold)
            self._relabeled = relabeling.target(self.soft).to(self.device)
            labeled_counts = torch.bincount(relabeling.label, minlength=self.num_classes).to(self.device)
            for observer in observers:
                observer.observe_relabeling(self, relabeling, rows)
        self.adapt_loss(labeled_counts + counts.to(self.device))
        mine = slice(self.global_rank, None, self.trainer.world_size)
        target = labels.probs if self.soft and labels.probs is not None else labels.label.clamp(min=0)
        self._target = target[mine].to(self.device)
        self._weights = self.unlabeled_weight * selected[mine].to(self.device, torch.float32)
        self.selected_share.fill_(selected.float().mean())
        if not selected.any():
            rank_zero_warn(f"none of {len(selected)} pseudo-labels is selected: threshold is {self.threshold}")
        for observer in observers:
            observer.observe_selection(self, labels, selected)

    def make_views(self, batch: Batch) -> Batch:
        """Make one view of every image."""
        batch["unlabeled"]["view"] = self.unlabeled_view(batch["unlabeled"]["image"])
        return super().make_views(batch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`. Until the first pseudo-labels arrive, it uses the labeled images alone."""
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
