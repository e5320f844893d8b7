"""Classifiers that other projects published: their whole network, and what is refused."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn
from torch.nn import functional

from tailmatch.datamodules import Digits
from tailmatch.datamodules.arguments import SettingsError
from tailmatch.datamodules.images import Sources
from tailmatch.lightning_modules import PublishedClassifier
from tailmatch.lightning_modules.networks import CifarResNet
from tests.lightning_modules.networks.test_pretrained import PublicResNet, randomize, saved
from tests.typed import call_here

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]


class Published(PublicResNet):
    """The public network with its head: linear, or the cosine head of LDAM."""

    def __init__(self, classes: int, cosine: bool = False) -> None:
        super().__init__()
        self.fc = nn.Linear(64, classes)
        if cosine:
            self.fc = nn.Module()
            self.fc.weight = nn.Parameter(torch.empty(64, classes))  # NormedLinear of LDAM-DRW
        randomize(self)
        with torch.no_grad():
            self.fc.weight.normal_()

    def forward(self, x: Tensor) -> Tensor:
        features = super().forward((x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1))
        if isinstance(self.fc, nn.Linear):
            return self.fc(features)
        return functional.normalize(features).mm(functional.normalize(self.fc.weight, dim=0))


def network(classes: int, **kwargs: Any) -> CifarResNet:
    return CifarResNet(classes, depth=14, mean=MEAN, std=STD, **kwargs)


class TurnedDigits(Digits):
    """Digits in the order of SVHN's classes."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(image_size=16, **kwargs)
        self.class_names = list("1234567890")

    def load(self) -> Sources:
        sources = super().load()
        sources.train.targets.sub_(1).remainder_(10)
        return sources


@pytest.mark.parametrize("data", [Digits, TurnedDigits])
@pytest.mark.parametrize(("prefix", "cosine"), [("module.", False), ("", True)])
def test_predictions_are_those_of_the_published_network(data: Any, prefix: str, cosine: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    published = Published(10, cosine).eval()
    state = {prefix + key: value for key, value in published.state_dict().items()}
    file = saved(tmp_path / "ckpt.pth.tar", {"epoch": 200, "state_dict": state, "best_acc1": torch.tensor(70.0)})
    kind = {"cosine_scale": 1.0} if cosine else {}
    method = PublishedClassifier(10, file, network=lambda k: network(k, **kind))
    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
    )
    module = data(test_holdout=0.2)
    [metrics] = trainer.test(method, datamodule=module, verbose=False)
    images = torch.stack([module.test.images.pixels[row] for row in module.test.rows.tolist()]).float() / 255
    digits = torch.tensor([int(module.class_names[k]) for k in module.test.targets.tolist()])
    method.eval()
    with torch.no_grad():
        logits = published(images)
        torch.testing.assert_close(
            method(images)[:, [module.class_names.index(str(d)) for d in range(10)]], logits, rtol=1e-4, atol=1e-5
        )
    assert metrics["test/top1"] == pytest.approx((logits.argmax(1) == digits).float().mean().item())


def setup(file: str, classes: int = 4, stage: str = "test", **kwargs: Any) -> None:
    method = PublishedClassifier(classes, file, network=kwargs.get("network", network))
    method._trainer = SimpleNamespace(datamodule=None)  # type: ignore[assignment]
    method.setup(stage)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    state = Published(4).state_dict()
    file = saved(tmp_path / "whole.pth", state)
    with pytest.raises(SettingsError, match=r"whole.pth' have 4 classes, and the data 5"):
        setup(file, classes=5)
    with pytest.raises(SettingsError, match="give the network's mean and std"):
        setup(file, network=lambda k: CifarResNet(k, depth=14))
    with pytest.raises(SettingsError, match="is evaluated as it was published"):
        setup(file, stage="fit")
    without = saved(tmp_path / "part.pth", {key: value for key, value in state.items() if not key.startswith("fc.")})
    with pytest.raises(SettingsError, match="have no head: none of head.weight, fc.weight"):
        setup(without)


def test_the_command_needs_no_checkpoint_and_trains_nothing(tmp_path: Path) -> None:
    file = saved(tmp_path / "ckpt.pth.tar", {"state_dict": Published(10).state_dict()})
    model = ["--model=PublishedClassifier", f"--model.weights={file}", "--model.network=CifarResNet"]
    model += ["--model.network.depth=14", f"--model.network.mean={MEAN}", f"--model.network.std={STD}"]
    model += ["--data=Digits", "--trainer.accelerator=cpu", f"--run_dir={tmp_path / 'run'}"]
    result = call_here("test", *model)
    assert result.returncode == 0, result.stderr
    assert "the head 'fc' loaded" in result.stdout and (tmp_path / "run" / "test_metrics.json").is_file()
    result = call_here("fit", *model)
    assert result.returncode == 1 and "PublishedClassifier has its own weights and cannot be trained" in result.stderr
