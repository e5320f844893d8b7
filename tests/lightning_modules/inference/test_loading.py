"""Checkpoints that a plain Trainer saved are as good as those of the command line: loaded, exported, begun with."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from torch import nn

from tailmatch.datamodules import Digits, ListedCounts
from tailmatch.lightning_modules import (
    ClassifierRetraining,
    Ensemble,
    FixMatch,
    ImageClassifier,
    MixMatch,
    PostHocClassifier,
    Supervised,
)
from tailmatch.lightning_modules.heads import LWS, TauNorm
from tailmatch.lightning_modules.inference.export import export
from tailmatch.lightning_modules.inference.trained_network import load
from tailmatch.lightning_modules.networks import CifarResNet
from tailmatch.lightning_modules.views import StrongView

IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(2))
small = partial(CifarResNet, depth=8)


def digits() -> Digits:
    return Digits(
        class_counts=ListedCounts([4] * 10, [6] * 10),
        labeled_batch_size=6,
        unlabeled_ratio=2,
        steps_per_epoch=2,
        val_holdout=2,
        test_holdout=3,
    )


def trainer(folder: Path, steps: int = 2) -> Trainer:
    return Trainer(
        max_steps=steps,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
    )


def saved(model: ImageClassifier, folder: Path) -> str:
    """Train a method for two steps, and save it with the Trainer's own function."""
    made = trainer(folder)
    made.fit(model, digits())
    made.save_checkpoint(folder / "a.ckpt")
    return str(folder / "a.ckpt")


@pytest.fixture(scope="module")
def fixmatch(tmp_path_factory: pytest.TempPathFactory) -> tuple[FixMatch, str]:
    """A method with arguments of all kinds, and its file."""
    network = lambda k: CifarResNet(k, depth=8)  # noqa: E731  # the class that it makes is one of ours
    optimizer = partial(torch.optim.SGD, lr=0.01)
    strong = StrongView(num_ops=1)
    model = FixMatch(10, threshold=0.7, network=network, strong=strong, optimizer=optimizer, ema_decay=None)
    return model, saved(model, tmp_path_factory.mktemp("fixmatch"))


