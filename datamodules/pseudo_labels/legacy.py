r"""Convert the pseudo-label pickles of imbalanced-semi-self into pseudo-label files.

    python -m tailmatch.datamodules.pseudo_labels.legacy pseudo_labeled_svhn.pickle pseudo_labels.npz \
        --data SVHN --data.class_counts SemiSelfCounts --data.class_counts.labeled_max 1000 \
        --data.class_counts.labeled_rho 0.02 --data.class_counts.unlabeled_rho 0.02

YyzHarry/imbalanced-semi-self `gen_pseudolabels.py` pickles a dict whose entry `extrapolated_targets` is an array of
classes, in the order of the unlabeled images that it read: all of SVHN's `extra`, or `ti_80M_selected.pickle`. It is
converted for one split: give the data settings and the seed of the training that will read the labels.

* SVHN: entry i is the label of image i of `extra`, of which a training uses some. Labels are digits, and the digit 0 is
  the last class here, so they are translated. The entry `ground_truth`, which is in SVHN's pickles, must agree with the
  data.
* Other images: entry i is the label of unlabeled image i in the order of the data set, so that all of them must be
  unlabeled. Put them into the folder `unlabeled/` of an `ImageFolder`, with file names that sort in the order of the
  pickle (`000000.png`, `000001.png`, ...), and give `--data.class_counts LabeledFraction --data.class_counts.fraction
  1.0`, so that no other images are unlabeled.

The pickle has no confidences: all become 1, and thresholds select every label.

A pickle can run any program when it is read. This reader makes arrays of numbers, dicts, lists, strings and numbers
alone, and refuses a pickle that names anything else.
"""

import pickle
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from jsonargparse import ArgumentParser
from numpy.typing import NDArray
from pytorch_lightning import seed_everything
from torch import Tensor

from tailmatch import datamodules
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.bases.labeled_unlabeled import LabeledUnlabeledDataModule
from tailmatch.datamodules.class_order import published_order
from tailmatch.datamodules.images import ImageRows
from tailmatch.datamodules.pseudo_labels.columns import identity_columns, in_memory
from tailmatch.datamodules.pseudo_labels.files import check_output, write_pseudo_labels
from tailmatch.datamodules.pseudo_labels.labels import Origin

KEY, TRUTH = "extrapolated_targets", "ground_truth"


class _Numbers:
    """The type of an array's numbers. That of numpy would take from a pickle where its objects lie in the memory."""

    def __init__(self, code: str, *flags: Any) -> None:
        if not re.fullmatch(r"[biuf]\d{1,2}", code):
            raise pickle.UnpicklingError(f"it has an array of {code}, and no numbers")
        self.code, self.order = code, "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def array(self, data: bytes | str, shape: Any = (-1,), order: Any = "C") -> NDArray[Any]:
        """Make an array of bytes; those of Python 2 are read as text."""
        raw = data.encode("latin1") if isinstance(data, str) else data
        return np.frombuffer(raw, np.dtype(self.order + self.code)).reshape(shape, order=order)


class _Array:
    """An array, made of the bytes in a pickle."""

    values: NDArray[Any]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, numbers, fortran, data = state
        self.values = numbers.array(data, shape, "F" if fortran else "C")


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    return _Array()


def _scalar(numbers: _Numbers, data: bytes | str) -> Any:
    return numbers.array(data)[0]


def _from_buffer(data: bytes, numbers: _Numbers, shape: Any, order: Any) -> _Array:
    made = _Array()
    made.values = numbers.array(data, shape, order)
    return made


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding}, where an array has latin1")
    return text.encode("latin1")


ARRAY_PARTS = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Numbers,
    ("_codecs", "encode"): _latin1,  # how Python 3 writes bytes in the protocols of Python 2
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},  # numpy 1, numpy 2
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}
"""All objects that a pickle of numeric arrays may name, and what they are read as; none of them is numpy's."""


