"""Check the content of a pseudo-label file, which somebody else may have written or edited."""

import numpy as np

from tailmatch.datamodules.arguments import SettingsError, check_count, check_names
from tailmatch.datamodules.pseudo_labels.labels import Array, Origin, PseudoLabelFile

ROUNDING = 1e-3
"""By how much the probabilities of a row may miss their sum of 1, or that of the label may miss the largest one."""


def check_pseudo_labels(file: PseudoLabelFile) -> None:
    """Refuse arrays that are no pseudo-labels: of wrong types or shapes, or with numbers outside their range.

    Raises:
        SettingsError: The file has no rows, an array does not fit, or a row is wrong; the message says which.
    """
    check_origin(file.origin)
    rows, classes = len(file.key), len(file.origin.class_names)
    if not rows:
        raise SettingsError("it has no rows")
    _check_array("key", file.key, "iuUO", (rows,))
    if file.key.dtype == object and not all(isinstance(key, str) for key in file.key):
        raise SettingsError("key has entries that are not text")
    _check_files(file, rows)
    _check_array("label", file.label, "iu", (rows,))
    _check_array("confidence", file.confidence, "f", (rows,))
    _check_entries(file, "label", (file.label >= 0) & (file.label < classes), f"0 to {classes - 1}")
    _check_entries(file, "confidence", (file.confidence >= 0) & (file.confidence <= 1 + ROUNDING), "in [0, 1]")
    if file.probs is None:
        return
    _check_array("probs", file.probs, "f", (rows, classes))
    good = (file.probs >= 0).all(axis=1) & (np.abs(file.probs.sum(axis=1, dtype=np.float64) - 1) <= ROUNDING)
    _check_entries(file, "probs", good, "at least 0 with a sum of 1")
    of_label = np.take_along_axis(file.probs, file.label[:, None].astype(np.int64), axis=1)[:, 0]
    _check_entries(file, "label", of_label >= file.probs.max(axis=1) - ROUNDING, "the class with the largest of probs")


def check_origin(origin: Origin) -> None:
    """Refuse facts that mean nothing.

    Raises:
        SettingsError: A fact is of another type, or class names are equal.
    """
    check_names("class_names", origin.class_names)
    if origin.pool is not None:
        check_count("pool", origin.pool)
    for name in ("checkpoint", "fingerprint"):
        fact = getattr(origin, name)
        if not (isinstance(fact, str) or (fact is None and name == "fingerprint")):
            raise SettingsError(f"{name} is {fact!r}; it must be text")


def _check_files(file: PseudoLabelFile, rows: int) -> None:
    """Check what format 2 says of the files of images."""
    if file.size is None:
        return
    if file.key.dtype.kind not in "UO":
        raise SettingsError(f"key is {file.key.dtype}; in format 2 it must be text, the path of the file")
    _check_array("size", file.size, "iu", (rows,))
    _check_entries(file, "size", file.size >= 0, "at least 0")
    if file.digest is not None:
        width = file.digest.shape[1] if file.digest.ndim == 2 else 0
        _check_array("digest", file.digest, "u", (rows, max(1, width)))


def _check_array(name: str, array: Array, kinds: str, shape: tuple[int, ...]) -> None:
    if array.dtype.kind not in kinds or array.shape != shape:
        wanted = {"f": "floating point", "iu": "whole", "u": "unsigned whole"}.get(kinds, "text or whole")
        raise SettingsError(f"{name} is {array.dtype} {list(array.shape)}; it must be {wanted} numbers {list(shape)}")


def _check_entries(file: PseudoLabelFile, name: str, good: Array, domain: str) -> None:
    bad = np.flatnonzero(~good)
    if len(bad):
        value = getattr(file, name)[bad[0]].tolist()
        shown = value if not isinstance(value, list) or len(value) <= 10 else f"{str(value[:10])[:-1]}, ...]"
        raise SettingsError(
            f"{name} of {file.key[bad[0]]} is {shown}; it must be {domain} ({len(bad)} such rows of {len(good)})"
        )
