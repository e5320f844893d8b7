"""The newest row of numbers of each image of a set, such as its loss or its features, as state that is saved."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules.pseudo_labels.label_memory import places
from tailmatch.lightning_modules.training.distributed import gather_rows


class RowMemory(nn.Module):
    """The newest row of D numbers of each of N images. All processes have those of all images.

    Args:
        width: Number D of a row's numbers.
        first: Each number of an image before its first row.

    Attributes:
        rows: `float32 [N + 1, D]`; the last row belongs to no image.
    """

    rows: Tensor

    def __init__(self, width: int, first: float = 0.0) -> None:
        super().__init__()
        self.first = first
        self.register_buffer("rows", torch.full((1, width), first))
        self.images: int | None = None

    def adapt(self, images: int) -> None:
        """Take the number N of images, and forget the rows of another number."""
        self.images = images
        self._resize(images)

    @torch.no_grad()
    def write(self, index: Tensor, rows: Tensor, chosen: Tensor | None = None) -> None:
        """Replace the rows of some images by those of this step, of all processes; call it on all of them.

        Of an image that is in the step several times, the last chosen row counts.

        Args:
            index: Positions of the images in their set, `int64 [B]`.
            rows: Rows `float32 [B, D]`.
            chosen: Which rows are written, `bool [B]`; None for all.

        Raises:
            SettingsError: A checkpoint had rows of another number of images.
        """
        if self.images is not None and len(self.rows) != self.images + 1:
            raise SettingsError(
                f"the checkpoint has numbers of {len(self.rows) - 1} images, and there are {self.images}: resume with "
                "the data of that run"
            )
        chosen = torch.ones_like(index, dtype=torch.bool) if chosen is None else chosen
        index, marks = gather_rows(torch.stack([index, chosen.long()], dim=1)).unbind(dim=1)
        place = places(index, marks.bool(), len(self.rows) - 1)
        written = (place < len(self.rows) - 1)[:, None]
        self.rows.index_copy_(0, place, torch.where(written, gather_rows(rows.float()), self.first))

    def make_room(self, state: Mapping[str, Any], prefix: str) -> None:
        """Take the size that the rows of a state dict have, before it is loaded: an evaluation knows no images.

        Args:
            state: State dict of the method.
            prefix: What the names of this module's tensors begin with, such as `features.`.
        """
        given = state.get(f"{prefix}rows")
        # A tensor that is not contiguous may be far larger than the file.
        if isinstance(given, Tensor) and given.dim() == 2 and len(given) and given.is_contiguous():
            self._resize(len(given) - 1)

    def _resize(self, images: int) -> None:
        if len(self.rows) != images + 1:
            self.rows = self.rows.new_full((images + 1, self.rows.shape[1]), self.first)
