"""Pseudo-labels in memory, and how those of a file are attached to a set of images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.images import ImageRows, Images

NAMED_KEYS = 5
"""How many keys an error names; it counts the others."""

ROW_ARRAYS = ("key", "size", "digest", "label", "confidence", "probs")
"""The arrays of a file with one entry for each row, in the order in which they are written."""

Array = NDArray[Any]


@dataclass(frozen=True)
class PseudoLabels:
    """The pseudo-labels of a set of N images, in its order.

    Attributes:
        label: `int64 [N]`, the label of each image, -1 where it has none.
        confidence: `float32 [N]`, the probability of the label.
        probs: `float32 [N, K]`, the probabilities of all classes. None: the file has none.
    """

    label: Tensor
    confidence: Tensor
    probs: Tensor | None = None


@dataclass(frozen=True)
class Origin:
    """The checkpoint and the data that a pseudo-label file was made with; `pseudo_labels/files.py` says more.

    Attributes:
        class_names: The names of the K classes.
        checkpoint: The digest of the checkpoint.
        fingerprint: The digest of the pool. None: each row has the size of its file instead (format 2).
        pool: The number of images of the pool. None: as above.
    """

    class_names: list[str]
    checkpoint: str
    fingerprint: str | None = None
    pool: int | None = None

    @classmethod
    def of(cls, images: Images, class_names: Sequence[str], checkpoint: str = "") -> "Origin":
        """Describe pseudo-labels of images of a pool."""
        if images.has_files:
            return cls(list(class_names), checkpoint)
        return cls(list(class_names), checkpoint, images.fingerprint(), len(images.pixels))


@dataclass(frozen=True)
class PseudoLabelFile:
    """A pseudo-label file in memory; `pseudo_labels/files.py` describes its arrays."""

    key: Array
    label: Array
    confidence: Array
    probs: Array | None
    origin: Origin
    size: Array | None = None
    digest: Array | None = None

    def arrays(self) -> dict[str, Array]:
        """Return the arrays that have an entry for each row, by name."""
        return {name: getattr(self, name) for name in ROW_ARRAYS if getattr(self, name) is not None}

    def take(self, rows: Array) -> "PseudoLabelFile":
        """Take some rows, given their places or a mask."""
        some: dict[str, Any] = {name: array[rows] for name, array in self.arrays().items()}
        return replace(self, **some)

    def align(self, rows: ImageRows, class_names: Sequence[str], beside: ImageRows | None = None) -> PseudoLabels:
        """Bring the labels into the order of a set, by the keys of its images.

        The split may be another one than when the file was written. Images without a row in the file stay without a
        label, so that rows may be removed from a file.

        Args:
            rows: The set: the unlabeled images, or, if `beside` is given, the labeled or the unlabeled ones.
            class_names: The names of the K classes.
            beside: The other one of these two sets, whose rows in the file are skipped.

        Raises:
            SettingsError: The file is for other classes or another data set, or it labels images of neither set. In
                format 2, rows of other data sets can be left out before (see `matching.within`).
        """
        _check_classes(self.origin.class_names, list(class_names))
        images = rows.images
        if self.size is not None:
            self._check_has_files(images)
        elif self.origin.fingerprint != images.fingerprint():
            raise SettingsError(
                f"it was made for another data set, of {self.origin.pool} images; this one has {len(images.pixels)}"
                + ("" if self.origin.pool != len(images.pixels) else ", other ones or of another size")
                + ": predict the pseudo-labels of these images"
            )
        pool_rows = self._pool_rows(images)
        place = torch.full((len(images.pixels),), -1)
        place[rows.rows] = torch.arange(len(rows))
        known = place >= 0
        if beside is not None:
            known[beside.rows] = True
        elsewhere = (~known[pool_rows]).nonzero().squeeze(1).tolist()
        if elsewhere:
            others = "not unlabeled here but labeled, held out" if beside is None else "held out here"
            raise SettingsError(
                f"{len(elsewhere)} of its {len(pool_rows)} images are {others} or left out "
                f"({some(self.key[elsewhere].tolist())}): use the split that it was predicted with (seed, "
                "class_counts, holdouts), remove these rows, or predict again"
            )
        here = (place[pool_rows] >= 0).numpy()
        places = place[pool_rows][here]
        label, confidence = torch.full((len(rows),), -1), torch.zeros(len(rows))
        label[places] = torch.from_numpy(self.label[here].astype(np.int64))
        confidence[places] = torch.from_numpy(self.confidence[here].astype(np.float32))
        if self.probs is None:
            return PseudoLabels(label, confidence)
        probs = torch.zeros(len(rows), len(class_names))
        probs[places] = torch.from_numpy(self.probs[here].astype(np.float32))
        return PseudoLabels(label, confidence, probs)

    def _check_has_files(self, images: Images) -> None:
        """Refuse images without files for a file of format 2, whose rows name files."""
        if not images.has_files:
            raise SettingsError("it labels image files, and the images of this data set are not from files")

    def _pool_rows(self, images: Images) -> Tensor:
        """Find the row of the pool that each row of the file names, `int64 [n]`, all different."""
        if images.keys is None:
            rows = torch.from_numpy(self.key.astype(np.int64))
        else:
            known = {key: row for row, key in enumerate(images.keys)}
            rows = torch.tensor([known.get(key, -1) for key in self.key.tolist()], dtype=torch.long)
        strange = ((rows < 0) | (rows >= len(images.pixels))).nonzero().squeeze(1).tolist()
        if strange:
            raise SettingsError(
                f"{len(strange)} keys name no image of this data set: {some(self.key[strange].tolist())}"
            )
        repeated = len(rows) - len(set(rows.tolist()))
        if repeated:
            raise SettingsError(f"{repeated} of its rows name an image that has a row already: keep one of each")
        return rows


def _check_classes(there: list[str], here: list[str]) -> None:
    if there != here:
        raise SettingsError(
            f"it was made for other classes: only there {sorted(set(there) - set(here))[:10]}, only here "
            f"{sorted(set(here) - set(there))[:10]}"
            + ("" if set(here) != set(there) else "; the same names in another order")
        )


def some(keys: list[Any]) -> str:
    """Name the first keys, and count the others."""
    more = f" and {len(keys) - NAMED_KEYS} more" if len(keys) > NAMED_KEYS else ""
    return ", ".join(str(key) for key in keys[:NAMED_KEYS]) + more
