"""The error message for a public data set that is missing and cannot be downloaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tailmatch.datamodules.arguments import MissingFileError
from tailmatch.datamodules.bases.image_data import ImageDataModule


@contextmanager
def files_named_if_missing(
    data: ImageDataModule, name: str, files: str, address: str, folder: str | Path
) -> Iterator[None]:
    """Run a download; if it fails, say which files belong into which folder.

    Args:
        data: The data module.
        name: The name of the data set.
        files: The names of its files.
        address: The address at which they are published.
        folder: The folder that they belong into.

    Raises:
        MissingFileError: The download failed, or the data module may not download.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        place, reason = Path(folder).resolve(), " ".join(str(error).split())
        if not data.may_download:
            raise MissingFileError(
                f"{name} is missing or incomplete in {place}, a folder that a checkpoint names, and is not downloaded "
                "into it: give the folder yourself with --data.root"
            ) from error
        raise MissingFileError(
            f"{name} is missing or incomplete in {place} and could not be downloaded ({reason}): put {files} from "
            f"{address} into {place} and run again"
        ) from error
