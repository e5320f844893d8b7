"""Pseudo-label files: what is written is read, attached by key, and refused where it does not belong."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tailmatch.datamodules import Digits, ImageFolder, LabeledFraction
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.images import ImageBlocks, ImageRows, Images
from tailmatch.datamodules.pseudo_labels.columns import Column, in_memory, key_column
from tailmatch.datamodules.pseudo_labels.files import check_output, read_pseudo_labels, write_pseudo_labels
from tailmatch.datamodules.pseudo_labels.labels import ROW_ARRAYS, Origin, PseudoLabelFile
from tailmatch.datamodules.pseudo_labels.matching import within

NAMES = ["ant", "bee", "cow"]


def pool(keys: bool = True, fill: int = 0) -> Images:
    """Six images, named a to f or by their place."""
    pixels = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 3, 2, 2) + fill
    names = tuple("abcdef") if keys else None
    sizes = torch.arange(6) if keys else None
    return Images(pixels, torch.tensor([0, 1, 2, -1, -1, -1]), names, sizes)


def file(images: Images, rows: list[int], probs: bool = False) -> PseudoLabelFile:
    key: Any = np.array(rows) if images.keys is None else np.array([images.keys[row] for row in rows])
    label = np.array([row % 3 for row in rows])
    confidence = np.array([row / 10 for row in rows], np.float32)
    return PseudoLabelFile(
        key,
        label,
        confidence,
        np.eye(3, dtype=np.float32)[label] if probs else None,
        Origin.of(images, NAMES, "c0ffee"),
        None if images.file_sizes is None else images.file_sizes[rows].numpy(),
        None if images.file_sizes is None else np.array([[row, 7] for row in rows], np.uint8),
    )


def former(images: Images, rows: list[int]) -> PseudoLabelFile:
    """A file of earlier versions: image files in format 1."""
    return replace(file(images, rows), size=None, digest=None, origin=Origin(NAMES, "", images.fingerprint(), 6))


def columns(content: PseudoLabelFile, chunk: int) -> dict[str, Column]:
    def column(array: Any) -> Column:
        cut = range(0, len(array), chunk)
        return Column(array.dtype, array.shape, lambda: iter([array[start : start + chunk] for start in cut]))

    return {name: column(getattr(content, name)) for name in ROW_ARRAYS if getattr(content, name) is not None}


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
@pytest.mark.parametrize("keys", [True, False])
@pytest.mark.parametrize("probs", [True, False])
def test_a_file_reads_as_it_was_written(suffix: str, keys: bool, probs: bool, tmp_path: Path) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    content = file(pool(keys), [5, 3, 4], probs)
    digests = []
    for name, chunk in (("first", 2), ("second", 2)):
        path = tmp_path / f"{name}.{suffix}"
        write_pseudo_labels(path, columns(content, chunk), content.origin)
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
        read = read_pseudo_labels(path)
        for part in ROW_ARRAYS:
            assert np.array_equal(getattr(read, part), getattr(content, part)), part
        assert read.origin == content.origin
    assert digests[0] == digests[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"first.{suffix}", f"second.{suffix}"]


def test_an_npz_file_is_what_numpy_reads_and_does_not_depend_on_the_chunks(tmp_path: Path) -> None:
    content = file(pool(), [5, 3, 4])
    for chunk in (1, 3):
        write_pseudo_labels(tmp_path / f"{chunk}.npz", columns(content, chunk), content.origin)
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "3.npz").read_bytes()
    with np.load(tmp_path / "1.npz", allow_pickle=False) as arrays:
        assert arrays["key"].tolist() == ["f", "d", "e"] and arrays["label"].tolist() == [2, 0, 1]
        assert arrays["class_names"].tolist() == NAMES and int(arrays["format"]) == 2
        assert arrays["size"].tolist() == [5, 3, 4] and "pool" not in arrays


def test_labels_attach_by_key_in_the_order_of_the_unlabeled_set() -> None:
    images = pool()
    labels = file(images, [5, 3], probs=True).align(ImageRows(images, torch.tensor([3, 4, 5])), NAMES)
    assert labels.label.tolist() == [0, -1, 2]  # d, e (which has no row), f
    assert labels.confidence.tolist() == pytest.approx([0.3, 0.0, 0.5])
    assert labels.probs is not None and labels.probs.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]
    images = pool(keys=False)
    assert file(images, [4, 5, 3]).align(ImageRows(images, torch.tensor([3, 5, 4])), NAMES).label.tolist() == [0, 2, 1]


def test_a_file_of_the_pool_is_split_into_labeled_and_unlabeled() -> None:
    images = pool()
    labeled, unlabeled = ImageRows(images, torch.tensor([2, 0])), ImageRows(images, torch.tensor([3, 4]), labeled=False)
    content = file(images, [4, 0, 3, 2], probs=True)
    assert content.align(unlabeled, NAMES, beside=labeled).label.tolist() == [0, 1]
    labels = content.align(labeled, NAMES, beside=unlabeled)
    assert labels.label.tolist() == [2, 0] and labels.confidence.tolist() == pytest.approx([0.2, 0.0])
    assert labels.probs is not None and labels.probs.tolist() == [[0, 0, 1], [1, 0, 0]]
    with pytest.raises(ValueError, match=r"1 of its 2 images are held out here or left out \(f\)"):
        file(images, [5, 3]).align(labeled, NAMES, beside=unlabeled)


@pytest.mark.parametrize(
    ("rows", "names", "fill", "message"),
    [
        ([3, 4], ["ant", "bee", "dog"], 0, r"other classes: only there \['cow'\], only here \['dog'\]"),
        ([3, 4], ["bee", "ant", "cow"], 0, "the same names in another order"),
        ([3, 4], NAMES, 1, "another data set, of 6 images; this one has 6, other ones"),
        ([2, 3, 0], NAMES, 0, r"2 of its 3 images are not unlabeled here .*\(2, 0\)"),
        ([3, 4, 3], NAMES, 0, "1 of its rows name an image that has a row already"),
        ([3, 17], NAMES, 0, "1 keys name no image of this data set: 17"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(rows: list[int], names: list[str], fill: int, message: str) -> None:
    content = file(pool(keys=False), rows)
    with pytest.raises(ValueError, match=message):
        content.align(ImageRows(pool(keys=False, fill=fill), torch.tensor([3, 4, 5])), names)


def test_a_key_of_another_folder_is_refused() -> None:
    content = replace(file(pool(), [3]), key=np.array(["x"]))
    with pytest.raises(ValueError, match="1 keys name no image of this data set: x"):
        content.align(ImageRows(pool(), torch.tensor([3])), NAMES)


def test_a_file_of_an_earlier_version_is_read_and_is_of_one_pool(tmp_path: Path) -> None:
    content = former(pool(), [5, 3])
    write_pseudo_labels(tmp_path / "former.npz", columns(content, 2), content.origin)
    with np.load(tmp_path / "former.npz") as arrays:
        assert int(arrays["format"]) == 1 and "size" not in arrays
    read = within(read_pseudo_labels(tmp_path / "former.npz"), pool())
    assert read.align(ImageRows(pool(), torch.tensor([3, 4, 5])), NAMES).label.tolist() == [0, -1, 2]
    with pytest.raises(SettingsError, match="another data set, of 6 images; this one has 3"):
        within(read, part := subset([3, 4, 5])).align(ImageRows(part, torch.arange(3)), NAMES)


def subset(rows: list[int]) -> Images:
    """A pool of some of the six files."""
    every, sizes, place = pool(), torch.arange(6), torch.tensor(rows)
    return Images(every.pixels[place], every.targets[place], tuple("abcdef"[row] for row in rows), sizes[place])


def test_a_file_fits_a_pool_of_more_images_than_it_covers() -> None:
    part = file(subset([3, 5]), [0, 1])
    assert within(part, pool()).align(ImageRows(pool(), torch.tensor([3, 4, 5])), NAMES).label.tolist() == [0, -1, 1]


def test_rows_of_other_pools_are_left_out_and_named() -> None:
    here = subset([3, 4])
    every = replace(file(pool(), [1, 2, 3, 4, 5]), size=np.array([1, 2, 3, 40, 5]))
    with pytest.warns(UserWarning) as warned:
        found = within(every, here)
    assert [str(warning.message) for warning in warned] == [
        "of 5 rows of pseudo_labels, 3 name no image of this data set (b, c, f) and 1 are of files of another size "
        "(e: 40 bytes, here 4); they are not used"
    ]
    assert found.key.tolist() == ["d"] and found.align(ImageRows(here, torch.arange(2)), NAMES).label.tolist() == [
        0,
        -1,
    ]
    with pytest.raises(SettingsError, match="3 keys name no image of this data set: b, c, f"):
        every.align(ImageRows(here, torch.arange(2)), NAMES)


def test_of_two_pools_with_like_names_each_image_gets_the_row_of_its_file() -> None:
    both = replace(file(pool(), [3, 3]), label=np.array([1, 2]), size=np.array([99, 3]))
    with pytest.warns(UserWarning, match=r"1 are of files of another size \(d: 99 bytes, here 3\)"):
        found = within(both, pool())
    assert found.align(ImageRows(pool(), torch.tensor([3])), NAMES).label.tolist() == [2]


def test_a_file_without_an_image_of_the_pool_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"no image of this data set: of 2 rows, 2 name no image .*\(a, b\)"):
        within(file(pool(), [0, 1]), subset([3, 4]))
    with pytest.raises(SettingsError, match="the images of this data set are not from files"):
        content = file(pool(), [3])
        within(content, pool(keys=False)).align(ImageRows(pool(keys=False), torch.tensor([3])), NAMES)


def test_fingerprints_tell_pools_apart_and_files_at_any_image_size(tmp_path: Path) -> None:
    assert pool(keys=False).fingerprint() == pool(keys=False).fingerprint() != pool(keys=False, fill=1).fingerprint()
    for name in ("train/a/1.png", "train/b/2.png", "unlabeled/3.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (ord(name[-5]), 0, 0)).save(path)

    def folder(size: int) -> Images:
        data = ImageFolder(str(tmp_path / "images"), image_size=size, cache_dir=str(tmp_path / "cache"))
        return data.load().train

    small, large = folder(4), folder(8)
    assert small.keys == ("train/a/1.png", "train/b/2.png", "unlabeled/3.png")
    assert small.fingerprint() == large.fingerprint()
    Image.new("RGB", (9, 30), (1, 2, 3)).save(tmp_path / "images" / "unlabeled" / "3.png")
    assert folder(4).fingerprint() != small.fingerprint()


def test_what_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    there = tmp_path / "there.npz"
    there.write_bytes(b"")
    with pytest.raises(ValueError, match=r"there.npz exists: remove it, name another output"):
        check_output(there, overwrite=False)
    check_output(there, overwrite=True)
    with pytest.raises(ValueError, match=r"output is labels.csv; its name must end in .npz or .parquet"):
        check_output(Path("labels.csv"), overwrite=False)


def test_what_is_no_pseudo_label_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.npz"
    with pytest.raises(FileNotFoundError, match="no pseudo-label file"):
        read_pseudo_labels(path)
    path.write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(ValueError, match="it is no archive of arrays"):
        read_pseudo_labels(path)
    facts = {"class_names": NAMES, "checkpoint": "", "fingerprint": "", "pool": 1, "format": 1}
    np.savez(path, key=np.array([{"an": "object"}]), label=np.zeros(1), confidence=np.zeros(1), **facts)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="labels.npz is not a pseudo-label file: Object arrays cannot be loaded"):
        read_pseudo_labels(path)
    content = file(pool(), [3, 4])
    write_pseudo_labels(path, columns(content, 2), content.origin)
    whole = path.read_bytes()
    for damaged in (whole[:-40], whole[: len(whole) // 2], whole.replace(b"label.npy", b"lebal.npy")):
        path.write_bytes(damaged)
        with pytest.raises(SettingsError, match="labels.npz is not a pseudo-label file: "):
            read_pseudo_labels(path)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no rows": (
        {
            name: np.zeros(0, kind)
            for name, kind in (("key", "U1"), ("size", int), ("label", int), ("confidence", "f4"))
        },
        "no rows",
    ),
    "labels out of range": ({"label": np.array([0, 3])}, r"label of e is 3; it must be 0 to 2 \(1 such rows of 2\)"),
    "negative labels": ({"label": np.array([-1, 0])}, "label of d is -1"),
    "labels that are no whole numbers": ({"label": np.array([0.5, 1.5])}, r"label is float64 \[2\]; it must be whole"),
    "labels of text": ({"label": np.array(["ant", "bee"])}, r"label is <U3 \[2\]; it must be whole numbers"),
    "fewer labels": ({"label": np.array([0])}, r"label is int64 \[1\]; it must be whole numbers \[2\]"),
    "confidence of NaN": (
        {"confidence": np.array([0.5, np.nan], "f4")},
        r"confidence of e is nan; it must be in \[0, 1\]",
    ),
    "confidence of 1e9": ({"confidence": np.array([1e9, 0.5], "f4")}, "confidence of d is 1000000000.0"),
    "negative confidence": ({"confidence": np.array([0.5, -1], "f4")}, "confidence of e is -1.0"),
    "infinite confidence": ({"confidence": np.array([np.inf, np.inf])}, r"of d is inf; .* \(2 such rows of 2\)"),
    "confidence of whole numbers": ({"confidence": np.array([1, 0])}, "confidence is int64"),
    "confidence of text": ({"confidence": np.array(["1", "0"])}, "confidence is <U1"),
    "probs with a sum of 10": (
        {"probs": np.full((2, 3), 10 / 3, "f4")},
        "probs of d is .*; it must be at least 0 with a sum",
    ),
    "probs that contradict": (
        {"probs": np.eye(3, dtype="f4")[[1, 1]]},
        "label of d is 0; it must be the class with the largest",
    ),
    "probs of NaN": ({"probs": np.full((2, 3), np.nan, "f4")}, "probs of d is "),
    "negative probs": ({"probs": np.array([[2, -1, 0], [0, 1, 0]], "f4")}, "probs of d is "),
    "probs of another shape": ({"probs": np.ones((2, 1), "f4")}, r"probs is float32 \[2, 1\]; .* \[2, 3\]"),
    "keys of numbers": ({"key": np.array([0.5, 1])}, "key is float64"),
    "keys of whole numbers": ({"key": np.array([3, 4])}, "key is int64; in format 2 it must be text"),
    "negative sizes": ({"size": np.array([3, -4])}, "size of e is -4; it must be at least 0"),
    "sizes of text": ({"size": np.array(["3", "4"])}, r"size is <U1 \[2\]; it must be whole numbers \[2\]"),
    "digests of text": ({"digest": np.array(["3", "4"])}, r"digest is <U1 \[2\]; it must be unsigned whole numbers"),
    "keys of another shape": ({"key": np.array([["d", "e"], ["f", "g"]])}, "key is <U1"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_rows_that_mean_nothing_are_refused(wrong: str, tmp_path: Path) -> None:
    arrays, message = WRONG[wrong]
    content = file(pool(), [3, 4])
    path = tmp_path / "labels.npz"
    changed = {**columns(content, 2), **{name: in_memory(array) for name, array in arrays.items()}}
    write_pseudo_labels(path, changed, content.origin)
    with pytest.raises(SettingsError, match=f"labels.npz is not a pseudo-label file: .*{message}"):
        read_pseudo_labels(path)


@pytest.mark.parametrize(
    ("fact", "value"),
    [("class_names", ["ant", "ant", "cow"]), ("class_names", "ant"), ("pool", 1.5), ("fingerprint", 7)],
)
def test_facts_that_mean_nothing_are_refused(fact: str, value: Any, tmp_path: Path) -> None:
    content = former(pool(), [3, 4])
    write_pseudo_labels(tmp_path / "labels.npz", columns(content, 2), replace(content.origin, **{fact: value}))
    with pytest.raises(SettingsError, match=f"is not a pseudo-label file: {fact} "):
        read_pseudo_labels(tmp_path / "labels.npz")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": 3}, "its format is 3; formats 1 and 2 are read"),
        ({"format": 1}, "it has no fingerprint and no pool"),
        ({"format": None}, "its format is None"),
        ({"size": None}, "it has no size"),
    ],
)
def test_a_file_of_another_format_is_refused(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    content = file(pool(), [3, 4])
    write_pseudo_labels(tmp_path / "labels.npz", columns(content, 2), content.origin)
    with np.load(tmp_path / "labels.npz") as members:
        arrays = {**members, **changed}
    np.savez(tmp_path / "labels.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(SettingsError, match=f"labels.npz is not a pseudo-label file: {message}"):
        read_pseudo_labels(tmp_path / "labels.npz")


def test_keys_come_in_chunks() -> None:
    images = pool()
    column = key_column(ImageRows(images, torch.tensor([5, 0, 3])), 2)
    assert [chunk.tolist() for chunk in column.chunks()] == [["f", "a"], ["d"]] and column.shape == (3,)


def test_blocks_cover_the_unlabeled_images_once_in_order() -> None:
    data = Digits(class_counts=LabeledFraction(0.5), eval_batch_size=100)
    data.setup("predict")
    batches = list(data.predict_dataloader())
    assert torch.equal(torch.cat([batch["index"] for batch in batches]), torch.arange(len(data.unlabeled)))
    assert {len(batch["index"]) for batch in batches[:-1]} == {100} and "target" not in batches[0]
    blocks = ImageBlocks(data.unlabeled, 100)
    assert len(blocks) == len(batches)
    assert torch.equal(blocks[1]["image"], data.unlabeled.__getitems__(list(range(100, 200)))["image"])
    data._place = lambda: {"rank": 1, "world_size": 2}  # type: ignore[method-assign]
    assert [int(batch["index"][0]) for batch in data.predict_dataloader()] == [100, 300, 500][: len(batches) // 2]
    data._place = lambda: {"rank": 9, "world_size": 10}  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="fewer than 10 processes"):
        data.predict_dataloader()
