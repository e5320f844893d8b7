"""Any module as a network: which layer becomes the head, and what is refused."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn
from torchvision.models import resnet18

from tailmatch.datamodules import Digits, ListedCounts
from tailmatch.lightning_modules import ClassifierRetraining, FixMatch, ImageClassifier, MoCoPretraining, Supervised
from tailmatch.lightning_modules.inference.export import export
from tailmatch.lightning_modules.losses import LDAM
from tailmatch.lightning_modules.networks import CategoryNetwork, CifarResNet, ModuleNetwork
from tailmatch.lightning_modules.networks.module_network import as_network

IMAGES = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(4))


def body(*more: nn.Module) -> nn.Sequential:
    """Features `[B, 6]`, unless more follows."""
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), *more)


def test_the_last_linear_layer_becomes_the_head_and_the_function_stays() -> None:
    module = resnet18(num_classes=5).eval()
    network = ModuleNetwork(5, module).eval()
    assert (network.feature_dim, network.head.weight.shape) == (512, (5, 512))
    torch.testing.assert_close(network(IMAGES), module(IMAGES))
    assert torch.equal(network.head(network.features(IMAGES)), network(IMAGES))
    nn.init.zeros_(network.head.weight)  # type: ignore[arg-type]
    assert module.fc.weight.any()  # the module that was given is not touched
    network.adapt_normalization((0.5,) * 3, (0.5,) * 3)
    torch.testing.assert_close(network.features(IMAGES), ModuleNetwork(5, module).eval().features(2 * IMAGES - 1))


def test_features_get_a_head_and_maps_are_pooled() -> None:
    for module in (body(), nn.Conv2d(3, 6, 3), body(nn.Linear(6, 6), nn.ReLU())):
        network = ModuleNetwork(5, module)
        assert network.feature_dim == 6 and network(IMAGES).shape == (4, 5)
    assert ModuleNetwork(5, body(nn.Linear(6, 7)), feature_dim=7).feature_dim == 7
    assert ModuleNetwork(5, body(), cosine_scale=30.0)(IMAGES).abs().max() <= 30
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 5, bias=False))
    assert ModuleNetwork(5, flat, image_size=16).head is not flat[1]


def test_a_head_within_the_module_is_found_by_what_it_gives() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.classifier, self.side = body(), nn.Linear(6, 5), nn.Linear(6, 5)

        def forward(self, images: Tensor) -> Tensor:
            features = self.body(images)
            self.side(features)
            return nn.functional.dropout(self.classifier(features), 0.5, self.training)  # in evaluation another tensor

    module = Two().eval()
    network = ModuleNetwork(5, module).eval()
    assert torch.equal(network.head.weight, module.classifier.weight)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (body(nn.Linear(6, 9)), r"ends in a linear layer '5' with 9 outputs\. It must map .* logits \[B, 5\] by an nn"),
        (body(nn.Linear(6, 5), nn.LogSoftmax(dim=1)), "gives 5 numbers an image that no nn.Linear makes"),
        (nn.Linear(4, 5), r"cannot be run on images \[2, 3, 224, 224\] \(.*"),
        (nn.Conv2d(1, 6, 3), "cannot be run on images .*expected input.* to have 1 channels"),
        (nn.Flatten(start_dim=0), r"gives a Tensor \[6144\]"),
    ],
)
def test_a_module_that_gives_something_else_is_answered_in_one_message(module: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_network(module, 5)


def test_a_network_is_given_as_itself_as_a_class_or_as_what_makes_one() -> None:
    own = CifarResNet(5, depth=8)
    assert as_network(own, 5) is own
    assert isinstance(as_network(partial(CifarResNet, depth=8), 5), CifarResNet)
    for factory in (resnet18, partial(resnet18), lambda k: resnet18(num_classes=k), lambda k: body()):
        made = as_network(factory, 5)  # type: ignore[arg-type]
        assert isinstance(made, ModuleNetwork) and made.num_classes == 5
    inner = CategoryNetwork(5, ["color"], lambda k: body(nn.Linear(6, k)))  # type: ignore[arg-type]
    assert inner.feature_dim == 6 + 18
    contrast = MoCoPretraining(5, network=CifarResNet(5, depth=8), queue_size=4, dim=7)
    wrong: list[tuple[Any, str]] = [
        (CifarResNet(4, depth=8), "a CifarResNet that gives 4 logits, and there are 5 classes"),
        (contrast.network, "a CifarResNet that gives 7 logits, and there are 5 classes"),
        ("resnet18", "network is 'resnet18'; it must be a network, a torch.nn.Module, or a function"),
        (lambda k: None, "network makes a NoneType"),
    ]
    for network, message in wrong:
        with pytest.raises(ValueError, match=message):
            as_network(network, 5)


def trained(model: ImageClassifier, folder: Path) -> str:
    trainer = Trainer(
        max_steps=2,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    counts = ListedCounts([4] * 10, [6] * 10)
    data = Digits(class_counts=counts, labeled_batch_size=6, unlabeled_ratio=2, steps_per_epoch=2, val_holdout=2)
    trainer.fit(model, data)
    trainer.save_checkpoint(folder / "a.ckpt")
    return str(folder / "a.ckpt")


def test_methods_train_average_save_and_load_with_it(tmp_path: Path) -> None:
    module = body(nn.Linear(6, 10))
    model = FixMatch(10, network=module, threshold=0.1)
    before = {name: value.clone() for name, value in model.network.named_parameters()}
    file = trained(model, tmp_path)
    for name in ("backbone.0.weight", "head.weight"):
        assert not torch.equal(model.network.get_parameter(name), before[name])
    loaded = FixMatch.load_from_checkpoint(file, network=module)
    image = (IMAGES * 255).byte()
    assert torch.equal(loaded.predict(image).probs, model.predict(image).probs)
    torch.testing.assert_close(loaded.network.mean.flatten()[0], torch.tensor(0.305))  # the data's

    export(loaded, tmp_path / "a.pt2")  # with the layers of the user, which the file of the checkpoint cannot make
    probs, _ = torch.export.load(tmp_path / "a.pt2").module()(IMAGES[:, :, :8, :8].mul(255).byte())
    assert probs.shape == (4, 10)

    contrast = tmp_path / "contrast"
    pretrained = trained(MoCoPretraining(10, network=body(), queue_size=20), contrast)
    student = Supervised(10, network=body(), pretrained=pretrained)
    trained(student, tmp_path / "student")
    retrained = ClassifierRetraining(10, file, network=module)
    trained(retrained, tmp_path / "retrained")
    assert torch.equal(retrained.eval().network.features(IMAGES), model.eval().network.features(IMAGES))
    assert not torch.equal(retrained(IMAGES), model(IMAGES))


def test_a_loss_that_needs_another_head_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cosine_scale"):
        trained(Supervised(10, network=body(), loss=LDAM()), tmp_path)
