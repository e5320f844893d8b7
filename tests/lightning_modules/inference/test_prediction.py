"""Predictions from Python: images of every kind, prepared as in training, and equal to those of the Trainer."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader, TensorDataset

from tailmatch.datamodules import Digits, UnlabeledImages
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.lightning_modules import Ensemble, RotationPretraining, Supervised
from tailmatch.lightning_modules.inference.prediction import Predictions
from tailmatch.lightning_modules.networks import CategoryNetwork, CifarResNet
from tests.trained_files import shaken, trained_file

NAMES = ["cat", "dog", "owl"]
small = partial(CifarResNet, depth=8)


def method(network: Any = small, size: list[int] | None = None) -> Supervised:
    """A method as if it were trained on images of 8 x 8 pixels."""
    made = Supervised(3, network=network)
    shaken(made.network, 1)
    made.class_names, made.image_size = NAMES, size or [8, 8]
    return made


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Files of several sizes and kinds, one of them turned by its EXIF tag."""
    random = np.random.default_rng(0)
    folder = tmp_path / "photos"
    (folder / "b").mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    color = random.integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(color).save(folder / "a.jpg", exif=exif)
    Image.fromarray(color[:, :, 0]).save(folder / "b/gray.png")
    Image.fromarray(np.dstack([color, color[:, :, :1]])).save(folder / "b/transparent.png")
    Image.fromarray(color[:8, :8]).save(folder / "c.png")
    return folder


def test_a_folder_is_predicted_as_the_trainer_predicts_it(photos: Path, tmp_path: Path) -> None:
    model = method()
    found = model.predict(photos)
    data = UnlabeledImages(str(photos), NAMES, image_size=8, cache_dir=str(tmp_path / "cache"))
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    [expected] = trainer.predict(model, data) or []
    assert torch.equal(found.probs, expected["probs"])  # type: ignore[call-overload]
    files = ["a.jpg", "b/gray.png", "b/transparent.png", "c.png"]
    assert found.files == [str(photos / name) for name in files] and len(found) == 4
    assert found.names == [NAMES[label] for label in found.probs.argmax(dim=1)]
    in_parts = model.predict([str(photos / files[0]), *(photos / name for name in files[1:])], batch_size=3)
    torch.testing.assert_close(in_parts.probs, found.probs)


def test_the_same_pixels_in_every_form_are_the_same_prediction(photos: Path) -> None:
    model = method()
    array = np.asarray(Image.open(photos / "c.png"))
    tensor = torch.from_numpy(array.copy())
    expected = model.predict(photos / "c.png").probs
    for image in (
        array,
        tensor,
        tensor.permute(2, 0, 1),
        Image.open(photos / "c.png"),
        [array],
        array[None],
        tensor.permute(2, 0, 1)[None],
        [[photos / "c.png"]],
    ):
        assert torch.equal(model.predict(image).probs, expected)
    gray = np.asarray(Image.open(photos / "b/gray.png"))
    stack = np.stack([gray, gray])
    same = [model.predict(each).probs[0] for each in (photos / "b/gray.png", gray, stack, Image.fromarray(gray))]
    for probs in same:
        torch.testing.assert_close(probs, same[0])


def test_images_are_brought_to_the_size_of_the_training(photos: Path) -> None:
    wide = method(size=[8, 16]).predict([photos / "a.jpg", np.zeros((8, 16, 3), dtype=np.uint8)])
    assert wide.probs.shape == (2, 3)
    assert torch.equal(method().predict(photos, image_size=16).probs, method(size=[16, 16]).predict(photos).probs)
    unknown = method()
    unknown.image_size = None
    assert torch.equal(unknown.predict(photos / "c.png").probs, method().predict(photos / "c.png").probs)
    with pytest.raises(ValueError, match="images have 3 sizes: give image_size"):
        unknown.predict(photos)


def test_modes_come_back_and_no_gradient_is_kept() -> None:
    model = method()
    model.train()
    model.network.head.eval()
    found = model.predict(np.zeros((8, 8), dtype=np.uint8))
    assert model.training and model.network.backbone.training and not model.network.head.training
    assert not found.probs.requires_grad
    torch.testing.assert_close(found.probs, model.eval()(torch.zeros(1, 3, 8, 8)).softmax(dim=1).detach())


def test_the_result_shows_names_and_is_short() -> None:
    probs = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]])
    found = Predictions(probs, NAMES, ["a.png", None])
    assert repr(found) == "Predictions of 2 images (a.png: dog 0.700, cat 0.500)"
    assert (found.names, found.labels.tolist()) == (["dog", "cat"], [1, 0])
    assert found.confidence.tolist() == pytest.approx([0.7, 0.5])
    assert repr(Predictions(probs.repeat(4, 1), NAMES, [None] * 8)).endswith("dog 0.700, and 3 more)")


