"""Write predictions as a table."""

from collections.abc import Sequence
from pathlib import Path

from pytorch_lightning import Trainer
from torch import Tensor

from tailmatch.callbacks.writers.prediction_shards import PredictionShards
from tailmatch.callbacks.writers.prediction_tables import DELIMITERS, FIELDS, PARQUET, Field, write_table
from tailmatch.datamodules.arguments import SettingsError, check_count
from tailmatch.datamodules.bases.image_data import ImageDataModule
from tailmatch.datamodules.output_files import pyarrow_for, whole_file
from tailmatch.datamodules.pseudo_labels.columns import Column

TOP = 5
"""Number of classes that are ranked by default, as in the top-5 accuracy of the ImageNet challenge."""


class PredictionWriter(PredictionShards):
    """Writer of a table with one row per predicted image, in their order.

    The suffix of the file sets the format: `.csv`, `.tsv` or `.txt` (with tabs) in UTF-8, or `.parquet`, with the same
    columns. Numbers in text have six significant digits. The file only appears when it is complete, and has the same
    bytes on any number of processes (see `PredictionShards`).

    `tailmatch predict` uses one with these defaults if the configuration has no writer and `--output` names a table or,
    without `--output`, the data has no training set.

    Args:
        output: Path of the file; None is `predictions.csv` in the run folder.
        columns: Columns to write. `key`: the image's path in the data set, or its position if there are no files; `id`:
            the file's name without folder and suffix; `label` and `confidence`: name and probability of the most likely
            class; `class_index`: the index of that class, from 0; `runners_up`: `label_2`, `confidence_2` and so on up
            to `top`; `probs`: `probs_<class>` for every class.
        top: Number of classes that `runners_up` ranks, including the most likely one, at least 2; None is 5. With fewer
            classes, all are ranked.
        header: Whether the first row of a text file contains the column names. Many competitions require
            `columns: [label]` or `columns: [id, label]` without a header.
        overwrite: Whether to replace the file if it exists; otherwise that is an error.

    Raises:
        SettingsError: `columns` is empty or has an unknown or repeated name; or `top` is below 2, or given without
            `runners_up`.
    """

    default_name = "predictions.csv"

    def __init__(
        self,
        output: str | None = None,
        columns: Sequence[Field] = ("key", "label", "confidence", "runners_up"),
        top: int | None = None,
        header: bool = True,
        overwrite: bool = False,
    ) -> None:
        super().__init__(output, overwrite)
        unknown = [name for name in columns if name not in FIELDS]
        if not columns or unknown or len(set(columns)) < len(columns):
            raise SettingsError(f"columns are {list(columns)}; they must be some of {', '.join(FIELDS)}, each once")
        if top is not None:
            check_count("top", top, 2)
            if "runners_up" not in columns:
                raise SettingsError(f"top is {top}, and columns are {list(columns)}: add runners_up, or leave top out")
        self.columns = list(columns)
        self.top = TOP if top is None else top
        self.header = header

    def check_output(self, path: Path) -> None:
        """See `PredictionShards.check_output`.

        Raises:
            SettingsError: The suffix is not that of a table, or Parquet is to be written without a header.
        """
        if path.suffix not in (*DELIMITERS, PARQUET):
            raise SettingsError(f"output is {path}; its name must end in {', '.join(DELIMITERS)} or {PARQUET}")
        super().check_output(path)
        if path.suffix == PARQUET:
            pyarrow_for(path)
            if not self.header:
                raise SettingsError(f"header is false and output is {path}: Parquet always names its columns")

    def check_data(self, data: ImageDataModule) -> None:
        """See `PredictionShards.check_data`.

        Raises:
            SettingsError: A file name cannot be written to Parquet, or unreadable images were left out and no column
                names the image.
        """
        if self._path.suffix == PARQUET:
            _check_utf8(self._path, data.predicted.images.keys or ())
        left_out = data.left_out()
        if left_out and not {"key", "id"} & set(self.columns):
            raise SettingsError(
                f"columns are {self.columns}, so that a row belongs to an image by its place alone, and "
                f"unreadable images were left out ({len(left_out)}): replace them, or add the column key"
            )

    def rows(self, probs: Tensor) -> dict[str, Tensor]:
        """See `PredictionShards.rows`; of classes with equal probabilities, the first one ranks higher."""
        ranked = probs.sort(dim=1, descending=True, stable=True)
        kept = self.top if "runners_up" in self.columns else 1
        rows = {"label": ranked.indices[:, :kept], "confidence": ranked.values[:, :kept]}
        return rows | ({"probs": probs} if "probs" in self.columns else {})

    def write(self, path: Path, columns: dict[str, Column], trainer: Trainer, data: ImageDataModule) -> None:
        """See `PredictionShards.write`."""
        names = data.class_names
        shown = [column for field in self.columns for column in FIELDS[field](names, min(self.top, len(names)))]
        chunks = (
            dict(zip(columns, arrays, strict=True))
            for arrays in zip(*(column.chunks() for column in columns.values()), strict=True)
        )
        with whole_file(path) as partial:
            write_table(partial, path.suffix, shown, chunks, self.header)


def _check_utf8(path: Path, keys: Sequence[str]) -> None:
    for key in keys:
        try:
            key.encode()
        except UnicodeEncodeError as error:
            raise SettingsError(
                f"output is {path}, and the name of the image {key!r} is not UTF-8: rename it, or write .csv"
            ) from error
