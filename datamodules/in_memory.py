"""The user's own images, from arrays, tensors or a torch data set."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.bases.image_data import ChannelStatistics
from tailmatch.datamodules.bases.labeled_unlabeled import LabeledUnlabeledDataModule
from tailmatch.datamodules.files.pixels import ACCEPTED, fitted_pixels, height_and_width, stacked_pixels
from tailmatch.datamodules.images import Images, Sources
from tailmatch.datamodules.splitting.long_tail import ClassCounts, LabeledFraction

Size: TypeAlias = int | tuple[int, int] | None

PART = 1024
"""Images whose statistics are computed at once: bounds the memory."""


class InMemory(LabeledUnlabeledDataModule):
    """Images that lie in memory, or that fit into it.

    Sets of images are arrays or tensors of uint8 (`[N, H, W, 3]`, `[N, 3, H, W]`, or gray `[N, H, W]`), lists of PIL
    images, arrays, tensors or paths, or any map-style torch `Dataset` whose items are `(image, label)`, such as those
    of torchvision without a transform. Everything is read here, once.

    Args:
        images: The training images.
        targets: Their classes: numbers from 0, or names; -1 or None where unknown. Not for a `Dataset`, which has its
            own.
        unlabeled: More training images, whose classes are not known; labels of a `Dataset` are not looked at.
        val: Validation images, `(images, targets)` or a `Dataset`; see `val_holdout` too.
        test: Test images, likewise.
        class_names: Names of the classes by number. None: those of the `Dataset` (`classes`), or all names among the
            targets in alphabetical order, or the numbers.
        image_size: Height and width that images are brought to: the middle of that shape, resized. One number for both,
            or both. None: all images have one size, and stay as they are.
        horizontal_flip: Whether a mirrored image is a valid image of its class.
        mean: Channel means in [0, 1] for the network's normalization; None: those of the training images.
        std: Channel standard deviations; likewise.
        class_counts: How many images of each class become labeled and unlabeled. None: where there are training images
            of unknown class, all others are labeled; else a tenth of every class is labeled, the rest unlabeled.
        **kwargs: The other arguments of `LabeledUnlabeledDataModule`.

    Raises:
        SettingsError: Images or targets are of another kind, or do not fit together.
    """

    def __init__(
        self,
        images: Any,
        targets: Any = None,
        *,
        unlabeled: Any = None,
        val: Any = None,
        test: Any = None,
        class_names: Sequence[str] | None = None,
        image_size: Size = None,
        horizontal_flip: bool = True,
        mean: ChannelStatistics | None = None,
        std: ChannelStatistics | None = None,
        class_counts: ClassCounts | None = None,
        **kwargs: Any,
    ) -> None:
        pixels, labels = labeled_set("images", images, targets, image_size)
        self.class_names = list(class_names or getattr(images, "classes", None) or names_of(labels))
        train = Images(pixels, codes("targets", labels, self.class_names))
        size = (pixels.shape[2], pixels.shape[3])
        if unlabeled is not None:
            more = image_set("unlabeled", unlabeled, size if image_size is not None else None)
            if more.shape[2:] != pixels.shape[2:]:
                raise SettingsError(
                    f"images are {size} and unlabeled {tuple(more.shape[2:])}: give the image_size that all are "
                    "brought to"
                )
            pixels = torch.cat([pixels, more])
            train = Images(pixels, torch.cat([train.targets, torch.full((len(more),), -1)]))
        self._sources = Sources(train, val=self._own("val", val, image_size), test=self._own("test", test, image_size))
        self.horizontal_flip = horizontal_flip
        own_mean, own_std = channel_statistics(pixels)
        self.mean, self.std = mean or own_mean, std or own_std
        if class_counts is None and bool((train.targets < 0).any()):
            class_counts = LabeledFraction(1.0)
        super().__init__(class_counts=class_counts, **kwargs)

    def load(self) -> Sources:
        """See `LabeledUnlabeledDataModule.load`."""
        return self._sources

    def _own(self, name: str, given: Any, image_size: Size) -> Images | None:
        if given is None:
            return None
        images, targets = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
        pixels, labels = labeled_set(name, images, targets, image_size)
        return Images(pixels, codes(f"targets of {name}", labels, self.class_names))


def labeled_set(name: str, images: Any, targets: Any, image_size: Size) -> tuple[Tensor, list[Any]]:
    """Pixels `uint8 [N, 3, H, W]` and N labels of a set.

    Raises:
        SettingsError: It is no set of images with labels.
    """
    if isinstance(images, Dataset):
        if targets is not None:
            raise SettingsError(f"{name} is a {type(images).__name__}, which has its own targets: leave targets out")
        items = list(_items_of(name, images))
        if not all(isinstance(item, tuple | list) and len(item) == 2 for item in items):
            raise SettingsError(
                f"{name} is a {type(images).__name__} whose items are not (image, label): give images and targets "
                "apart, or images without labels as unlabeled"
            )
        return _read(name, [item[0] for item in items], image_size), [item[1] for item in items]
    if targets is None:
        raise SettingsError(
            f"{name} has no targets: give both, and images whose class is not known as unlabeled; of val and test both "
            "as (images, targets)"
        )
    pixels = _read(name, images, image_size)
    labels = _listed("targets" if name == "images" else f"targets of {name}", targets)
    if len(labels) != len(pixels):
        raise SettingsError(f"{name} are {len(pixels)} images, and there are {len(labels)} targets")
    return pixels, labels


def _listed(name: str, targets: Any) -> list[Any]:
    """Targets one by one: there is one number or name for each image."""
    if isinstance(targets, np.ndarray | Tensor):
        if targets.ndim != 1:
            raise SettingsError(
                f"{name} are {list(targets.shape)}; they must be [N], a number or a name for each image"
            )
        return list(targets.tolist())
    if isinstance(targets, str | bytes | Mapping) or not isinstance(targets, Iterable):
        raise SettingsError(f"{name} are a {type(targets).__name__}; they must be a list, an array or a tensor")
    return list(targets)


def image_set(name: str, images: Any, image_size: Size) -> Tensor:
    """Pixels `uint8 [N, 3, H, W]` of a set, whose labels are not looked at."""
    if isinstance(images, Dataset):
        images = [item[0] if isinstance(item, tuple | list) else item for item in _items_of(name, images)]
    return _read(name, images, image_size)


def codes(name: str, labels: Sequence[Any], class_names: Sequence[str]) -> Tensor:
    """Numbers `int64 [N]` of labels, -1 where unknown.

    Raises:
        SettingsError: One of them is no class.
    """
    places: dict[Any, int] = {name: place for place, name in enumerate(class_names)}
    known = {**places, **{place: place for place in range(len(class_names))}, None: -1, -1: -1}
    plain = [_plain(label) for label in labels]
    strange = sorted({repr(label) for label in plain if label not in known})
    if strange:
        raise SettingsError(
            f"{name} have {', '.join(strange[:5])}, and there are {len(class_names)} classes: "
            f"{', '.join(class_names[:10])}{', ...' if len(class_names) > 10 else ''} (or 0 to {len(class_names) - 1})"
        )
    return torch.tensor([known[label] for label in plain])


def names_of(labels: Sequence[Any]) -> list[str]:
    """Names of the classes among labels: those in alphabetical order, or the numbers from 0 to the largest.

    Raises:
        SettingsError: There are both, or none.
    """
    known: set[Any] = {_plain(label) for label in labels} - {None, -1}
    if known and all(isinstance(label, str) for label in known):
        return sorted(known)
    if known and all(isinstance(label, int) and label >= 0 for label in known):
        return [str(label) for label in range(max(known) + 1)]
    shown = ", ".join(sorted(repr(label) for label in known)[:5]) or "nothing but unknown ones"
    raise SettingsError(f"targets are {shown}; they must be numbers from 0, or names")


def channel_statistics(pixels: Tensor) -> tuple[ChannelStatistics, ChannelStatistics]:
    """Mean and standard deviation of each channel of `uint8 [N, 3, H, W]`, in [0, 1]; a std is 1 / 255 at least."""
    sums, squares = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for part in torch.split(pixels, PART):
        values = part.double()
        sums += values.sum(dim=(0, 2, 3))
        squares += values.square().sum(dim=(0, 2, 3))
    count = pixels.numel() / 3
    mean = sums / count
    std = (squares / count - mean.square()).clamp(min=1).sqrt()
    red, green, blue = (mean / 255).tolist()
    red_std, green_std, blue_std = (std / 255).tolist()
    return (red, green, blue), (red_std, green_std, blue_std)


def _plain(label: Any) -> Any:
    single = isinstance(label, np.generic) or (isinstance(label, Tensor) and label.numel() == 1)
    plain = label.item() if single else label
    if plain is not None and not isinstance(plain, str | int | float):
        raise SettingsError(f"a target is {label!r}; it must be a number or a name")
    return plain


def _items_of(name: str, images: Dataset[Any]) -> Iterable[Any]:
    if not hasattr(images, "__len__") or not hasattr(images, "__getitem__"):
        raise SettingsError(f"{name} is a {type(images).__name__}; it must have a length and items by number")
    return (images[place] for place in range(len(images)))


def _read(name: str, images: Any, image_size: Size) -> Tensor:
    """Pixels `uint8 [N, 3, H, W]`; images of one size stay as they are."""
    try:
        if isinstance(images, np.ndarray | Tensor):
            stack = stacked_pixels(images)
            if not len(stack):
                raise SettingsError("there are none")
            if image_size is None or height_and_width(image_size, ()) == tuple(stack.shape[2:]):
                return stack.contiguous()
            images = list(stack)
        if isinstance(images, str) or not isinstance(images, Iterable):
            raise SettingsError(f"they are a {type(images).__name__}; {ACCEPTED}, or a list of these, or a Dataset")
        listed = list(images)
        if not listed:
            raise SettingsError("there are none")
        height, width = height_and_width(image_size, listed)
        return torch.stack([fitted_pixels(image, height, width) for image in listed])
    except SettingsError as error:
        raise SettingsError(f"{name}: {error}") from error
