"""Pseudo-label files: one row for each unlabeled image, and facts by which a file for other data is refused.

An `.npz` file holds these arrays, read without pickle; a `.parquet` file (with pyarrow: `pip install
'tailmatch[parquet]'`) holds the first four as columns and the others as metadata of its schema.

* `key`: the name of the image, the same in every split: its path within the data set (`str [n]`, `/` between folders),
  or its index in the training pool (`int64 [n]`) if the images are not from files.
* `label`: `int64 [n]`, the most likely class, 0 to K - 1.
* `confidence`: `float32 [n]`, the probability of the label, in [0, 1].
* `probs`: `float32 [n, K]`, the probabilities of all classes, whose sum is 1; optional.
* `class_names`: `str [K]`, the names of the classes.
* `checkpoint`: the SHA-256 of the checkpoint file that predicted, in hexadecimal; empty if none did. For an ensemble,
  even of one member, the SHA-256 of its members' digests, written one after another in the order of its `checkpoints`.
* `fingerprint` and `pool`: `Images.fingerprint` of the training pool, and its number of images.
* `format`: the version of this format, 1.

The same rows give the same bytes.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from tailmatch.datamodules.arguments import MissingFileError, SettingsError
from tailmatch.datamodules.files.bounds import check_parquet, check_unpacked
from tailmatch.datamodules.foreign_files import foreign_file
from tailmatch.datamodules.output_files import check_free, pyarrow_for, whole_file
from tailmatch.datamodules.pseudo_labels.checks import check_pseudo_labels
from tailmatch.datamodules.pseudo_labels.columns import Column, in_memory
from tailmatch.datamodules.pseudo_labels.labels import Origin, PseudoLabelFile

FORMAT = 1
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
        columns: The columns `key`, `label`, `confidence` and, optionally, `probs`.
        origin: The checkpoint and the data that the pseudo-labels were made with.
    """
    with whole_file(path) as partial:
        (_write_npz if path.suffix == ".npz" else _write_parquet)(partial, columns, origin)


def _write_npz(path: Path, columns: dict[str, Column], origin: Origin) -> None:
    facts = {
        "class_names": origin.class_names,
        "checkpoint": origin.checkpoint,
        "fingerprint": origin.fingerprint,
        "pool": origin.pool,
        "format": FORMAT,
    }
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


def _write_parquet(path: Path, columns: dict[str, Column], origin: Origin) -> None:
    pyarrow, parquet = pyarrow_for(path)
    types = {
        "key": pyarrow.int64() if columns["key"].dtype.kind == "i" else pyarrow.string(),
        "label": pyarrow.int64(),
        "confidence": pyarrow.float32(),
    }
    if "probs" in columns:
        types["probs"] = pyarrow.list_(pyarrow.float32(), len(origin.class_names))
    facts = {"tailmatch": json.dumps({**vars(origin), "format": FORMAT})}
    schema = pyarrow.schema(list(types.items()), metadata=facts)
    with parquet.ParquetWriter(path, schema) as writer:
        for chunks in zip(*(columns[name].chunks() for name in types), strict=True):
            arrays = [
                pyarrow.FixedSizeListArray.from_arrays(chunk.reshape(-1), chunk.shape[1])
                if chunk.ndim == 2
                else pyarrow.array(chunk, type_)
                for chunk, type_ in zip(chunks, types.values(), strict=True)
            ]
            writer.write_batch(pyarrow.record_batch(arrays, schema=schema))


# Reading


def read_pseudo_labels(path: Path) -> PseudoLabelFile:
    """Read a pseudo-label file; nothing in it is executed.

    Raises:
        MissingFileError: The file is missing.
        SettingsError: The file is not a pseudo-label file, or its rows mean nothing (see `check_pseudo_labels`).
    """
    if not path.is_file():
        raise MissingFileError(f"no pseudo-label file {path}: `tailmatch predict` writes one")
    try:
        arrays, facts = (_read_parquet if path.suffix == ".parquet" else _read_npz)(path)
        if facts.pop("format") != FORMAT:
            raise SettingsError(f"its format is not {FORMAT}")
        file = PseudoLabelFile(**arrays, origin=Origin(**facts))
        check_pseudo_labels(file)
    except OSError as error:
        if error.errno is not None:  # of the system, which names the file; pyarrow's have no number
            raise
        raise SettingsError(f"{path} is no pseudo-label file: {error}") from error
    except Exception as error:  # numpy and pyarrow raise errors of any kind for a damaged file
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise SettingsError(f"{path} is not a pseudo-label file: {reason}") from error
    return file


def _read_npz(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    with path.open("rb") as file:
        foreign = foreign_file(file.read(512))
    if foreign is not None:
        raise SettingsError(f"it {foreign}")
    if not zipfile.is_zipfile(path):
        raise SettingsError("it is no archive of arrays (tailmatch.datamodules.pseudo_labels.legacy converts pickles)")
    with zipfile.ZipFile(path) as archive:
        check_unpacked(path, sum(member.file_size for member in archive.infolist()))
    with np.load(path, allow_pickle=False) as members:
        arrays = {name: members[name] for name in ("key", "label", "confidence")}
        arrays["probs"] = members["probs"] if "probs" in members else None
        names = ("class_names", "checkpoint", "fingerprint", "pool", "format")
        return arrays, {name: members[name].tolist() for name in names}


def _read_parquet(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    file = pyarrow_for(path)[1].ParquetFile(path)
    check_parquet(path, file)
    table = file.read([name for name in ("key", "label", "confidence", "probs") if name in file.schema_arrow.names])
    facts = json.loads(table.schema.metadata[b"tailmatch"])
    arrays = {name: table[name].to_numpy() for name in ("key", "label", "confidence")}
    arrays["probs"] = None
    if "probs" in table.column_names:
        flat = table["probs"].combine_chunks().flatten().to_numpy()
        arrays["probs"] = flat.reshape(len(table), -1)
    return arrays, facts
