"""Warnings of splits, by hand."""

import torch

from tailmatch.datamodules import Digits
from tailmatch.datamodules.images import ImageRows, Images
from tailmatch.datamodules.splitting.split_warnings import duplicate_warnings, name_warnings, split_warnings


def test_classes_that_will_hurt_are_named() -> None:
    table = {"labeled": [5, 1, 0], "unlabeled": [0, 0, 0], "validation": [2, 0, 3], "test": [0, 0, 0]}
    none, one, unmeasured = split_warnings(table, ["a", "b", "c"])  # no word of test: there is no such set
    assert none.startswith("1 class (c) without a labeled image")
    assert one.startswith("1 class (b) with one labeled image")
    assert unmeasured.startswith("1 class (b) without a validation image")
    assert split_warnings({"labeled": [2, 2], "unlabeled": [0, 0], "test": [1, 1]}, ["a", "b"]) == []


def test_names_that_are_probably_slips_are_told() -> None:
    alike, empty = name_warnings(["cat", "Cat ", "dog", "NaN", "dog  house", "Dog house"])
    assert "'cat', 'Cat ', 'dog  house', 'Dog house'" in alike and "NaN" in empty
    assert name_warnings(["cat", "dog", "NA"]) == []


def test_many_classes_are_counted() -> None:
    [warning] = split_warnings({"labeled": [1] * 7, "unlabeled": [0] * 7}, [f"c{k}" for k in range(7)])
    assert warning.startswith("7 classes (c0, c1, c2, c3, c4 and 2 more)")


def pool(digests: list[int], name: str) -> Images:
    keys = tuple(f"{name}{k}" for k in range(len(digests)))
    parts = torch.tensor(digests, dtype=torch.uint8)[:, None].repeat(1, 16)
    pixels = torch.zeros(len(digests), 3, 2, 2, dtype=torch.uint8)
    return Images(pixels, torch.zeros(len(digests), dtype=torch.int64), keys=keys, digests=parts)


def test_contents_in_two_sets_are_named() -> None:
    train = ImageRows(pool([1, 2, 3, 3], "a"), torch.tensor([0, 2, 3]))
    val = ImageRows(pool([3, 2, 7], "b"), torch.arange(3))  # 2 is not among the rows of train
    test = ImageRows(pool([7, 7, 9], "c"), torch.arange(3))
    first, second = duplicate_warnings({"training": train, "validation": val, "test": test})
    assert first.startswith("1 validation image has the same content as a training image") and first.endswith(": b0")
    assert second.startswith("2 test images have the same content as a validation") and second.endswith(": c0, c1")
    assert duplicate_warnings({"validation": val, "test": val}) == []
    assert duplicate_warnings({"training": train, "validation": None}) == []


def test_data_without_files_is_not_compared() -> None:
    data = Digits()
    data.setup("fit")
    assert data.warnings() == []