def test_categories_are_given_by_name_or_unknown() -> None:
    def network(num_classes: int) -> CategoryNetwork:
        made = CategoryNetwork(num_classes, ["color", "season"], small, embedding_dim=2)
        values = {"season": ["fall", "spring"], "color": ["red", "blue"]}
        made.adapt_categories(values, torch.tensor([[0, 0], [1, 1]]))
        return made

    model = method(network)
    images = np.zeros((3, 8, 8, 3), dtype=np.uint8)
    found = model.predict(images, categories={"color": ["blue", None, "green"]})
    plain = model.predict(images)
    assert not torch.equal(found.probs[0], plain.probs[0])
    torch.testing.assert_close(found.probs[1:], plain.probs[1:])  # unknown, and a value that it never saw
    pixels = torch.zeros(1, 3, 8, 8)
    tagged = model.network.with_categories(pixels, torch.tensor([[-1, 1]]))  # of the data's levels: season, color
    torch.testing.assert_close(found.probs[:1], model.eval()(tagged).softmax(dim=1).detach())
    for categories, message in (
        ({"shape": ["a"] * 3}, "a level 'shape', and the net"),
        ({"color": ["red"]}, "1 values"),
    ):
        with pytest.raises(ValueError, match=message):
            model.predict(images, categories=categories)
    with pytest.raises(ValueError, match="looks at images alone: leave them out"):
        method().predict(images, categories={"color": ["red"] * 3})


def test_an_ensemble_predicts_at_the_size_of_its_first_member(photos: Path, tmp_path: Path) -> None:
    network = shaken(CifarResNet(3, depth=8), 1)
    file = trained_file(tmp_path / "a.ckpt", network, {"depth": 8})
    torch.testing.assert_close(Ensemble(3, [file, file]).predict(photos).probs, method(network).predict(photos).probs)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("nowhere.png", "there is no image file or folder .*nowhere.png"),
        ([], "there are no images"),
        (3, "images are a int; images are files, PIL images.*or a folder, or a list of these"),
        (np.zeros((2, 8, 8, 3)), r"ndarray of float64 \[2, 8, 8, 3\]"),
        (torch.zeros(3, 8, 8), r"an image is a Tensor of torch.float32 \[3, 8, 8\], perhaps from a transform"),
        (torch.zeros(2, 5, 8, 8, dtype=torch.uint8), r"Tensor of torch.uint8 \[2, 5, 8, 8\]"),
        (np.zeros((8, 8, 4), np.uint8), r"ndarray of uint8 \[8, 8, 4\], perhaps with transparency: open it with PIL"),
        ([np.zeros((8, 8, 2), np.uint8)], r"ndarray of uint8 \[8, 8, 2\], perhaps with transparency"),
        (np.zeros((0, 8, 3), np.uint8), r"ndarray of uint8 \[0, 8, 3\]"),
        (np.zeros((5, 0, 8), np.uint8), r"ndarray of uint8 \[5, 0, 8\]"),
        (Image.new("RGB", (0, 5)), "an image is 0 x 5 pixels; it must have at least one"),
        (b"bytes of a file", "images are a bytes; images are files"),
        ([Path(__file__)], "images cannot be read:\n  .*test_prediction.py: no image of a known format"),
    ],
)
def test_other_things_are_refused(images: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        method().predict(images)


def test_nan_and_pretrainings_are_refused() -> None:
    model = method()
    torch.nn.init.constant_(model.network.head.weight, float("nan"))  # type: ignore[arg-type]
    image = np.zeros((8, 8), dtype=np.uint8)
    with pytest.raises(ValueError, match="predictions are NaN"):
        model.predict(image)
    with pytest.raises(ValueError, match="which it has in validation and test only"):
        RotationPretraining(3, network=small).predict(image)


def test_plain_loaders_are_answered_with_what_to_do(tmp_path: Path) -> None:
    loader = DataLoader(TensorDataset(torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.long)))
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path
    )
    with pytest.raises(ValueError, match=r"the data is loaders alone\. Give trainer\.fit one of .*InMemory"):
        trainer.fit(method(), loader, loader)
    with pytest.raises(ValueError, match=r"a batch is a list, and not of a data module.*model\.predict\(images\)"):
        trainer.test(method(), loader, verbose=False)


def test_another_number_of_classes_than_that_of_the_data_is_refused(tmp_path: Path) -> None:
    trainer = Trainer(max_steps=1, accelerator="cpu", logger=False, default_root_dir=tmp_path)
    with pytest.raises(SettingsError, match="num_classes is 3, and the data has 10 classes"):
        trainer.fit(method(), Digits())
