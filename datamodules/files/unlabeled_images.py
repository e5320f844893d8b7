"""Images without labels, to predict with a trained checkpoint."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch

from tailmatch.datamodules.arguments import MissingFileError, SettingsError
from tailmatch.datamodules.bases.image_data import ImageDataModule
from tailmatch.datamodules.files.image_files import FileList, FileReader, OnBadImage
from tailmatch.datamodules.files.image_folder import image_files
from tailmatch.datamodules.files.table import TableFormat, read_table
from tailmatch.datamodules.files.table_columns import category_codes, relative_paths
from tailmatch.datamodules.images import ImageRows, Images

T = TypeVar("T")


class UnlabeledImages(ImageDataModule):
    """All images in a folder, at any depth, in the order of their paths; for `predict` alone.

    All files are decoded once, in parallel, before the first prediction, so that those that cannot be read are known
    before the work: into a cache that is removed at the end, since those of many predictions would fill the disk.
    `keep_cache` keeps it for another prediction of the same images; one that was there before is used, and stays.

    Args:
        root: The folder.
        class_names: Names of the classes that the network tells apart. None: `tailmatch predict` takes them from the
            checkpoint; elsewhere they must be given.
        image_size: Height and width that images are brought to, as in training. None: likewise.
        horizontal_flip: Whether a mirrored image keeps its class, for `Ensemble`'s `flip`. None: likewise; elsewhere
            true.
        cache_dir: See `ImageFiles`.
        cache_budget_gb: See `ImageFiles`. What does not fit is decoded a second time, batch by batch.
        keep_cache: Leave the cache on the disk.
        on_bad_image: See `ImageFiles`. Images that are left out have no row in the file of predictions.
        eval_batch_size: Images per step and process.
        num_workers: Loader processes: for images that are not cached.

    Raises:
        MissingFileError: The folder is missing.
        SettingsError: It has no images, or an argument is missing or out of its domain.
    """

    def __init__(
        self,
        root: str,
        class_names: list[str] | None = None,
        *,
        image_size: int | None = None,
        horizontal_flip: bool | None = None,
        cache_dir: str | None = None,
        cache_budget_gb: float = 32.0,
        keep_cache: bool = False,
        on_bad_image: OnBadImage = "error",
        eval_batch_size: int = 256,
        num_workers: int = 0,
    ) -> None:
        super().__init__(eval_batch_size=eval_batch_size, num_workers=num_workers)
        self.class_names = self._given("class_names", class_names)
        size = self._given("image_size", image_size)
        self.horizontal_flip = horizontal_flip is not False
        self.reader = FileReader(Path(root), size, cache_dir, cache_budget_gb, on_bad_image)
        self.keep_cache = keep_cache
        self._listed = self.list_files()
        self._images: Images | None = None
        self._built: tuple[Path, ...] = ()

    def list_files(self) -> FileList:
        """The images; their targets are -1."""
        root = self.reader.root
        if not root.is_dir():
            raise MissingFileError(f"root {root.resolve()} is no folder")
        keys = image_files(root, "")
        if not keys:
            raise SettingsError(f"root {root.resolve()} has no images in it")
        return FileList(keys, _unknown(keys))

    def describe(self, key: str) -> str:
        """See `ImageFiles.describe`."""
        return str(self.reader.root / key)

    @property
    def predicted(self) -> ImageRows:
        """See `ImageDataModule.predicted`."""
        images = self._load()
        return ImageRows(images, torch.arange(len(images.targets)), labeled=False)

    def left_out(self) -> list[str]:
        """See `ImageDataModule.left_out`."""
        kept = set(self._load().keys or ())
        return [key for key in self._listed.keys if key not in kept]

    def prepare_data(self) -> None:
        """Build the cache, on one process."""
        if not self.keep_cache:
            paths = self.reader.cache_of(self._listed.keys, self.describe)
            self._built = tuple(path for path in paths if not path.exists())
        self._load()

    def setup(self, stage: str) -> None:
        """Read the images.

        Raises:
            SettingsError: It is no prediction.
        """
        if stage != "predict":
            raise SettingsError(
                f"{type(self).__name__} has images without labels, and {stage} needs labels: it is for predict alone"
            )
        self._load()

    def teardown(self, stage: str) -> None:
        """Remove the cache."""
        for path in (*self._built, *(path.with_suffix(".lock") for path in self._built)):
            with suppress(OSError):  # where a file in use cannot be removed, it stays, as with keep_cache
                path.unlink(missing_ok=True)
        self._built = ()

    def on_exception(self, exception: BaseException) -> None:
        """Remove the cache."""
        self.teardown("predict")

    def _load(self) -> Images:
        if self._images is None:
            self._images = self.reader.read({"predict": self._listed}, self.describe, self.num_workers)["predict"]
        return self._images

    def _given(self, name: str, value: T | None) -> T:
        if value is None:
            raise SettingsError(
                f"{name} is null: give it, since no checkpoint says it (`tailmatch predict --ckpt_path FILE` takes it "
                "from a file of a run)"
            )
        return value


class UnlabeledTable(UnlabeledImages):
    """The images that a CSV, TSV or Parquet file lists, in its order; for `predict` alone.

    Args:
        table: See `ImageTable`, as the others; there is no column of targets.
        root: See there.
        image_column: See there.
        category_columns: See there; None: those of `levels` that the table has.
        columns: See there.
        delimiter: See there.
        encoding: See there.
        image_suffix: See there.
        levels: The levels that the network was trained with; `tailmatch predict` takes them from the checkpoint.
        **kwargs: The other arguments of `UnlabeledImages`.

    Raises:
        MissingFileError: The table is missing.
        SettingsError: It is no such table (it names row and column), or an argument is missing or out of its domain.
    """

    def __init__(
        self,
        table: str,
        root: str | None = None,
        *,
        image_column: str = "image",
        category_columns: list[str] | None = None,
        columns: list[str] | None = None,
        delimiter: str | None = None,
        encoding: str = "utf-8-sig",
        image_suffix: str = "",
        levels: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        needed, optional = category_columns or [], [] if category_columns is not None else levels or []
        layout = TableFormat(columns, delimiter, encoding)
        self.table = read_table(Path(table), layout, image_column, needed, optional)
        self.image_column = image_column
        self.image_suffix = image_suffix
        self.category_values, self.categories = category_codes(self.table, list(self.table.coded))
        super().__init__(str(Path(table).parent) if root is None else root, **kwargs)

    def list_files(self) -> FileList:
        """See `UnlabeledImages.list_files`."""
        root = self.reader.root
        keys = relative_paths(self.table, self.image_column, root, root, self.image_suffix)
        categories = None if self.categories is None else torch.from_numpy(self.categories)
        return FileList(keys, _unknown(keys), categories)

    def describe(self, key: str) -> str:
        """See `ImageFiles.describe`: the row that lists the file."""
        return f"{self.table.place(self._listed.keys.index(key), self.image_column)}: {key}"


def _unknown(keys: Sequence[str]) -> torch.Tensor:
    return torch.full((len(keys),), -1)
