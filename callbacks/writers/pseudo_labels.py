"""Write predictions as a pseudo-label file."""

import hashlib
from pathlib import Path

from pytorch_lightning import Trainer
from torch import Tensor

from tailmatch.callbacks.writers.prediction_shards import PredictionShards, chunk_rows
from tailmatch.datamodules import LabeledUnlabeledDataModule
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.bases.image_data import ImageDataModule
from tailmatch.datamodules.pseudo_labels.columns import Column, identity_columns
from tailmatch.datamodules.pseudo_labels.files import check_output, write_pseudo_labels
from tailmatch.datamodules.pseudo_labels.labels import Origin
from tailmatch.lightning_modules import ImageClassifier
from tailmatch.lightning_modules.checkpoints.remote_files import file_digest, local_file


class PseudoLabelWriter(PredictionShards):
    """Writer of the label and confidence of every unlabeled image (or of another `predict_set`) during `predict`.

    The file is described in `datamodules/pseudo_labels/files.py`; pass it to the data module as `pseudo_labels`. It
    only appears when it is complete, and has the same bytes on any number of processes (see `PredictionShards`).

    `tailmatch predict` uses one with these defaults if the configuration has no writer and `--output` names an `.npz`
    file or, without `--output`, the data has a training set.

    Args:
        output: Path of the file, `.npz` or `.parquet`; None is `pseudo_labels.npz` in the run folder.
        probs: Whether to write the probabilities of all classes too, for soft labels.
        overwrite: Whether to replace the file if it exists; otherwise that is an error.
    """

    default_name = "pseudo_labels.npz"
    noun = "pseudo-labels"

    def __init__(self, output: str | None = None, probs: bool = False, overwrite: bool = False) -> None:
        super().__init__(output, overwrite)
        self.probs = probs

    def check_output(self, path: Path) -> None:
        """See `PredictionShards.check_output`.

        Raises:
            SettingsError: The suffix is not that of a pseudo-label file, or the file exists and may not be replaced.
        """
        check_output(path, self.overwrite)

    def check_data(self, data: ImageDataModule) -> None:
        """See `PredictionShards.check_data`.

        Raises:
            SettingsError: The images have no files, and are not those of a training set.
        """
        if not isinstance(data, LabeledUnlabeledDataModule) and not data.predicted.images.has_files:
            raise SettingsError(
                f"PseudoLabelWriter labels image files or images of a training set, and {type(data).__name__} has "
                "neither: use tailmatch.callbacks.PredictionWriter"
            )

    def rows(self, probs: Tensor) -> dict[str, Tensor]:
        """See `PredictionShards.rows`."""
        confidence, label = probs.max(dim=1)
        return {"label": label, "confidence": confidence} | ({"probs": probs} if self.probs else {})

    def write(self, path: Path, columns: dict[str, Column], trainer: Trainer, data: ImageDataModule) -> None:
        """See `PredictionShards.write`."""
        images = data.predicted
        method: ImageClassifier = trainer.lightning_module  # type: ignore[assignment]  # whatever predicts classes is one
        digest = checkpoint_digest(method.evaluated_checkpoint())
        identity = identity_columns(images, chunk_rows(data))
        write_pseudo_labels(path, identity | columns, Origin.of(images.images, data.class_names, digest))


def checkpoint_digest(checkpoint: str | list[str] | None) -> str:
    """Compute the digest by which a pseudo-label file identifies the checkpoint, or the members of an ensemble.

    Args:
        checkpoint: Value of `ImageClassifier.evaluated_checkpoint`.

    Returns:
        A hexadecimal SHA-256; empty if there is no checkpoint.
    """
    if checkpoint is None:
        return ""
    if isinstance(checkpoint, str):
        return file_digest(local_file(checkpoint))
    members = "".join(file_digest(local_file(member)) for member in checkpoint)
    return hashlib.sha256(members.encode()).hexdigest()
