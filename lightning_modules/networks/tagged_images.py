"""Images that carry tags (their categories) through everything that methods do with views."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(eq=False)
class TaggedImages:
    """A batch of images with a tag for each, which a method handles like the images alone.

    It is passed wherever a method passes views: `torch.cat`, `torch.split` and indexing select the same rows of both,
    and `torch.lerp` mixes both with the same weights, since tags have four dimensions as images have. All other torch
    functions raise: an operation on pixels belongs in `make_views`, which sees plain images.

    Args:
        images: Images `[B, 3, H, W]`.
        tags: Tags `[B, T, 1, 1]`.

    Raises:
        ValueError: `tags` has another shape.
    """

    images: Tensor
    tags: Tensor

    def __post_init__(self) -> None:
        size = self.images.shape[0]  # len() would be a constant in an exported program
        if self.tags.ndim != 4 or self.tags.shape[0] != size:
            raise ValueError(f"tags are {list(self.tags.shape)}; they must be [{size}, T, 1, 1]")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice | Tensor) -> "TaggedImages":
        if not isinstance(rows, slice | Tensor):
            raise TypeError(f"tagged images are indexed by a slice or a tensor of rows, not by {rows!r}")
        return TaggedImages(self.images[rows], self.tags[rows])

    @property
    def shape(self) -> torch.Size:
        """Shape of the images."""
        return self.images.shape

    @property
    def ndim(self) -> int:
        """Number of dimensions of the images, 4."""
        return self.images.ndim

    @property
    def device(self) -> torch.device:
        """Device of the images."""
        return self.images.device

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Apply one of the supported torch functions to images and tags."""
        operation = _OPERATIONS.get(func)
        if operation is None:
            name = getattr(func, "__name__", repr(func))
            known = ", ".join(sorted(function.__name__ for function in _OPERATIONS))
            raise TypeError(
                f"{name} has no meaning for images with categories; there are {known}, indexing by rows and len: "
                "work on plain images in make_views, or on `.images`"
            )
        return operation(*args, **(kwargs or {}))


def untagged(images: Tensor | TaggedImages) -> Tensor:
    """Return the images alone, `[B, 3, H, W]`."""
    return images.images if isinstance(images, TaggedImages) else images


def _cat(tensors: Sequence[TaggedImages], dim: int = 0) -> TaggedImages:
    _check_all_tagged("cat", tensors)
    _check_rows("cat", dim)
    return TaggedImages(torch.cat([part.images for part in tensors]), torch.cat([part.tags for part in tensors]))


def _split(tensor: TaggedImages, split_size_or_sections: int | list[int], dim: int = 0) -> tuple[TaggedImages, ...]:
    _check_rows("split", dim)
    images = torch.split(tensor.images, split_size_or_sections)
    tags = torch.split(tensor.tags, split_size_or_sections)
    return tuple(TaggedImages(*parts) for parts in zip(images, tags, strict=True))


def _lerp(input: TaggedImages, end: TaggedImages, weight: float | Tensor) -> TaggedImages:
    """Mix images and tags; the weight is `[B, 1, 1, 1]`, or one number for all."""
    _check_all_tagged("lerp", (input, end))
    return TaggedImages(torch.lerp(input.images, end.images, weight), torch.lerp(input.tags, end.tags, weight))


def _check_all_tagged(name: str, parts: Sequence[object]) -> None:
    if not all(isinstance(part, TaggedImages) for part in parts):
        kinds = ", ".join(type(part).__name__ for part in parts)
        raise TypeError(f"torch.{name} of {kinds}: all images have categories, or none has")


def _check_rows(name: str, dim: int) -> None:
    if dim != 0:
        raise TypeError(f"torch.{name} in dimension {dim}: images with categories are rows of dimension 0")


_OPERATIONS: dict[Any, Callable[..., Any]] = {torch.cat: _cat, torch.lerp: _lerp, torch.split: _split}