class ArrayUnpickler(pickle.Unpickler):
    """An unpickler that reads arrays and plain values, and imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        """Give the part of an array that a name stands for.

        Raises:
            UnpicklingError: The name stands for something else.
        """
        if (module, name) not in ARRAY_PARTS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of an array")
        return ARRAY_PARTS[module, name]

    def persistent_load(self, pid: Any) -> NoReturn:
        """Refuse references to objects outside of the pickle."""
        raise pickle.UnpicklingError("it refers to something outside of itself")


@dataclass(frozen=True)
class LegacyLabels:
    """The labels of a pickle.

    Attributes:
        label: The pseudo-labels, `int64 [n]`, by the numbers that the authors give to classes.
        truth: The classes of the same images, `int64 [n]`. None: the pickle does not have them.
    """

    label: NDArray[np.int64]
    truth: NDArray[np.int64] | None = None


def read_legacy_labels(path: Path) -> LegacyLabels:
    """Read the labels of a pickle, without running anything in it.

    Raises:
        SettingsError: The pickle holds something other than arrays and plain values, no integers under
            `extrapolated_targets`, or as `ground_truth` something other than as many integers.
    """
    with path.open("rb") as file:
        try:
            content = ArrayUnpickler(file, encoding="latin1").load()
            label, truth = (_integers(content, key) for key in (KEY, TRUTH))
        except Exception as error:  # a damaged pickle can raise whatever its operations raise
            raise SettingsError(f"{path} is not read: {error}") from error
    if label is None:
        raise SettingsError(f"{path} has no list of integers named {KEY}")
    if TRUTH in content and (truth is None or len(truth) != len(label)):
        raise SettingsError(f"{path} has a {TRUTH} that is not a list of {len(label)} integers, one for each label")
    return LegacyLabels(label, truth)


def _integers(content: Any, key: str) -> NDArray[np.int64] | None:
    found = content.get(key) if isinstance(content, dict) else None
    values = found.values if isinstance(found, _Array) else np.asarray(found)
    return values.astype(np.int64) if values.ndim == 1 and values.dtype.kind in "iu" else None


def convert(path: Path, output: Path, data: LabeledUnlabeledDataModule, overwrite: bool = False) -> None:
    """Write the labels of a pickle as the pseudo-label file of a data module's unlabeled images.

    Raises:
        SettingsError: The pickle is for more or fewer images than the data set has, has labels of other classes, or
            contradicts the classes of the data.
    """
    check_output(output, overwrite)
    labels = read_legacy_labels(path)
    data.prepare_data()
    data.setup("predict")
    pool = data.unlabeled.images
    covered = covered_rows(data)
    if len(labels.label) != len(covered):
        raise SettingsError(
            f"{path} has {len(labels.label)} labels, and the data {len(covered)} images that it could be for: give the "
            "images that it was made for, and no others"
        )
    label = classes_of(labels.label, data.class_names, path)
    if labels.truth is not None:
        known = pool.targets[covered].numpy()
        wrong = int(((classes_of(labels.truth, data.class_names, path) != known) & (known >= 0)).sum())
        if wrong:
            raise SettingsError(
                f"the {TRUTH} of {path} contradicts the class of {wrong} of {len(covered)} images: it was made for "
                "other images, or for these in another order"
            )
    wanted = torch.isin(covered, data.unlabeled.rows)
    rows = ImageRows(pool, covered[wanted], labeled=False)
    columns = {
        **identity_columns(rows, max(1, len(rows))),
        "label": in_memory(label[wanted.numpy()]),
        "confidence": in_memory(np.ones(len(rows), np.float32)),
    }
    write_pseudo_labels(output, columns, Origin.of(pool, data.class_names))


def covered_rows(data: LabeledUnlabeledDataModule) -> Tensor:
    """Return the pool's rows, `int64 [n]`, that a pickle has an entry for, in the order of its entries.

    These are all images of a separate unlabeled pool, such as SVHN's `extra`; without one, the unlabeled images.
    """
    if data.unlabeled_from is not None:
        return torch.arange(data.unlabeled_from, len(data.unlabeled.images.pixels))
    rows = data.unlabeled.rows
    return rows[~torch.isin(rows, data.labeled.rows)].sort().values


def classes_of(numbers: NDArray[np.int64], class_names: Sequence[str], path: Path) -> NDArray[np.int64]:
    """Translate the authors' numbers of classes, `int64 [n]`, to classes of the data, by `published_order`.

    Raises:
        SettingsError: A number is that of no class.
    """
    count = len(class_names)
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < count:
        raise SettingsError(f"{path} has labels from {numbers.min()} to {numbers.max()}, and the data {count} classes")
    return np.array(published_order(class_names))[numbers]


def main(args: list[str] | None = None) -> None:
    """Convert from the command line."""
    for name in datamodules.__all__:
        getattr(datamodules, name)  # its class is imported, so that the parser finds its short name
    parser = ArgumentParser(
        prog="python -m tailmatch.datamodules.pseudo_labels.legacy",
        description="Convert a pickle of pseudo-labels into a pseudo-label file.",
    )
    parser.add_argument("pickle", type=Path, help="The pickle of imbalanced-semi-self.")
    parser.add_argument("output", type=Path, help="The pseudo-label file to write, .npz or .parquet.")
    parser.add_argument("--overwrite", type=bool, default=False, help="Whether an existing output is replaced.")
    parser.add_argument("--seed_everything", type=int, default=0, help="The seed of the training that reads it.")
    parser.add_subclass_arguments(LabeledUnlabeledDataModule, "data", required=True)
    config = parser.parse_args(args)
    seed_everything(config.seed_everything)
    try:
        convert(config.pickle, config.output, parser.instantiate(config).data, config.overwrite)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
