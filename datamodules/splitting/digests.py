"""Digests by which two runs see that their images are the same, without their pixels."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.images import ImageRows

OTHER_LABELS = {
    "label_noise": "other labels than label_noise gives now: resume with the label_noise and the seed of its run",
    "added_labels": "other added_labels than the data has now: resume with the same file and alpha",
    "pseudo_labels": "other pseudo_labels than {file} has now: resume with the same file",
}
"""What a checkpoint was trained with, and what to do, where a digest of labels is another one."""


def rows_digest(rows: ImageRows) -> str:
    """Return the SHA-256 of which images a set has, and of which class each is.

    Images from files are told by their keys, so that a data set may lie elsewhere; others by their rows of the pool.
    """
    sha = hashlib.sha256(rows.targets.numpy().tobytes())
    if rows.images.keys is None:
        sha.update(rows.rows.numpy().tobytes())
    else:
        keys = rows.images.keys
        sha.update("\0".join(keys[row] for row in rows.rows.tolist()).encode("utf-8", "surrogatepass"))
    return sha.hexdigest()


def digest(*tensors: Tensor) -> str:
    """Return the SHA-256 of the numbers of tensors, one after the other."""
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(tensor.numpy().tobytes() + b"|")
    return sha.hexdigest()


@dataclass
class DataDigests:
    """Digests of the data of a run, which its checkpoints have, to notice a resume or test with other data.

    Attributes:
        pool: The digest of the classes of the training pool.
        split: The digest of which images are labeled, unlabeled or held out; empty before the split is drawn.
        pseudo_labels: The digest of the pseudo-labels; empty without any.
        label_noise: The digest of the noisy labels; empty without noise.
        added_labels: The digest of the grown labeled set; empty without added labels.
    """

    pool: str = ""
    split: str = ""
    pseudo_labels: str = ""
    label_noise: str = ""
    added_labels: str = ""

    def check(self, saved: Mapping[str, str], fitting: bool, seed: int, file: Path | None) -> None:
        """Refuse those of a checkpoint that was trained on other data.

        Args:
            saved: The digests of the checkpoint, by name; former versions had fewer.
            fitting: Whether the training is resumed. Other labels, or the split of another pool, matter to that alone.
            seed: The seed of the split, for the message.
            file: The file of the pseudo-labels, for the message.

        Raises:
            SettingsError: The labeled, unlabeled or held-out images of the checkpoint are others, so that training
                images would be evaluated on; or a fit is resumed with other labels or pseudo-labels.
        """
        if saved["split"] != self.split and (saved["pool"] == self.pool or fitting):
            raise SettingsError(
                "the checkpoint was trained on another split of the data: use its seed (data seed or seed_everything, "
                f"here {seed}), class_counts and holdouts, or start a new run"
            )
        for name, said in OTHER_LABELS.items():
            if fitting and saved.get(name, "") != getattr(self, name):
                raise SettingsError(f"the checkpoint was trained with {said.format(file=file)}, or start a new run")
