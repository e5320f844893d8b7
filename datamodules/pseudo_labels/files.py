"""Pseudo-label files: one row for each image, and facts by which a file for other data is refused.

An `.npz` file holds these arrays, read without pickle; a `.parquet` file (with pyarrow: `pip install
'tailmatch[parquet]'`) holds those of n rows as columns and the others as metadata of its schema, or in the file
`_tailmatch.json` beside it.

* `key`: the name of the image, the same in every split: its path within the data set (`str [n]`, `/` between folders),
  or its index in the training pool (`int64 [n]`) if the images are not from files.
* `size`: `int64 [n]`, the size of the image's file in bytes; in format 2.
* `digest`: `uint8 [n, D]`, a digest of the file's content, to find images that occur twice; optional, in format 2.
* `label`: `int64 [n]`, the most likely class, 0 to K - 1.
* `confidence`: `float32 [n]`, the probability of the label, in [0, 1].
* `probs`: `float32 [n, K]`, the probabilities of all classes, whose sum is 1; optional.
* `error`: in Parquet, why the image has no label, null for one that has; optional. Rows with an error are left out when
  the file is read. Other columns are not read.
* `class_names`: `str [K]`, the names of the classes.
* `checkpoint`: the SHA-256 of the checkpoint file that predicted, in hexadecimal; empty if none did. For an ensemble,
  even of one member, the SHA-256 of its members' digests, written one after another in the order of its `checkpoints`.
* `fingerprint` and `pool`: `Images.fingerprint` of the training pool, and its number of images; in format 1.
* `format`: the version of this format, 1 or 2.

Images from files have rows of format 2, each of which says which file it is of. Such a pseudo-label file may cover a
part of a training pool, several pools, or images from elsewhere. Images that are not from files have format 1, as all
had in earlier versions; it is of one pool as a whole. The same rows give the same bytes.
"""

import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tailmatch.datamodules.arguments import MissingFileError, SettingsError
from tailmatch.datamodules.files.bounds import check_parquet, check_unpacked
from tailmatch.datamodules.foreign_files import foreign_file
from tailmatch.datamodules.output_files import check_free, pyarrow_for, whole_file
from tailmatch.datamodules.pseudo_labels.checks import check_pseudo_labels
from tailmatch.datamodules.pseudo_labels.columns import Column, in_memory
from tailmatch.datamodules.pseudo_labels.labels import ROW_ARRAYS, Origin, PseudoLabelFile
from tailmatch.datamodules.pseudo_labels.parquet import (
    arrays_of,
    columns_to_read,
    facts_of,
    rows_with_errors,
    warn_of_errors,
    without_errors,
    write_parquet,
)

POOL_FORMAT, FILE_FORMAT = 1, 2
"""Rows of one pool as a whole, and rows that each name a file."""

