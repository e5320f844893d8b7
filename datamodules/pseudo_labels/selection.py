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

    Of rows with the same digest, only the most confident one counts. Of equal confidences, those with the least keys
    are selected, so that the order of the rows does not matter. The labels, confidences and digests of all rows are in
    memory, 12 bytes a row and those of the digest; and the keys, unless the rows are in their order.

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
    check_rule(per_class, share, threshold)
    check_output(Path(output), overwrite)
    parts = PseudoLabelParts.open(Path(labels))
    label, confidence, digest, place = _columns(parts)
    first = first_of_each(digest, confidence, place) if digest is not None else np.ones(len(label), bool)
    counts = np.bincount(label[first], minlength=len(parts.origin.class_names))
    rank = class_ranks(label, confidence, first, place)
    if threshold is not None:
        chosen = first & (confidence >= threshold)
    elif share is not None:
        chosen = first & (rank < np.ceil(share * counts)[label])
    else:
        chosen = first & (rank < (per_class or 0))
    if not chosen.any():
        raise nothing_above(threshold, labels, confidence.max())
    write_chunks(Path(output), _chosen(parts, chosen), parts.origin)
    selected = np.bincount(label[chosen], minlength=len(counts))
    least = np.full(len(counts), np.inf, np.float32)
    np.minimum.at(least, label[chosen], confidence[chosen])
    least[selected == 0] = 0
    return Selection(parts.origin.class_names, counts, selected, least, int((~first).sum()))


def check_rule(per_class: int | None, share: float | None, threshold: float | None) -> None:
    """Refuse more or fewer than one rule, or one outside its domain (see `select_labels`).

    Raises:
        SettingsError: Not exactly one of the rules is given, or its value lies outside its domain.
    """
    if sum(rule is not None for rule in (per_class, share, threshold)) != 1:
        raise SettingsError("give one of per_class, share and threshold")
    if per_class is not None:
        check_count("per_class", per_class)
    if share is not None:
        check_positive_share("share", share)
    if threshold is not None:
        check_share("threshold", threshold)


def nothing_above(threshold: float | None, labels: str | Path, largest: float) -> SettingsError:
    """Make the error that no row is selected, which a threshold alone can cause."""
    return SettingsError(f"threshold is {threshold}, and the largest confidence of {labels} is {largest:.6g}")


def _columns(parts: PseudoLabelParts) -> tuple[Array, Array, Array | None, Array]:
    """Read the labels, the confidences, the digests as bytes, and the ranks of the keys of all rows, each `[N]`."""
    label, confidence = np.empty(parts.rows, np.int64), np.empty(parts.rows, np.float32)
    digests: list[Array] = []
    ordered, last = True, None
    start = 0
    for chunk in parts.chunks():
        end = start + len(chunk.key)
        label[start:end], confidence[start:end] = chunk.label, chunk.confidence
        if chunk.digest is not None:
            digests.append(np.ascontiguousarray(chunk.digest).view(f"V{chunk.digest.shape[1]}")[:, 0])
        ordered = ordered and bool((chunk.key[1:] >= chunk.key[:-1]).all()) and (last is None or last <= chunk.key[0])
        last, start = chunk.key[-1], end
    place = np.arange(parts.rows)
    if not ordered:
        order = np.concatenate([chunk.key for chunk in parts.chunks()]).argsort(kind="stable")
        place[order] = np.arange(parts.rows)
    return label, confidence, np.concatenate(digests) if digests else None, place


def first_of_each(digest: Array, confidence: Array, place: Array) -> Array:
    """Find the most confident row of each digest, of equals the one with the least place: `bool [N]`."""
    order = np.lexsort((place, -confidence, np.unique(digest, return_inverse=True)[1]))
    ordered = digest[order]
    first = np.ones(len(digest), bool)
    first[order[1:]] = ordered[1:] != ordered[:-1]
    return first


def class_ranks(label: Array, confidence: Array, counted: Array, place: Array) -> Array:
    """Rank rows within their class, from 0 for the most confident: `int64 [N]`; rows that do not count come last.

    Of equal confidences, the one with the least `place` comes first.
    """
    order = np.lexsort((place, -confidence, ~counted, label))
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
