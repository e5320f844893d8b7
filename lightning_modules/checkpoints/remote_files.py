"""Checkpoints and weights by URL: downloaded once into a cache, and read from there like any file.

`http(s)://` and `file://` work out of the box, other URLs with the package that fsspec needs for them (`s3://`: s3fs).
A downloaded file is read like every other, as tensors and plain values; no code in it is executed.
"""

import hashlib
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import fsspec
from filelock import FileLock

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.files.cache_folder import default_cache_dir
from tailmatch.datamodules.output_files import stale_partials, whole_file

_CHANGING = ("name", "url", "created")
"""Facts of a file that do not describe its content: its address (which may be signed) and its time of creation."""


def is_url(path: str) -> bool:
    """Return whether a path is a URL for fsspec."""
    return "://" in path


def fetched_dir() -> Path:
    """Return the folder of downloaded files: `checkpoints` in the cache, which may be deleted at any time."""
    return default_cache_dir() / "checkpoints"


def local_file(path: str) -> Path:
    """Return a path as it is; for a URL, download the file and return the path of the local copy.

    A copy belongs to the size, time and checksum that the server reports, so a changed file is downloaded again. It
    only appears when it is complete; processes that start together download it once.

    Raises:
        SettingsError: The file cannot be downloaded, or the download is incomplete.
    """
    return _fetched(path) if is_url(path) else Path(path)


def _fetched(url: str) -> Path:
    try:
        files, inside = fsspec.core.url_to_fs(url)
        facts = files.info(inside)
    except Exception as error:  # each file system has its own errors, which need not be OSErrors
        raise _not_fetched(url, error) from error
    if facts.get("type") == "directory":
        raise SettingsError(f"{shown_url(url)} is a folder: give the address of a file")
    version = repr(sorted((name, str(value)) for name, value in facts.items() if name not in _CHANGING))
    name = PurePosixPath(urlsplit(url).path).name or "checkpoint"
    path = fetched_dir() / hashlib.sha256(f"{url}\0{version}".encode()).hexdigest()[:32] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{name}.lock")):
        if not path.exists():
            for partial, _ in stale_partials(path.parent):
                partial.unlink()
            print(f"fetching {shown_url(url)} to {path}", flush=True)
            try:
                with whole_file(path) as partial:
                    files.get_file(inside, str(partial))
                    _check_whole(url, partial, facts.get("size"))
            except SettingsError:
                raise
            except Exception as error:  # see above
                raise _not_fetched(url, error) from error
    return path


def _check_whole(url: str, path: Path, size: int | None) -> None:
    there = path.stat().st_size
    if size is not None and there != size:
        raise SettingsError(f"{shown_url(url)} arrived incomplete, {there} of {size} bytes: try again")


def _not_fetched(url: str, error: Exception) -> SettingsError:
    cause, query = error.__cause__ or error, url.partition("?")[2]
    reason = " ".join(str(cause).split()).replace(query or "?", "...")
    if isinstance(error, ImportError):
        hint = "pip install 'tailmatch[s3]'" if url.startswith("s3") else "install the package that it names"
        return SettingsError(f"{shown_url(url)} needs a package that is not installed ({error}): {hint}")
    return SettingsError(
        f"{shown_url(url)} could not be fetched ({type(cause).__name__}: {reason}): check the address and the network, "
        "or give the path of a local copy"
    )


def shown_url(url: str) -> str:
    """Return the URL without its query, which contains secrets if it is signed."""
    return url.partition("?")[0]


def file_digest(path: Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            sha.update(part)
    return sha.hexdigest()
