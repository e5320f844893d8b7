"""Images without labels, to predict with a trained checkpoint."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch

from tailmatch.datamodules.arguments import MissingFileError, SettingsError, check_names
from tailmatch.datamodules.bases.image_data import ImageDataModule
from tailmatch.datamodules.files.image_files import FileList, FileReader, OnBadImage
from tailmatch.datamodules.files.listing import LeftOut, image_files
from tailmatch.datamodules.files.table import DELIMITERS, TableFormat, read_table
from tailmatch.datamodules.files.table_columns import category_codes, relative_paths
from tailmatch.datamodules.images import ImageRows, Images

T = TypeVar("T")


class UnlabeledImages(ImageDataModule):
    """Images without labels, all those in a folder at any depth in the order of their paths; for `predict` alone.

    Hidden files and folders are left out; a warning counts files of other kinds and links to folders.

    All files are decoded once, in parallel, before the first prediction, so that files that cannot be read are found at
    once. The cache is removed at the end, since the caches of many predictions would fill the disk, unless
    `keep_cache` is true. A cache that was there before is used, and stays.

    Args:
        root: The folder of the images, or the path of a single image.
        class_names: The names of the classes that the network tells apart. None: `tailmatch predict` takes them from
            the checkpoint; in Python they must be given.
        image_size: The height and width of the images in pixels, as in training. None: `tailmatch predict` takes it
            from the checkpoint; in Python it must be given.
        horizontal_flip: Whether a mirrored image keeps its class, for the `flip` of `Ensemble`. None: `tailmatch
            predict` takes it from the checkpoint; in Python it is true.
        cache_dir: The folder of the cache. None: `~/.cache/tailmatch`.
        cache_budget_gb: The most disk space that the pixels may take, in gigabytes (1e9 bytes); 0: no cache. A larger
            set is decoded a second time, batch by batch.
        keep_cache: Whether the cache stays on the disk, for another prediction of the same images.
        on_bad_image: What happens to files that cannot be read: `error` ends the program and names all of them, `skip`
            leaves them out of the predictions and names them in a warning.
        eval_batch_size: The number of images per step and process.
        num_workers: The number of loader processes; they help only for images that are not cached.

    Raises:
        MissingFileError: The folder is missing.
        SettingsError: The folder has no images, or an argument is missing or out of its domain.
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
        check_names("class_names", self.class_names)
        size = self._given("image_size", image_size)
        self.horizontal_flip = horizontal_flip is not False
        self.reader = FileReader(Path(root), size, cache_dir, cache_budget_gb, on_bad_image)
        self.keep_cache = keep_cache
        self._listed = self.list_files()
        self._images: Images | None = None
        self._built: tuple[Path, ...] = ()

    def list_files(self) -> FileList:
        """List the images; their targets are -1."""
        root, left_out = self.reader.root, LeftOut()
        if root.is_file():
            if root.suffix.lower() in (*DELIMITERS, ".parquet"):
                raise SettingsError(
                    f"root {root.resolve()} is a table: use UnlabeledTable (--data UnlabeledTable --data.table {root})"
                )
            self.reader.root = root.parent
            return FileList([root.name], _unknown([root.name]))
        if not root.is_dir():
            raise MissingFileError(f"root {root.resolve()} is no folder and no image")
        keys = image_files(root, "", left_out)
        if not keys:
            has = f" (it has {left_out})" if str(left_out) else ""
            raise SettingsError(f"root {root.resolve()} has no images in it{has}")
        left_out.warn(root)
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
        """Decode the images into the cache, on one process."""
        if not self.keep_cache:
            paths = self.reader.cache_of(self._listed.keys, self.describe)
            self._built = tuple(path for path in paths if not path.exists())
        self._load()

    def setup(self, stage: str) -> None:
        """Read the images.

        Raises:
            SettingsError: The stage is not `predict`.
        """
        if stage != "predict":
            raise SettingsError(
                f"{type(self).__name__} has images without labels, and {stage} needs labels: it is for predict alone"
            )
        self._load()

    def teardown(self, stage: str) -> None:
        """Remove the cache, unless it stays."""
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
    """Images without labels, listed in a CSV, TSV or Parquet file, in its order; for `predict` alone.

    Args:
        table: The path of the table: `.csv`, `.tsv`, `.txt` (cells separated by spaces) or `.parquet`.
        root: The folder that the paths in the table are relative to. None: the folder of the table.
        image_column: The name of the column with the path of each image.
        category_columns: The names of the columns with the categories that a `CategoryNetwork` was trained with. None:
            all columns of the table whose names are in `levels`.
        columns: The names of the columns, for a text file without a header. None: the first row holds the names.
        delimiter: The character between cells. None: a comma in `.csv`, a tab in `.tsv`, a space in `.txt`.
        encoding: The encoding of a text file. The default reads UTF-8 with or without a byte order mark.
        image_suffix: A suffix to append to each path, such as `.jpg`.
        levels: The names of the category levels that the network was trained with. None: `tailmatch predict` takes
            them from the checkpoint; in Python there are none.
        **kwargs: The other arguments of `UnlabeledImages`.

    Raises:
        MissingFileError: The table is missing.
        SettingsError: The table cannot be read, a cell is wrong (the message names its row and column), or an argument
            is missing or out of its domain.
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
        check_names("category_columns", needed)
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
