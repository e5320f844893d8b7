"""Select the most confident pseudo-labels of each class: `tailmatch select`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tailmatch.datamodules.arguments import SettingsError, check_count, check_positive_share, check_share
from tailmatch.datamodules.pseudo_labels.files import check_output
from tailmatch.datamodules.pseudo_labels.labels import Array, PseudoLabelFile
from tailmatch.datamodules.pseudo_labels.parts import PseudoLabelParts, write_chunks


@dataclass(frozen=True)
class Selection:
    """What a selection did.

    Attributes:
        class_names: The names of the K classes.
        counts: `int64 [K]`, the number of rows of each class.
        selected: `int64 [K]`, the number of those that were selected.
        least: `float32 [K]`, the least confidence that was selected; 0 where none was.
        repeated: The number of rows that were left out, since another row has the same content.
    """

    class_names: list[str]
    counts: Array
    selected: Array
    least: Array
    repeated: int


def select_labels(
    labels: str | Path,
    output: str | Path,
    *,
    per_class: int | None = None,
    share: float | None = None,
    threshold: float | None = None,
    overwrite: bool = False,
) -> Selection:
    """Write the most confident rows of each class to a pseudo-label file, in the order of the rows.

    Of rows with the same digest, only the most confident one counts; of equal confidences, the first ones are selected.
    The labels, confidences and digests of all rows are in memory, 12 bytes a row and those of the digest.

    Args:
        labels: A pseudo-label file, or a folder of Parquet files of one.
        output: The file to write, `.npz` or `.parquet`.
        per_class: The number of rows of each class; classes with fewer keep all.
        share: The share of the rows of each class, in (0, 1], rounded up.
        threshold: The least confidence.
        overwrite: Whether an existing output is replaced.

    Raises:
        SettingsError: There is not exactly one rule, an argument or a file is wrong, or no row is selected.
    """
    if sum(rule is not None for rule in (per_class, share, threshold)) != 1:
        raise SettingsError("give one of per_class, share and threshold")
    if per_class is not None:
        check_count("per_class", per_class)
    if share is not None:
        check_positive_share("share", share)
    if threshold is not None:
        check_share("threshold", threshold)
    check_output(Path(output), overwrite)
    parts = PseudoLabelParts.open(Path(labels))
    label, confidence, digest = _columns(parts)
    first = first_of_each(digest, confidence) if digest is not None else np.ones(len(label), bool)
    counts = np.bincount(label[first], minlength=len(parts.origin.class_names))
    rank = class_ranks(label, confidence, first)
    if threshold is not None:
        chosen = first & (confidence >= threshold)
    elif share is not None:
        chosen = first & (rank < np.ceil(share * counts)[label])
    else:
        chosen = first & (rank < (per_class or 0))
    if not chosen.any():
        raise SettingsError(
            f"threshold is {threshold}, and the largest confidence of {labels} is {confidence.max():.6g}"
        )
    write_chunks(Path(output), _chosen(parts, chosen), parts.origin)
    selected = np.bincount(label[chosen], minlength=len(counts))
    least = np.full(len(counts), np.inf, np.float32)
    np.minimum.at(least, label[chosen], confidence[chosen])
    least[selected == 0] = 0
    return Selection(parts.origin.class_names, counts, selected, least, int((~first).sum()))


def _columns(parts: PseudoLabelParts) -> tuple[Array, Array, Array | None]:
    """Read the labels `[N]`, the confidences `[N]` and the digests, `[N]` of bytes, of all rows."""
    label, confidence = np.empty(parts.rows, np.int64), np.empty(parts.rows, np.float32)
    digests: list[Array] = []
    start = 0
    for chunk in parts.chunks():
        end = start + len(chunk.key)
        label[start:end], confidence[start:end] = chunk.label, chunk.confidence
        if chunk.digest is not None:
            digests.append(np.ascontiguousarray(chunk.digest).view(f"V{chunk.digest.shape[1]}")[:, 0])
        start = end
    return label, confidence, np.concatenate(digests) if digests else None


def first_of_each(digest: Array, confidence: Array) -> Array:
    """Find the most confident row of each digest, the first one of equals: `bool [N]`."""
    order = np.lexsort((np.arange(len(digest)), -confidence, np.unique(digest, return_inverse=True)[1]))
    ordered = digest[order]
    first = np.ones(len(digest), bool)
    first[order[1:]] = ordered[1:] != ordered[:-1]
    return first


def class_ranks(label: Array, confidence: Array, counted: Array) -> Array:
    """Rank rows within their class, from 0 for the most confident: `int64 [N]`; rows that do not count come last."""
    order = np.lexsort((np.arange(len(label)), -confidence, ~counted, label))
    starts = np.concatenate([[0], np.bincount(label).cumsum()[:-1]])
    rank = np.empty(len(label), np.int64)
    rank[order] = np.arange(len(label)) - starts[label[order]]
    return rank


def _chosen(parts: PseudoLabelParts, chosen: Array) -> Iterator[PseudoLabelFile]:
    start = 0
    for chunk in parts.chunks():
        end = start + len(chunk.key)
        yield chunk.take(chosen[start:end])
        start = end
