"""SimMixMatch: MixMatch with a contrastive loss over the views of each unlabeled image."""

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from tailmatch.datamodules.arguments import check_at_least, check_choice, check_count, check_positive
from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.losses import nt_xent
from tailmatch.lightning_modules.methods.mixmatch import MixMatch


class SimMixMatch(MixMatch):
    r"""MixMatch with SimCLR's contrastive loss, which attracts the views of an unlabeled image to each other.

        loss = loss of MixMatch + lambda_s * NT-Xent(views of unlabeled images)

    SimCLR is arXiv 2002.05709; `nt_xent` generalizes its loss to K views. The contrastive loss uses the passes that
    guess labels, with gradient; the guessed labels have no gradient. On several devices, each process contrasts its
    views with those of all processes.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        lambda_s: Weight of the contrastive loss.
        contrast_temperature: Temperature of the contrastive loss, above 0; 0.1 is best in SimCLR's table 5.
        contrast_on: What is contrasted: the classifier's `logits`, or a `projection` of the features by two layers, as
            in SimCLR.
        projection_dim: Size of the projection; 128 in SimCLR. It has no effect with `logits`.
        views: Number K of weak views of each unlabeled image, at least 2.
        **kwargs: Other arguments of `MixMatch`.

    Raises:
        SettingsError: An argument lies outside its domain.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        lambda_s: float = 1.0,
        contrast_temperature: float = 0.1,
        contrast_on: Literal["logits", "projection"] = "logits",
        projection_dim: int = 128,
        views: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, views=views, **kwargs)
        check_count("views", views, 2)
        check_at_least("lambda_s", lambda_s, 0)
        check_count("projection_dim", projection_dim)
        check_choice("contrast_on", contrast_on, ("logits", "projection"))
        check_positive("contrast_temperature", contrast_temperature)
        self.lambda_s = lambda_s
        self.contrast_temperature = contrast_temperature
        self.projection: nn.Module | None = None
        if contrast_on == "projection":
            width = self.network.feature_dim
            self.projection = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, projection_dim))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        labeled, unlabeled = batch["labeled"], batch["unlabeled"]
        with self.side_pass():
            features = [self.network.features(view) for view in unlabeled["weak"]]
        logits = [self.network.head(f).float() for f in features]
        embeddings = logits if self.projection is None else [self.projection(f).float() for f in features]
        loss_contrast = self.contrast(torch.stack(embeddings))
        loss, parts = self.mixed_loss(labeled, unlabeled, [x.detach() for x in logits])
        loss = loss + self.lambda_s * loss_contrast
        self.track(loss=loss, loss_contrast=loss_contrast, **parts)
        return loss

    def contrast(self, embeddings: Tensor) -> Tensor:
        """Compute NT-Xent `[]` of this process' embeddings `[K, U, D]` among those of all processes."""
        everything, process = embeddings[None], 0
        if self.trainer.world_size > 1:
            everything, process = cast(Tensor, self.all_gather(embeddings, sync_grads=True)), self.global_rank
        return nt_xent(embeddings, self.contrast_temperature, everything, process)
