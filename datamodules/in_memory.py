"""A data module of the user's own images in memory: arrays, tensors, lists, or torch data sets."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tailmatch.datamodules.arguments import SettingsError, check_channel_statistics, check_names
from tailmatch.datamodules.bases.image_data import ChannelStatistics
from tailmatch.datamodules.bases.labeled_unlabeled import LabeledUnlabeledDataModule
from tailmatch.datamodules.files.pixels import ACCEPTED, fitted_pixels, height_and_width, stacked_pixels
from tailmatch.datamodules.images import Images, Sources
from tailmatch.datamodules.splitting.long_tail import ClassCounts, LabeledFraction

Size: TypeAlias = int | tuple[int, int] | None

PART = 1024
"""The number of images whose statistics are computed at once, which bounds the memory."""


class InMemory(LabeledUnlabeledDataModule):
    """Images in memory, or that fit into memory, given as arrays, tensors, lists or torch data sets.

    A set of images is one of these:

    * an array or a tensor of uint8: `[N, H, W, 3]`, `[N, 3, H, W]`, or `[N, H, W]` if the images are gray;
    * a list of PIL images, arrays, tensors or paths;
    * a map-style torch `Dataset` whose items are `(image, label)`, such as torchvision's without a transform.

    All images are read once, when the data module is made.

    Args:
        images: The training images.
        targets: The class of each training image: numbers from 0, or names; -1 or None if it is not known. None: the
            `Dataset` has them.
        unlabeled: More training images, whose classes are not known; the labels of a `Dataset` are ignored. None: all
            unlabeled images come from `images`.
        val: The validation images: `(images, targets)`, or a `Dataset`. None: there are none, unless `val_holdout`
            draws some from `images`.
        test: The test images: `(images, targets)`, or a `Dataset`. None: there are none, unless `test_holdout` draws
            some from `images`.
        class_names: The names of the classes, by number. None: the `classes` of the `Dataset`, otherwise the names
            among the targets in alphabetical order, otherwise the numbers.
        image_size: The height and width of the images in pixels, one number or both: the largest middle part of that
            shape is resized to it. None: all images have the same size, and keep it.
        horizontal_flip: Whether a mirrored image is a valid image of its class.
        mean: The mean of each channel in [0, 1], for the network's normalization. None: that of the training images.
        std: The standard deviation of each channel, in (0, 1]. None: that of the training images.
        class_counts: How many images of each class become labeled and unlabeled. None: if there are training images of
            unknown class, all others are labeled; otherwise `LabeledFraction`, a tenth of each class labeled and the
            rest unlabeled.
        **kwargs: The other arguments of `LabeledUnlabeledDataModule`.

    Raises:
        SettingsError: Images or targets are of an unknown kind, or do not fit together.
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
        check_channel_statistics(mean, std)
        if class_names is not None:
            check_names("class_names", class_names)
        pixels, labels = labeled_set("images", images, targets, image_size)
        self.class_names = list(class_names or getattr(images, "classes", None) or names_of(labels))
        train = Images(pixels, codes("targets", labels, self.class_names))
        size = (pixels.shape[2], pixels.shape[3])
        if unlabeled is not None:
            more = image_set("unlabeled", unlabeled, size if image_size is not None else None)
            if more.shape[2:] != pixels.shape[2:]:
                raise SettingsError(
                    f"images have the size {size}, and unlabeled {tuple(more.shape[2:])}: give image_size, to which "
                    "all are resized"
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
    """Read the pixels `uint8 [N, 3, H, W]` and the N labels of a set.

    Args:
        name: The name of the set, for messages.
        images: The images, or a `Dataset` of images and labels.
        targets: The labels. None: the `Dataset` has them.
        image_size: The height and width of the images, see `InMemory`.

    Raises:
        SettingsError: The set is not one of images with labels.
    """
    if isinstance(images, Dataset):
        if targets is not None:
            raise SettingsError(f"{name} is a {type(images).__name__}, which has its own targets: leave targets out")
        items = list(_items_of(name, images))
        if not all(isinstance(item, tuple | list) and len(item) == 2 for item in items):
            raise SettingsError(
                f"{name} is a {type(images).__name__} whose items are not (image, label): give images and targets "
                "separately, or images without labels as unlabeled"
            )
        return _read(name, [item[0] for item in items], image_size), [item[1] for item in items]
    if targets is None:
        raise SettingsError(
            f"{name} has no targets: give them too (val and test as a pair, (images, targets)), or give images whose "
            "class is not known as unlabeled"
        )
    pixels = _read(name, images, image_size)
    labels = _listed("targets" if name == "images" else f"targets of {name}", targets)
    if len(labels) != len(pixels):
        raise SettingsError(f"{name} has {len(pixels)} images and {len(labels)} targets; it needs one for each image")
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
    """Read the pixels `uint8 [N, 3, H, W]` of a set, and ignore its labels."""
    if isinstance(images, Dataset):
        images = [item[0] if isinstance(item, tuple | list) else item for item in _items_of(name, images)]
    return _read(name, images, image_size)


def codes(name: str, labels: Sequence[Any], class_names: Sequence[str]) -> Tensor:
    """Convert labels to class numbers, `int64 [N]`, -1 where the class is not known.

    Raises:
        SettingsError: A label is not one of the classes.
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
    """Find the names of the classes: the labels in alphabetical order, or the numbers from 0 to the largest label.

    Raises:
        SettingsError: Names and numbers are mixed, or all labels are unknown.
    """
    known: set[Any] = {_plain(label) for label in labels} - {None, -1}
    if known and all(isinstance(label, str) for label in known):
        return sorted(known)
    if known and all(isinstance(label, int) and label >= 0 for label in known):
        return [str(label) for label in range(max(known) + 1)]
    shown = ", ".join(sorted(repr(label) for label in known)[:5]) or "all unknown"
    raise SettingsError(f"targets are {shown}; they must be numbers from 0, or names")


def channel_statistics(pixels: Tensor) -> tuple[ChannelStatistics, ChannelStatistics]:
    """Compute the mean and standard deviation (at least 1/255) of each channel of `uint8 [N, 3, H, W]`, in [0, 1]."""
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
        raise SettingsError(f"{name} is a {type(images).__name__}; it must have a length and return items by index")
    return (images[place] for place in range(len(images)))


def _read(name: str, images: Any, image_size: Size) -> Tensor:
    """Read the pixels `uint8 [N, 3, H, W]` of a set; without an `image_size` they are not changed."""
    try:
        if isinstance(images, np.ndarray | Tensor):
            stack = stacked_pixels(images)
            if not len(stack):
                raise SettingsError("there are no images")
            if image_size is None or height_and_width(image_size, ()) == tuple(stack.shape[2:]):
                return stack.contiguous()
            images = list(stack)
        if isinstance(images, str) or not isinstance(images, Iterable):
            raise SettingsError(
                f"a {type(images).__name__} is no set of images; {ACCEPTED}, or a list of these, or a Dataset"
            )
        listed = list(images)
        if not listed:
            raise SettingsError("there are no images")
        height, width = height_and_width(image_size, listed)
        return torch.stack([fitted_pixels(image, height, width) for image in listed])
    except SettingsError as error:
        raise SettingsError(f"{name}: {error}") from error
