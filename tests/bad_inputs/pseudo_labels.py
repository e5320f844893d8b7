"""Faults of pseudo-label files."""

import io

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from tests.bad_inputs.engine import Row, row
from tests.bad_inputs.prepared import LABELS
from tests.bad_inputs.spoil import arrays, cut, fifo, flip, html, pointer, rights, write

FILE = "pseudo_labels.npz"
REFINE = "refine --target prior.json"
PROBS = np.full((6, 3), 1 / 3, np.float32)


def parquet_file() -> bytes:
    """Give the bytes of a Parquet file with the columns of a pseudo-label file, and without its metadata."""
    buffer = io.BytesIO()
    columns = {"key": ["images/unlabeled/0.png"], "label": [0], "confidence": [0.5]}
    parquet.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def of(name: str, *spoils: object, says: tuple[str, ...] = (), **more: object) -> Row:
    """Make a row of a spoiled file, which the message must name."""
    return row(name, f"{LABELS}", FILE, *says, given=spoils, **more)


def with_(name: str, *says: str, **changed: object) -> Row:
    """Make a row of a file with changed arrays."""
    return of(name, arrays(FILE, **changed), says=says)


def first(value: object) -> object:
    """Give a function that changes the first entry of an array."""

    def change(array: np.ndarray) -> np.ndarray:
        changed = array.astype(np.result_type(array, np.asarray(value)))
        changed[0] = value
        return changed

    return change


ROWS = [
    row("an output of Spark that exists", f"{REFINE} --labels table.csv --output runs --spark true", "runs exists", "--overwrite"),
    row("a file as output of Spark", f"{REFINE} --labels table.csv --output small.yaml --spark true", "small.yaml", "folder"),
    row("no such labels on Spark", f"{REFINE} --labels nowhere --output new --spark true", "nowhere", "tailmatch label"),
    row("an archive of arrays on Spark", f"{REFINE} --labels pseudo_labels.npz --output new --spark true", FILE, "Parquet"),
    row("an unknown exchange", f"{REFINE} --labels {FILE} --output new.npz --spark true --exchange mail", "gloo", code=2),
    row("tasks without Spark", f"{REFINE} --labels {FILE} --output new.npz --tasks 2", "tasks", "--spark true"),
    row("a selection on Spark of nothing", "select --labels nowhere --per_class 1 --output new.npz --spark true", "nowhere"),
    row("no such pseudo-labels", f"{LABELS} --data.pseudo_labels nowhere.npz", "nowhere.npz", "predict"),
    row("a folder as pseudo-labels", f"{LABELS} --data.pseudo_labels images", "images"),
    row("a table as pseudo-labels", f"{LABELS} --data.pseudo_labels table.csv", "table.csv"),
    of("a FIFO as pseudo-labels", fifo(FILE)),
    of("pseudo-labels that may not be read", rights(FILE, 0), says=("ermission",)),
    of("empty pseudo-labels", write(FILE)),
    of("a web page as pseudo-labels", html(FILE), says=("HTML",)),
    of("a pointer of git-lfs as pseudo-labels", pointer(FILE), says=("git-lfs",)),
    of("a pickle as pseudo-labels", write(FILE, b"\x80\x04]\x94."), says=("legacy",)),
    of("pseudo-labels cut in the middle", cut(FILE)),
    of("a flipped bit in pseudo-labels", flip(FILE, 0.5)),
    with_("no column of labels", "label", label=None),
    with_("no class names", "class_names", class_names=None),
    with_("another version", "format", format=3),
    with_("a label above all classes", "3", "label", label=first(3)),
    with_("a label of -1", "-1", "label", label=first(-1)),
    with_("a label of 1.5", "float64", "whole numbers", label=first(1.5)),
    with_("labels with two columns", "label", label=lambda label: np.stack([label, label], axis=1)),
    with_("a confidence of NaN", "nan", "confidence", confidence=first(np.nan)),
    with_("a confidence of a billion", "1000000000", "confidence", confidence=first(1e9)),
    with_("confidences that are texts", "confidence", confidence=lambda confidence: confidence.astype("U")),
    with_("probs that sum to 10", "probs", "3.33", "sum of 1", probs=PROBS * 10),
    with_("probs with NaN", "nan", "probs", probs=first(np.nan)(PROBS)),
    with_("probs that contradict the label", "probs", "label", probs=np.eye(3, dtype=np.float32)[[1] * 6], label=np.zeros(6, int), confidence=np.ones(6, np.float32)),
    with_("probs of two classes", "probs", "[6, 2]", "[6, 3]", probs=PROBS[:, :2]),
    with_("fewer labels than keys", "label", "[4]", "[6]", label=lambda label: label[:4]),
    with_("no rows", "no rows", key=lambda key: key[:0], label=lambda label: label[:0], confidence=lambda part: part[:0]),
    with_("keys of no image", "no image of this data set", key=lambda key: np.char.add(key, "x"), digest=None),
    with_("a key twice", "row", key=lambda key: np.concatenate([key[1:2], key[1:]]), digest=None),
    with_("sizes of other files", "another size", "bytes, here", size=lambda size: size + 1, digest=None),
    with_("contents of other files", "another content", digest=lambda digest: digest ^ 1),
    with_("a negative size", "size", "-1", size=first(-1)),
    with_("keys that are numbers", "key", key=np.arange(6)),
    with_("keys that are objects", key=np.array([None] * 6, dtype=object)),
    with_("other classes", "fox", class_names=["cat", "dog", "fox"]),
    with_("classes in another order", "order", class_names=["dog", "cat", "owl"]),
    with_("no column of sizes", "size", size=None),
    with_("sizes that are texts", "size", size=lambda size: size.astype("U")),
    row("Parquet without metadata", f"{LABELS} --data.pseudo_labels labels.parquet", "labels.parquet", given=[write("labels.parquet", parquet_file())]),
    row("a table named Parquet", f"{LABELS} --data.pseudo_labels labels.parquet", "labels.parquet", given=[write("labels.parquet", "key,label\n")]),
    row("pseudo-labels of another suffix", f"{LABELS} --data.pseudo_labels labels.txt", "labels.txt", given=[write("labels.txt", "a 0\n")]),
]  # fmt: skip
