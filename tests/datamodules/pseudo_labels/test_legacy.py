"""Pickles of imbalanced-semi-self: their arrays are read, and nothing in them runs."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tailmatch.datamodules import Digits, LabeledFraction, ListedCounts
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.images import Sources
from tailmatch.datamodules.pseudo_labels.files import read_pseudo_labels
from tailmatch.datamodules.pseudo_labels.legacy import convert, read_legacy_labels


def saved(path: Path, content: Any, protocol: int = 3) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_protocol_are_read(protocol: int, tmp_path: Path) -> None:
    labels = np.array([3, 1, 200], np.int16)
    content = {"extrapolated_targets": labels, "prediction_model": "ckpt.pth.tar", "accuracy": np.float32(0.5)}
    path = saved(tmp_path / "labels.pickle", content, protocol)
    assert read_legacy_labels(path).label.tolist() == [3, 1, 200]


def test_the_names_of_numpy_1_are_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "labels.pickle", {"extrapolated_targets": np.array([2, 0])}, protocol=2)
    path.write_bytes(path.read_bytes().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert read_legacy_labels(path).label.tolist() == [2, 0]


class Attack:
    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.call = function, args, state

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("function", ["system", "eval", "load"])
def test_nothing_in_a_pickle_runs(function: str, protocol: int, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    attack = {
        "system": Attack(os.system, f"touch {trace}"),
        "eval": Attack(eval, f"open({str(trace)!r}, 'w')"),
        "load": Attack(np.load, str(trace), None, True),
    }[function]
    path = saved(tmp_path / "labels.pickle", {"extrapolated_targets": np.array([1]), "more": attack}, protocol)
    with pytest.raises(ValueError, match="which is no part of an array"):
        read_legacy_labels(path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Attack(open, str(trace), "w")))  # that would have run
    assert trace.exists()


class ArrayOfAddresses:
    """Pickles to an array of objects that lie wherever its bytes say; numpy reads it, and ends with a broken memory."""

    def __reduce__(self) -> tuple[Any, ...]:
        addresses = Attack(np.dtype, "O8", False, True, state=(3, "|", None, None, None, -1, -1, 0))
        return np.empty(0).__reduce__()[0], (np.ndarray, (0,), b"b"), (1, (4,), addresses, False, b"A" * 32)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_array_of_objects_is_made(protocol: int, tmp_path: Path) -> None:
    for content in ({"extrapolated_targets": ArrayOfAddresses()}, {"x": Attack(np.ndarray, ArrayOfAddresses())}):
        with pytest.raises(SettingsError, match="it has an array of O8, and no numbers"):
            read_legacy_labels(saved(tmp_path / "labels.pickle", content, protocol))


def test_an_array_larger_than_its_bytes_is_refused(tmp_path: Path) -> None:
    array, from_buffer = np.arange(3), np.empty(1).__reduce_ex__(5)[0]
    for shape in ((10**12,), (2,), (-1, 7)):
        path = saved(
            tmp_path / "labels.pickle",
            {"extrapolated_targets": Attack(from_buffer, array.tobytes(), array.dtype, shape, "C")},
        )
        with pytest.raises(SettingsError, match="labels.pickle is not read"):
            read_legacy_labels(path)


@pytest.mark.parametrize(
    "content",
    [{"targets": np.arange(3)}, np.arange(3), {"extrapolated_targets": np.ones(3)}, {"extrapolated_targets": 1}],
)
def test_other_content_is_refused(content: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no list of integers named extrapolated_targets"):
        read_legacy_labels(saved(tmp_path / "labels.pickle", content))


def test_entry_i_becomes_the_label_of_unlabeled_image_i_of_the_data_set(tmp_path: Path) -> None:
    data = Digits(class_counts=LabeledFraction(0.9))
    data.setup("predict")
    labels = np.arange(len(data.unlabeled)) % 10
    path, output = saved(tmp_path / "l.pickle", {"extrapolated_targets": labels}), tmp_path / "l.npz"
    convert(path, output, data)
    file = read_pseudo_labels(output)
    order = data.unlabeled.rows.sort().indices  # the set itself is permuted
    assert np.array_equal(file.key, data.unlabeled.rows[order].numpy()) and np.array_equal(file.label, labels)
    assert set(file.confidence.tolist()) == {1.0} and file.origin.checkpoint == ""
    assert file.align(data.unlabeled, data.class_names).label[order].tolist() == labels.tolist()
    with pytest.raises(ValueError, match="exists"):
        convert(path, output, data)
    for wrong, message in ((labels[1:], f"has {len(labels) - 1} labels"), (labels + 1, "labels from 1 to 10")):
        with pytest.raises(ValueError, match=message):
            convert(saved(path, {"extrapolated_targets": wrong}), output, data, overwrite=True)


class NumberedHouses(Digits):
    """Digits as SVHN has them: the digit 0 is the last class, and unlabeled images come from a pool of their own."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.class_names = list("1234567890")

    def load(self) -> Sources:
        train = super().load().train
        return Sources(train=replace(train, targets=(train.targets - 1) % 10), unlabeled_from=1000)


def test_a_file_of_the_whole_pool_serves_a_subset_and_its_digits_are_translated(tmp_path: Path) -> None:
    data = NumberedHouses(class_counts=ListedCounts([20] * 10, list(range(40, 50))))
    data.setup("predict")
    pool = data.unlabeled.images
    digits = (pool.targets[1000:].numpy() + 1) % 10  # a perfect teacher
    content = {"extrapolated_targets": digits.astype(np.uint8), "ground_truth": digits, "prediction_model": "c.pth.tar"}
    path, output = saved(tmp_path / "l.pickle", content), tmp_path / "l.npz"
    convert(path, output, data)
    aligned = read_pseudo_labels(output).align(data.unlabeled, data.class_names)
    assert len(data.unlabeled) == sum(range(40, 50))
    assert torch.equal(aligned.label, data.unlabeled.targets)  # every label is right

    shifted = content | {"ground_truth": np.roll(digits, 1)}
    with pytest.raises(ValueError, match=r"ground_truth of .* contradicts the class of \d+ of 797 images"):
        convert(saved(path, shifted), output, data, overwrite=True)
    with pytest.raises(ValueError, match="has 796 labels, and the data 797 images"):
        convert(saved(path, {"extrapolated_targets": digits[1:]}), output, data, overwrite=True)
    with pytest.raises(ValueError, match="ground_truth that is not a list of 797 integers"):
        convert(saved(path, content | {"ground_truth": digits[1:]}), output, data, overwrite=True)


def test_the_command(tmp_path: Path) -> None:
    data = Digits(class_counts=LabeledFraction(0.9), seed=0)
    data.setup("predict")
    path = saved(tmp_path / "l.pickle", {"extrapolated_targets": np.zeros(len(data.unlabeled), int)})
    command = [
        sys.executable, "-m", "tailmatch.datamodules.pseudo_labels.legacy", str(path), str(tmp_path / "l.npz"),
        "--data=Digits", "--data.class_counts=LabeledFraction", "--data.class_counts.fraction=0.9",
    ]  # fmt: skip
    root = Path(__file__).parent.parent.parent.parent
    result = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=120)
    assert result.returncode == 0, result.stderr
    assert np.array_equal(read_pseudo_labels(tmp_path / "l.npz").key, data.unlabeled.rows.sort().values.numpy())
