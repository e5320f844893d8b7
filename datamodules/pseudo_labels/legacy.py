r"""Convert the pseudo-label pickles of imbalanced-semi-self into pseudo-label files.

    python -m tailmatch.datamodules.pseudo_labels.legacy pseudo_labeled_cifar.pickle pseudo_labels.npz \
        --data tailmatch.datamodules.ImageFolder --data.root my-images

YyzHarry/imbalanced-semi-self `gen_pseudolabels.py` pickles a dict whose entry `extrapolated_targets` is an array of
classes, in the order of the unlabeled images that it read (`ti_80M_selected.pickle`, or SVHN's `extra`). Entry i
becomes the label of image i of the data module's unlabeled set, so the images must be in that order: put them into the
folder `unlabeled/` of an `ImageFolder`, with file names that sort in this order (`000000.png`, `000001.png`, ...), and
give `--data.class_counts LabeledFraction --data.class_counts.fraction 1.0`, so that no other images are unlabeled. The
pickle has no confidences: all become 1, and thresholds select every label.

A pickle can run any program when it is read. This reader makes arrays of numbers, dicts, lists, strings and numbers
alone, and refuses a pickle that names anything else.
"""

import pickle
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from jsonargparse import ArgumentParser
from numpy.typing import NDArray
from pytorch_lightning import seed_everything

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.bases.labeled_unlabeled import LabeledUnlabeledDataModule
from tailmatch.datamodules.pseudo_labels.columns import in_memory, key_column
from tailmatch.datamodules.pseudo_labels.files import check_output, write_pseudo_labels
from tailmatch.datamodules.pseudo_labels.labels import Origin

KEY = "extrapolated_targets"


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


def read_extrapolated_targets(path: Path) -> NDArray[np.int64]:
    """Read the labels of a pickle, `int64 [n]`, without running anything in it.

    Raises:
        SettingsError: The pickle holds something other than arrays and plain values, or no integers under
            `extrapolated_targets`.
    """
    with path.open("rb") as file:
        try:
            content = ArrayUnpickler(file, encoding="latin1").load()
            found = content.get(KEY) if isinstance(content, dict) else None
            targets = found.values if isinstance(found, _Array) else np.asarray(found)
        except Exception as error:  # a damaged pickle can raise whatever its operations raise
            raise SettingsError(f"{path} is not read: {error}") from error
    if targets.ndim != 1 or targets.dtype.kind not in "iu":
        raise SettingsError(f"{path} has no list of integers named {KEY}")
    return targets.astype(np.int64)


def convert(path: Path, output: Path, data: LabeledUnlabeledDataModule, overwrite: bool = False) -> None:
    """Write the labels of a pickle as the pseudo-label file of a data module.

    Raises:
        SettingsError: There are more or fewer labels than unlabeled images, or labels of other classes.
    """
    check_output(output, overwrite)
    label = read_extrapolated_targets(path)
    data.prepare_data()
    data.setup("predict")
    if len(label) != len(data.unlabeled):
        raise SettingsError(
            f"{path} has {len(label)} labels, and the data {len(data.unlabeled)} unlabeled images: give the images "
            "that it was made for, and no others"
        )
    if len(label) and not 0 <= label.min() <= label.max() < data.num_classes:
        raise SettingsError(
            f"{path} has labels from {label.min()} to {label.max()}, and the data {data.num_classes} classes"
        )
    pool = data.unlabeled.images
    columns = {
        "key": key_column(data.unlabeled, len(label)),
        "label": in_memory(label),
        "confidence": in_memory(np.ones(len(label), np.float32)),
    }
    write_pseudo_labels(output, columns, Origin(data.class_names, "", pool.fingerprint(), len(pool.pixels)))


def main(args: list[str] | None = None) -> None:
    """Convert from the command line."""
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