def test_it_is_loaded_as_it_was(fixmatch: tuple[FixMatch, str], tmp_path: Path) -> None:
    model, file = fixmatch
    for found in (FixMatch.load_from_checkpoint(file), load(file)):
        assert isinstance(found, FixMatch)
        assert (found.threshold, found.class_names, found.image_size) == (0.7, model.class_names, [8, 8])
        assert found.strong.randaugment.num_ops == 1 and found._averaging is None
        assert found.optimizer([nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"] == 0.01
        assert torch.equal(found.eval()(IMAGES), model.eval()(IMAGES))
    made = trainer(tmp_path)
    made.test(found, digits(), verbose=False)
    made.save_checkpoint(tmp_path / "again.ckpt")  # of what was loaded
    again = load(tmp_path / "again.ckpt")
    assert again.init_args == model.init_args and not again.unknown
    assert torch.equal(again.eval()(IMAGES), model.eval()(IMAGES))


def test_arguments_replace_those_of_the_file(fixmatch: tuple[FixMatch, str]) -> None:
    found = FixMatch.load_from_checkpoint(fixmatch[1], threshold=0.9, map_location="cpu")
    assert found.threshold == found.init_args["threshold"] == 0.9
    with pytest.raises(TypeError, match="treshold"):
        FixMatch.load_from_checkpoint(fixmatch[1], treshold=0.9)


def test_it_is_exported_joined_and_begun_with(fixmatch: tuple[FixMatch, str], tmp_path: Path) -> None:
    model, file = fixmatch
    model.eval()
    export(file, tmp_path / "a.pt2")
    pixels = (IMAGES * 255).byte()
    probs, _ = torch.export.load(tmp_path / "a.pt2").module()(pixels)
    torch.testing.assert_close(probs, model(pixels / 255).softmax(dim=1))
    torch.testing.assert_close(Ensemble(10, [file]).eval()(IMAGES), model(IMAGES).log_softmax(dim=1))
    student = Supervised(10, network=small, pretrained=file)
    student.print = head_print = lambda *args: None  # type: ignore[method-assign]  # without a Trainer
    student.begin_fit()
    student.network.adapt_normalization(Digits.mean, Digits.std)  # which pretrained weights leave to the data
    assert torch.equal(student.eval().network.features(IMAGES), model.network.features(IMAGES))
    head = ClassifierRetraining(10, file, network=small, head=LWS())
    head.print = head_print  # type: ignore[method-assign]
    head.begin_fit()
    torch.testing.assert_close(head.eval()(IMAGES), model(IMAGES))


def test_a_method_on_a_trained_network_begins_with_its_own_weights(
    fixmatch: tuple[FixMatch, str], tmp_path: Path
) -> None:
    file = saved(PostHocClassifier(10, fixmatch[1], TauNorm(bias=True, taus=[0.5]), network=small), tmp_path)
    found = PostHocClassifier.load_from_checkpoint(file)
    assert found.checkpoint is None
    assert torch.equal(found.network.features(IMAGES), fixmatch[0].eval().network.features(IMAGES))


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(4, 10)

    def forward(self, images: torch.Tensor) -> Any:
        return self.classifier(self.layers(images))


def test_what_is_no_plain_data_is_asked_for(tmp_path: Path) -> None:
    model = MixMatch(10, network=Own(), optimizer=lambda p: torch.optim.SGD(p, lr=0.1), rampup_steps=3)
    file = saved(model, tmp_path)
    torch.load(file, weights_only=True)
    asked = r"cannot say how to make its network \(a ModuleNetwork whose module is a .*Own.*MixMatch.load_from_check"
    with pytest.raises(ValueError, match=asked):
        load(file)
    with pytest.raises(ValueError, match=asked):
        Ensemble(10, [file])
    found = MixMatch.load_from_checkpoint(file, network=Own())
    assert torch.equal(found.eval()(IMAGES), model.eval()(IMAGES)) and found.rampup_steps == 3
    with pytest.raises(ValueError, match=r"its optimizer \(the function <lambda>.*optimizer=\.\.\.\)"):
        trainer(tmp_path).fit(found, digits())
    again = MixMatch.load_from_checkpoint(file, network=Own(), optimizer=torch.optim.SGD)
    trainer(tmp_path, 1).fit(again, digits())


class WithMore(Supervised):
    """A class that hands on what it is given."""

    def __init__(self, *args: Any, more: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.more = more


class WithItsNetwork(Supervised):
    """A class that brings its network along."""

    def __init__(self, num_classes: int, more: float = 1.0) -> None:
        super().__init__(num_classes, network=small)
        self.more = more


@pytest.mark.parametrize("model", [WithMore(10, more=3.0, network=small), WithItsNetwork(10, 3.0)])
def test_a_class_of_the_user_is_loaded(model: WithMore | WithItsNetwork, tmp_path: Path) -> None:
    loaded = load(saved(model, tmp_path), trust=True)
    assert type(loaded) is type(model) and loaded.more == 3.0
    assert torch.equal(loaded.eval()(IMAGES), model.eval()(IMAGES))


class OfANotebook(Supervised):
    """A class that cannot be imported."""


def test_a_class_of_a_notebook_loads_its_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OfANotebook, "__module__", "__main__")
    file = saved(OfANotebook(10, network=small), tmp_path)
    assert isinstance(OfANotebook.load_from_checkpoint(file), OfANotebook)
    with pytest.raises(ValueError, match="cannot be built: __main__.OfANotebook is no public class"):
        load(file)
    with pytest.raises(ValueError, match="cannot be built.*there is no such class"):
        load(file, trust=True)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (MixMatch, {}, r"is of a FixMatch, not of a MixMatch: load it with FixMatch\.load_from_checkpoint"),
        (FixMatch, {"network": partial(CifarResNet, depth=14)}, "do not fit the network"),
    ],
)
def test_what_does_not_fit_is_refused(
    kind: type[ImageClassifier], arguments: dict[str, Any], message: str, fixmatch: tuple[FixMatch, str]
) -> None:
    with pytest.raises(ValueError, match=message):
        kind.load_from_checkpoint(fixmatch[1], **arguments)


def test_no_code_is_read(fixmatch: tuple[FixMatch, str]) -> None:
    with pytest.raises(ValueError, match="weights_only=False: leave them out"):
        FixMatch.load_from_checkpoint(fixmatch[1], weights_only=False)
