"""What to say when a public data set is not there and cannot be downloaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tailmatch.datamodules.arguments import MissingFileError


@contextmanager
def files_named_if_missing(name: str, files: str, address: str, folder: str | Path) -> Iterator[None]:
    """Run a download; where it fails, say which files to put where.

    Args:
        name: The data set.
        files: The files that it needs.
        address: Where they are published.
        folder: Where they belong.

    Raises:
        MissingFileError: The download failed.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        place, reason = Path(folder).resolve(), " ".join(str(error).split())
        raise MissingFileError(
            f"{name} is missing or not whole in {place} and could not be downloaded ({reason}): put {files} from "
            f"{address} into {place} and run again"
        ) from error
