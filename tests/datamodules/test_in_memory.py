"""The user's own images in memory: what is taken, what becomes labeled, what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from tailmatch.datamodules import InMemory, LabeledFraction
from tailmatch.datamodules.images import whole

GENERATOR = np.random.default_rng(0)
COLOR = GENERATOR.integers(0, 256, (12, 6, 8, 3), dtype=np.uint8)
TARGETS = [0, 1, 2] * 4


def pool(data: InMemory) -> torch.Tensor:
    pixels = data.load().train.pixels
    assert isinstance(pixels, torch.Tensor)
    return pixels


@pytest.mark.parametrize(
    "images",
    [
        COLOR,
        torch.from_numpy(COLOR),
        torch.from_numpy(COLOR).permute(0, 3, 1, 2),
        np.ascontiguousarray(COLOR.transpose(0, 3, 1, 2)),
        list(COLOR),
        [Image.fromarray(image) for image in COLOR],
        TensorDataset(torch.from_numpy(COLOR), torch.tensor(TARGETS)),
    ],
    ids=["NHWC array", "NHWC tensor", "NCHW tensor", "NCHW array", "list", "PIL", "Dataset"],
)
def test_images_of_every_kind_are_the_same_pixels(images: Any) -> None:
    data = InMemory(images, None if isinstance(images, Dataset) else TARGETS)
    assert torch.equal(pool(data), torch.from_numpy(COLOR).permute(0, 3, 1, 2))
    assert data.load().train.targets.tolist() == TARGETS and data.class_names == ["0", "1", "2"]


def test_gray_images_repeat_their_channel_and_paths_are_read(tmp_path: Path) -> None:
    gray = COLOR[..., 0]
    expected = torch.from_numpy(gray)[:, None].expand(-1, 3, -1, -1)
    assert torch.equal(pool(InMemory(gray, TARGETS)), expected)
    for place, image in enumerate(gray):
        Image.fromarray(image).save(tmp_path / f"{place:02}.png")
    assert torch.equal(pool(InMemory(sorted(tmp_path.iterdir()), TARGETS)), expected)


def test_channel_statistics_are_those_of_all_training_images() -> None:
    data = InMemory(COLOR[:5], TARGETS[:5], unlabeled=COLOR[5:])
    share = COLOR.astype(np.float64) / 255
    np.testing.assert_allclose(data.mean, share.mean((0, 1, 2)))
    np.testing.assert_allclose(data.std, share.std((0, 1, 2)))
    assert InMemory(COLOR, TARGETS, mean=(0.1, 0.2, 0.3)).mean == (0.1, 0.2, 0.3)


def test_names_come_from_targets_data_set_or_user() -> None:
    named = [["cat", "dog", "owl"][target] for target in TARGETS]
    by_name = InMemory(COLOR, named)
    assert (by_name.class_names, by_name.load().train.targets.tolist()) == (["cat", "dog", "owl"], TARGETS)
    assert InMemory(COLOR, named, class_names=["owl", "dog", "cat"]).load().train.targets.tolist()[:3] == [2, 1, 0]
    listed: Any = TensorDataset(torch.from_numpy(COLOR), torch.tensor(TARGETS))
    listed.classes = ["a", "b", "c", "d"]
    assert InMemory(listed).class_names == ["a", "b", "c", "d"]
    assert InMemory(COLOR, np.array(TARGETS), class_names=["x", "y", "z"]).class_names == ["x", "y", "z"]


def test_all_labels_are_used_where_others_lack_one_and_a_tenth_otherwise() -> None:
    apart = InMemory(COLOR[:6], TARGETS[:6], unlabeled=COLOR[6:], val=(COLOR[:3], TARGETS[:3]), seed=0)
    apart.setup("fit")
    assert (apart.class_counts, len(apart.unlabeled), len(apart.val or ())) == ([2, 2, 2], 6, 3)
    assert sorted(apart.unlabeled.rows.tolist()) == list(range(6, 12)) and apart.test is None
    marked = InMemory(COLOR, [*TARGETS[:6], *[None] * 3, *[-1] * 3], validate_on_test=False, seed=0)
    marked.setup("fit")
    assert (marked.class_counts, len(marked.unlabeled)) == ([2, 2, 2], 6)
    one = InMemory(COLOR, TARGETS, seed=0)
    one.setup("fit")
    assert (one.class_counts, len(one.unlabeled)) == ([1, 1, 1], 9)
    half = InMemory(COLOR, TARGETS, class_counts=LabeledFraction(0.5), val_holdout=1, test_holdout=1, seed=0)
    half.setup("fit")
    assert (half.class_counts, len(half.unlabeled), len(half.val or ()), len(half.test or ())) == ([1, 1, 1], 3, 3, 3)


def test_labels_of_an_unlabeled_data_set_are_not_looked_at() -> None:
    labeled = Subset(TensorDataset(torch.from_numpy(COLOR), torch.tensor(TARGETS)), range(6))
    data = InMemory(labeled, unlabeled=TensorDataset(torch.from_numpy(COLOR), torch.tensor(TARGETS)), test=labeled)
    assert data.load().train.targets.tolist() == [*TARGETS[:6], *[-1] * 12]
    test = data.load().test
    assert test is not None and whole(test).targets.tolist() == TARGETS[:6]


def test_images_of_several_sizes_are_brought_to_one() -> None:
    images = [Image.fromarray(COLOR[0]), Image.fromarray(COLOR[1][:, :6])]
    data = InMemory(images, [0, 1], unlabeled=COLOR, test=(COLOR, TARGETS), class_names=["a", "b", "c"], image_size=4)
    test = data.load().test
    assert pool(data).shape == (14, 3, 4, 4) and test is not None and test.pixels.shape == (12, 3, 4, 4)
    assert torch.equal(pool(data)[0], pool(data)[2])  # however it was given
    exact = pool(InMemory(images, [0, 1], image_size=(6, 6)))[1]  # the middle, and nothing to resize
    assert exact.tolist() == COLOR[1][:, :6].transpose(2, 0, 1).tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": COLOR}, "images has no targets: give them too"),
        ({"targets": TARGETS[:5]}, "images has 12 images and 5 targets"),
        (
            {"images": COLOR / 255},
            r"images: an image is a ndarray of float64 \[12, 6, 8, 3\], perhaps from a transform",
        ),
        (
            {"images": COLOR[..., :2], "targets": TARGETS},
            r"a ndarray of uint8 \[12, 6, 8, 2\], perhaps with transparency",
        ),
        ({"images": [COLOR[0], COLOR[1][:, :5]], "targets": [0, 1]}, "images have 2 sizes: give image_size"),
        ({"unlabeled": COLOR[:, :5]}, r"images have the size \(6, 8\), and unlabeled \(5, 8\): give image_size"),
        ({"class_names": ["a", "b"]}, "targets have 2, and there are 2 classes: a, b"),
        ({"test": (COLOR, [7] * 12)}, "targets of test have 7, and there are 3 classes"),
        ({"targets": [0.5] * 12}, "targets are 0.5; they must be numbers from 0, or names"),
        ({"targets": np.eye(3)[TARGETS]}, r"targets are \[12, 3\]; they must be \[N\]"),
        ({"targets": [[0, 1]] * 12}, r"a target is \[0, 1\]; it must be a number or a name"),
        ({"targets": 3}, "targets are a int; they must be a list"),
        ({"targets": dict.fromkeys(range(12), 1)}, "targets are a dict; they must be a list"),
        ({"test": (COLOR, np.zeros((12, 1)))}, r"targets of test are \[12, 1\]"),
        ({"targets": [-1] * 12}, "targets are all unknown; they must be"),
        ({"images": TensorDataset(torch.from_numpy(COLOR))}, r"whose items are not \(image, label\)"),
        ({"images": TensorDataset(torch.from_numpy(COLOR)), "targets": TARGETS}, "which has its own targets"),
        ({"images": "a folder"}, "images: a str is no set of images"),
        ({"images": ["missing.png"], "targets": [0]}, "images: missing.png: there is no such file"),
        ({"images": [__file__], "targets": [0], "image_size": 8}, "test_in_memory.py: no image of a known format"),
        ({"images": []}, "images: there are no images"),
        ({"unlabeled": COLOR[:0]}, "unlabeled: there are no images"),
        ({"image_size": 0}, "image_size is 0; it must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, Any], message: str) -> None:
    own = isinstance(arguments.get("images"), Dataset) or arguments.get("images") is COLOR
    with pytest.raises(ValueError, match=message):
        InMemory(**{"images": COLOR, **({} if own else {"targets": TARGETS}), **arguments})


def test_a_stream_is_refused() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(())

    with pytest.raises(ValueError, match="images is a Stream; it must have a length"):
        InMemory(Stream())
