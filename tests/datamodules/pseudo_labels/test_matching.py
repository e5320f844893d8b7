"""Rows of pseudo-label files and the images that they are of: by path and size, or by content."""

import numpy as np
import pytest
import torch

from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.images import Images
from tailmatch.datamodules.pseudo_labels.labels import Origin, PseudoLabelFile
from tailmatch.datamodules.pseudo_labels.matching import match, within


def images(**contents: int) -> Images:
    """Files by name, all of 5 bytes, whose content is a number."""
    digests = torch.tensor([[content, 9] for content in contents.values()], dtype=torch.uint8)
    count = len(contents)
    sizes = torch.full((count,), 5)
    pixels = torch.zeros(count, 3, 2, 2, dtype=torch.uint8)
    return Images(pixels, torch.full((count,), -1), tuple(contents), sizes, digests=digests)


def rows(*files: tuple[str, int]) -> PseudoLabelFile:
    """Rows of files by name and content, labeled 0, 1, ..."""
    keys = np.array([name for name, _ in files])
    digests = np.array([[content, 9] for _, content in files], np.uint8)
    count = len(files)
    return PseudoLabelFile(
        keys,
        np.arange(count),
        np.ones(count, np.float32),
        None,
        Origin([str(k) for k in range(count)] or ["0"], ""),
        np.full(count, 5),
        digests,
    )


def test_a_row_of_another_folder_is_known_by_its_content() -> None:
    here = images(**{"pool/a": 1, "pool/b": 2, "train/c": 3})
    found = match(rows(("b", 2), ("a", 1), ("z", 8)), here)
    assert found.places.tolist() == [1, 0, -1] and found.moved == 2
    assert found.reasons == ["1 name no image of this data set (z)"]


def test_a_file_that_was_changed_in_place_has_no_row() -> None:
    found = match(rows(("a", 7), ("b", 2)), images(a=1, b=2))
    assert found.places.tolist() == [-1, 1] and found.reasons == ["1 are of files of another content (a)"]


def test_files_that_swapped_their_names_keep_their_rows() -> None:
    found = match(rows(("a", 2), ("b", 1)), images(a=1, b=2))
    assert found.places.tolist() == [1, 0] and found.moved == 2 and not found.reasons


def test_of_equal_contents_each_image_gets_one_row() -> None:
    here = images(**{"pool/a": 1, "pool/b": 1, "c": 1})
    found = match(rows(("c", 1), ("x", 1), ("y", 1), ("z", 1)), here)
    assert found.places.tolist() == [2, 0, 1, -1]


def test_rows_get_the_paths_of_their_images() -> None:
    assert within(rows(("b", 2), ("a", 1)), images(**{"pool/a": 1, "pool/b": 2})).key.tolist() == ["pool/b", "pool/a"]
    with pytest.raises(SettingsError, match="of 1 rows, 1 name no image .*path and size, or"):
        within(rows(("b", 2)), images(a=1))
