"""Self-training on pseudo-labels that a teacher predicted (Yang and Xu 2020, arXiv 2006.07529, section 2)."""

from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.nn import functional

from datamodules.pseudo_labels import PseudoLabels
from lightning_modules.arguments import check_at_least, check_share
from lightning_modules.image_module import Batch
from lightning_modules.losses import CrossEntropy
from lightning_modules.pseudo_label_selection import select
from lightning_modules.supervised import Supervised

LISTED_CLASSES = 30
"""Most classes whose selected pseudo-labels are reported one by one."""


class SelfTraining(Supervised):
    """`Supervised` on labeled and pseudo-labeled images together.

        loss = sum_i w_i l_i / sum_i w_i        over both streams, which pass through the network together

    with w = 1 for a labeled image, `unlabeled_weight` for a selected pseudo-labeled one and 0 for the others, times
    the class weights. This is the mean over a batch of YyzHarry/imbalanced-semi-self `train_semi.py`, which draws from
    the union of both sets; the data module's `unlabeled_ratio` gives the same mixture if it is the ratio of the sets
    (5 there). The paper's weight of the unlabeled loss, omega, is 1 in that code. Margins and class weights follow
    the counts of labeled and selected images together (`dataset/imbalance_cifar.py`, `num_per_cls_dict`).

    Labels come from the data module's `pseudo_labels` (a file of `PseudoLabelWriter`) or from a
    `PseudoLabelGenerator`. They are selected when they arrive, once, among all unlabeled images.

    Args:
        soft: Train on the teacher's probs instead of its most likely class; needs the loss `CrossEntropy`, and a
            file with `probs`.
        unlabeled_weight: omega.
        threshold: Least confidence of a pseudo-label; 0 uses all, as the authors' code.
        top_k_per_class: The most confident pseudo-labels of each class, no more than this many; None for all.
        unlabeled_view: View of the unlabeled images; None is `view`, as there. `StrongView` makes a noisy student.
        **kwargs: The arguments of `Supervised`.
    """

    selected_share: Tensor
    streams = ("labeled", "unlabeled")
    reads_pseudo_labels = True
    progress_bar = ("loss", "selected")

    def __init__(
        self,
        soft: bool = False,
        unlabeled_weight: float = 1.0,
        threshold: float = 0.0,
        top_k_per_class: int | None = None,
        unlabeled_view: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_at_least("unlabeled_weight", unlabeled_weight, 0)
        check_share("threshold", threshold)
        if top_k_per_class is not None:
            check_at_least("top_k_per_class", top_k_per_class, 1)
        if soft and not isinstance(self.loss, CrossEntropy):
            raise ValueError(f"soft is true and the loss is {type(self.loss).__name__}; soft labels need CrossEntropy")
        self.soft = soft
        self.unlabeled_weight = unlabeled_weight
        self.threshold = threshold
        self.top_k_per_class = top_k_per_class
        self.unlabeled_view = unlabeled_view or self.view
        self.register_buffer("selected_share", torch.zeros(()), persistent=False)
        self.awaits_pseudo_labels = False
        # Of this process' unlabeled images, whose index modulo the world size is its rank:
        self._target: Tensor | None = None
        self._weights = torch.empty(0)

    def on_train_start(self) -> None:
        """Take the data module's pseudo-labels.

        Raises:
            ValueError: There are none, and no callback will bring them.
        """
        labels = self.trainer.datamodule.pseudo_labels  # type: ignore[attr-defined]
        if labels is not None:
            self.take_pseudo_labels(labels)
        elif not self.awaits_pseudo_labels:
            raise ValueError(
                "SelfTraining has no pseudo-labels: give the data module's pseudo_labels a file that `tailmatch "
                "predict` wrote, or add callbacks.PseudoLabelGenerator"
            )

    def take_pseudo_labels(self, labels: PseudoLabels) -> None:
        """Train on these pseudo-labels of all unlabeled images from now on.

        Raises:
            ValueError: They have no probs, and `soft` needs them.
        """
        if self.soft and labels.probs is None:
            raise ValueError(
                "soft is true and the pseudo-labels have no probs: write them with PseudoLabelWriter's probs"
            )
        selected = select(labels.label, labels.confidence, self.threshold, self.top_k_per_class)
        counts = torch.bincount(labels.label[selected], minlength=self.num_classes)
        self.adapt_loss(self.class_counts + counts.to(self.device))
        mine = slice(self.global_rank, None, self.trainer.world_size)
        target = labels.probs if self.soft and labels.probs is not None else labels.label.clamp(min=0)
        self._target = target[mine].to(self.device)
        self._weights = self.unlabeled_weight * selected[mine].to(self.device, torch.float32)
        self.selected_share.fill_(selected.float().mean())
        self._report(counts.tolist(), len(selected))

    def make_views(self, batch: Batch) -> Batch:
        """One view of both streams."""
        batch["unlabeled"]["view"] = self.unlabeled_view(batch["unlabeled"]["image"])
        return super().make_views(batch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`. Before the first pseudo-labels, the labeled images teach alone."""
        images, target = batch["labeled"]["weak"], batch["labeled"]["target"]
        if self.soft:
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

    def _report(self, counts: list[int], total: int) -> None:
        """Print and log how many pseudo-labels of each class were selected, of all unlabeled images."""
        if not sum(counts):
            rank_zero_warn(f"none of {total} pseudo-labels is selected: threshold is {self.threshold}")
        listed = dict(list(zip(self.class_names, counts, strict=True))[:LISTED_CLASSES])
        if self.trainer.is_global_zero:
            classes = ", ".join(f"{name} {count}" for name, count in listed.items())
            more = ", ..." if len(counts) > len(listed) else ""
            print(
                f"pseudo-labels: {sum(counts):,} of {total:,} unlabeled images selected ({classes}{more})", flush=True
            )
        scalars = {f"pseudo/selected_class/{name}": float(count) for name, count in listed.items()}
        for logger in self.trainer.loggers:
            logger.log_metrics({"pseudo/selected": sum(counts) / total, **scalars}, step=self.trainer.global_step)