FACTS = {POOL_FORMAT: ("class_names", "checkpoint", "fingerprint", "pool"), FILE_FORMAT: ("class_names", "checkpoint")}
OPTIONAL = ("digest", "probs")

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time stamp of the members: the earliest that a zip file can hold, so that the same rows give the same bytes."""


# Writing


def check_output(path: Path, overwrite: bool) -> None:
    """Refuse a path that could not be written to in the end.

    Raises:
        SettingsError: The file exists and `overwrite` is false, its suffix is neither `.npz` nor `.parquet`, or the
            suffix is `.parquet` and pyarrow is not installed.
        OSError: The system refuses to write the file.
    """
    if path.suffix not in (".npz", ".parquet"):
        raise SettingsError(f"output is {path}; its name must end in .npz or .parquet")
    check_free(path, overwrite)
    if path.suffix == ".parquet":
        pyarrow_for(path)


def write_pseudo_labels(path: Path, columns: dict[str, Column], origin: Origin) -> None:
    """Write a pseudo-label file chunk by chunk under a temporary name, and rename it when it is whole.

    Args:
        path: The file, `.npz` or `.parquet`.
        columns: The columns `key`, `label` and `confidence`, `size` in format 2, and those that are optional.
        origin: The checkpoint and the data that the pseudo-labels were made with.
    """
    ordered = {name: columns[name] for name in ROW_ARRAYS if name in columns}
    facts = facts_in_file(origin)
    with whole_file(path) as partial:
        if path.suffix == ".npz":
            _write_npz(partial, ordered, facts)
        else:
            cut = zip(*(column.chunks() for column in ordered.values()), strict=True)
            write_parquet(partial, (dict(zip(ordered, arrays, strict=True)) for arrays in cut), facts)


def facts_in_file(origin: Origin) -> dict[str, Any]:
    """Return what a file says of all its rows."""
    version = FILE_FORMAT if origin.fingerprint is None else POOL_FORMAT
    return {name: getattr(origin, name) for name in FACTS[version]} | {"format": version}


def _write_npz(path: Path, columns: dict[str, Column], facts: Mapping[str, Any]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, column in (columns | {name: in_memory(np.asarray(fact)) for name, fact in facts.items()}).items():
            member = zipfile.ZipInfo(f"{name}.npy", EPOCH)
            if column.dtype.kind == "U":  # mostly zeros: four bytes a letter, all as long as the longest
                member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as file:
                header = {"descr": column.dtype.str, "fortran_order": False, "shape": column.shape}
                np.lib.format.write_array_header_1_0(file, header)
                for chunk in column.chunks():
                    file.write(np.ascontiguousarray(chunk, column.dtype).tobytes())


# Reading


def read_pseudo_labels(path: Path) -> PseudoLabelFile:
    """Read a pseudo-label file; nothing in it is executed.

    Raises:
        MissingFileError: The file is missing.
        SettingsError: The file is not a pseudo-label file, or its rows mean nothing (see `check_pseudo_labels`).
    """
    if not path.is_file():
        raise MissingFileError(f"no pseudo-label file {path}: `tailmatch predict` writes one")
    with refused(path):
        file = (_read_parquet if path.suffix == ".parquet" else _read_npz)(path)
        check_pseudo_labels(file)
    return file


@contextmanager
def refused(path: Path) -> Iterator[None]:
    """Turn what numpy and pyarrow raise for a damaged file, errors of any kind, into one that names it.

    Raises:
        SettingsError: An error was raised, other than one of the system.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None:  # of the system, which names the file; pyarrow's have no number
            raise
        raise SettingsError(f"{path} is not a pseudo-label file: {error}") from error
    except Exception as error:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise SettingsError(f"{path} is not a pseudo-label file: {reason}") from error


def arrays_and_origin(facts: Mapping[str, Any], present: Collection[str]) -> tuple[list[str], Origin]:
    """Name the arrays to read of a file, and its origin, given its facts and the arrays that it has.

    Raises:
        SettingsError: The format is unknown, or a fact or an array is missing.
    """
    version = facts.get("format")
    if version not in FACTS:
        raise SettingsError(f"its format is {version!r}; formats 1 and 2 are read")
    needed = [name for name in ROW_ARRAYS if name not in OPTIONAL and (name != "size" or version == FILE_FORMAT)]
    missing = [name for name in needed if name not in present] + [name for name in FACTS[version] if name not in facts]
    if missing:
        raise SettingsError(f"it has no {' and no '.join(missing)}")
    extra = [name for name in OPTIONAL if name in present and (name != "digest" or version == FILE_FORMAT)]
    return needed + extra, Origin(**{name: facts[name] for name in FACTS[version]})


def file_of(arrays: Mapping[str, Any], origin: Origin) -> PseudoLabelFile:
    """Make a pseudo-label file of its arrays."""
    return PseudoLabelFile(**{"probs": None, **arrays}, origin=origin)


def _read_npz(path: Path) -> PseudoLabelFile:
    with path.open("rb") as file:
        foreign = foreign_file(file.read(512))
    if foreign is not None:
        raise SettingsError(f"it {foreign}")
    if not zipfile.is_zipfile(path):
        raise SettingsError("it is no archive of arrays (tailmatch.datamodules.pseudo_labels.legacy converts pickles)")
    with zipfile.ZipFile(path) as archive:
        check_unpacked(path, sum(member.file_size for member in archive.infolist()))
    with np.load(path, allow_pickle=False) as members:
        facts = {name: members[name].tolist() for name in (*FACTS[POOL_FORMAT], "format") if name in members}
        names, origin = arrays_and_origin(facts, members.files)
        return file_of({name: members[name] for name in names}, origin)


def _read_parquet(path: Path) -> PseudoLabelFile:
    file = pyarrow_for(path)[1].ParquetFile(path)
    check_parquet(path, file)
    names, origin = arrays_and_origin(facts_of(file.schema_arrow, path), file.schema_arrow.names)
    warn_of_errors(path, rows_with_errors(file), file.metadata.num_rows)
    return file_of(arrays_of(without_errors(file.read(columns_to_read(file, names))), names), origin)
