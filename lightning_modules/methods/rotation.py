"""Rotation prediction (Gidaris et al., ICLR 2018, arXiv 1803.07728)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tailmatch.lightning_modules.bases.image_module import Batch
from tailmatch.lightning_modules.bases.pretraining import Pretraining
from tailmatch.lightning_modules.views import View, WeakView
from tailmatch.lightning_modules.views.base import to_device
from tailmatch.lightning_modules.views.rotation import rotate_quarters

ROTATIONS = 4


class RotationPretraining(Pretraining):
    r"""Rotation prediction: learns to recognize by how many quarter turns an image was rotated.

        loss = CE(turns, head(features(rotate(view(image), turns))))

    Each image gets one random rotation, as in YyzHarry/imbalanced-semi-self `pretrain_rot.py` (arXiv 2006.07529);
    Gidaris et al. use all four rotations of it. Each rotation is equally frequent in a batch, up to one image if four
    does not divide the batch size. (The authors' `utils.rotation` shuffles up to four more turns into the list before
    it is cut to the batch size, so that their numbers differ by a few.) Images are cropped and flipped before they are
    rotated.

    Args:
        num_classes: Number of classes K; the command line takes it from the data module.
        all_rotations: Whether each image is used in all four rotations, for four times the cost of a step.
        view: View of an image before it is rotated; None is `WeakView()`. The authors pad with black before cropping,
            and the weak view pads by reflection.
        **kwargs: Other arguments of `Pretraining`.
    """

    progress_bar = ("loss", "rotation_accuracy")

    def __init__(
        self, num_classes: int, *, all_rotations: bool = False, view: View | None = None, **kwargs: Any
    ) -> None:
        super().__init__(num_classes, **kwargs)
        self.all_rotations = all_rotations
        self.view = view or WeakView()
        self.network.head = nn.Linear(self.network.feature_dim, ROTATIONS)

    def make_views(self, batch: Batch) -> Batch:
        """Make a view of each image and rotate it."""
        pool = batch["pool"]
        images = self.view(pool["image"])
        if self.all_rotations:
            turns = torch.arange(ROTATIONS).repeat_interleave(len(images))
            images = images.repeat(ROTATIONS, 1, 1, 1)
        else:
            turns = balanced_turns(len(images))
        pool["turns"] = to_device(turns, images.device)
        pool["rotated"] = rotate_quarters(images, pool["turns"])
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """See `ImageModule.training_step`."""
        turns = batch["pool"]["turns"]
        logits = self.network(batch["pool"]["rotated"]).float()
        loss = functional.cross_entropy(logits, turns)
        self.track(loss=loss, rotation_accuracy=(logits.argmax(dim=1) == turns).float().mean())
        return loss


def balanced_turns(size: int) -> Tensor:
    """Draw quarter turns `int64 [size]` in random order, each of the four `size / 4` times, rounded at random."""
    return torch.randperm(ROTATIONS)[torch.arange(size) % ROTATIONS][torch.randperm(size)]
